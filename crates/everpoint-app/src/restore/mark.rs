//! The marks that a restore leaves: in a data directory until it is complete, beside a tablespace for good. They prove whose
//! the place is.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use everpoint_core::place::MarkProof;
use serde::{Deserialize, Serialize};

use crate::AppError;

/// Stands in the directory until a restore is complete: such a directory is never mistaken for a whole one.
pub const MARKER: &str = "everpoint.restore-incomplete";
/// Stands beside a server's part of a tablespace, with the name of that part behind it.
const SPACE: &str = "everpoint.";
/// A mark that is being written.
pub const NEW_MARK: &str = "everpoint.everpoint-new";
/// Longer files are no marks.
const LONGEST: u64 = 64 << 10;

const NOTE: &str =
    "A restore into this directory has not finished. It is not a whole database. The same command goes on.";
const SPACE_NOTE: &str =
    "What lies beside this file is a tablespace of the restored data directory that is named here.";

/// Whose a place is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// For who finds it.
    #[serde(default)]
    note: String,
    /// Id of the repository.
    repository: String,
    /// Name of the cluster.
    cluster: String,
    /// The data directory.
    directory: PathBuf,
    /// The backup that is being restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backup: Option<String>,
}

impl Mark {
    /// The mark of a restore into a data directory.
    #[must_use]
    pub fn new(repository: &str, cluster: &str, directory: &Path, backup: &str) -> Self {
        Self {
            note: NOTE.to_owned(),
            repository: repository.to_owned(),
            cluster: cluster.to_owned(),
            directory: directory.to_owned(),
            backup: Some(backup.to_owned()),
        }
    }

    /// What the mark in a data directory proves.
    #[must_use]
    pub fn in_root(&self, root: &Path) -> MarkProof {
        // An unfinished directory may have been moved, or be reached by another name.
        self.proof(&root.join(MARKER), |_| true)
    }

    /// What the mark in the place of a tablespace proves.
    #[must_use]
    pub fn in_space(&self, place: &Path, part: &str) -> MarkProof {
        self.proof(&place.join(space_name(part)), |found| {
            found.directory == self.directory || same_place(&found.directory, &self.directory)
        })
    }

    fn proof(&self, path: &Path, fits: impl Fn(&Self) -> bool) -> MarkProof {
        let Ok(found) = fs::symlink_metadata(path) else { return MarkProof::None };
        let text = if found.is_file() && found.len() <= LONGEST { fs::read(path).ok() } else { None };
        let mark: Option<Self> = text.and_then(|text| serde_json::from_slice(&text).ok());
        match mark {
            Some(mark)
                if mark.repository == self.repository && mark.cluster == self.cluster && fits(&mark) =>
            {
                MarkProof::Ours
            }
            _ => MarkProof::Foreign,
        }
    }

    /// Writes the mark of an unfinished restore, durably; returns where.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&self, root: &Path) -> Result<PathBuf, AppError> {
        let path = root.join(MARKER);
        self.put(root, &path)?;
        Ok(path)
    }

    /// Writes the mark of a tablespace, durably; returns where.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write_space(&self, place: &Path, part: &str) -> Result<PathBuf, AppError> {
        let path = place.join(space_name(part));
        let mark = Self { note: SPACE_NOTE.to_owned(), backup: None, ..self.clone() };
        mark.put(place, &path)?;
        Ok(path)
    }

    /// Another name first: a mark is there whole or not at all.
    fn put(&self, directory: &Path, path: &Path) -> Result<(), AppError> {
        let fail = |error| AppError::io("write", path, error);
        let new = directory.join(NEW_MARK);
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| fail(error.into()))?;
        text.push(b'\n');
        match fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(fail)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(fail)?;
        fs::rename(&new, path).map_err(fail)?;
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(fail)
    }
}

/// Name of a mark beside a server's part of a tablespace.
#[must_use]
pub fn space_name(part: &str) -> String {
    format!("{SPACE}{part}")
}

/// Whether a name in the place of a tablespace is that of such a mark.
#[must_use]
pub fn is_space_name(name: &str) -> bool {
    name.strip_prefix(SPACE).is_some_and(|part| part.starts_with("PG_"))
}

/// Whether two paths lead to the same directory.
#[must_use]
pub fn same_place(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_proves_only_what_it_names() {
        let place = tempfile::tempdir().unwrap();
        let ours = Mark::new("r1", "shop", Path::new("/srv/copy"), "b");
        assert_eq!(ours.in_root(place.path()), MarkProof::None);
        ours.write(place.path()).unwrap();
        assert_eq!(ours.in_root(place.path()), MarkProof::Ours);
        for (repository, cluster) in [("r2", "shop"), ("r1", "other")] {
            let other = Mark::new(repository, cluster, Path::new("/srv/copy"), "b");
            assert_eq!(other.in_root(place.path()), MarkProof::Foreign);
        }
        for text in
            ["", "A restore into this directory has not finished. It is not a whole database.\n", "{}"]
        {
            fs::write(place.path().join(MARKER), text).unwrap();
            assert_eq!(ours.in_root(place.path()), MarkProof::Foreign, "{text}");
        }
        ours.write_space(place.path(), "PG_15_1").unwrap();
        assert_eq!(ours.in_space(place.path(), "PG_15_1"), MarkProof::Ours);
        assert_eq!(ours.in_space(place.path(), "PG_14_1"), MarkProof::None);
        let elsewhere = Mark::new("r1", "shop", Path::new("/srv/another"), "b");
        assert_eq!(elsewhere.in_space(place.path(), "PG_15_1"), MarkProof::Foreign, "of another directory");
    }
}
