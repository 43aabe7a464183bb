//! The marks that a restore leaves: in a data directory until it is complete, beside a tablespace for good. They prove whose
//! the place is.

mod draft;

use std::fs;
use std::path::{Path, PathBuf};

use everpoint_core::name::{of_path, to_path};
use everpoint_core::place::{Bond, MarkProof, SpaceMark, judge_mark};
use rustix::fs::{AtFlags, CWD, StatxFlags};
use serde::{Deserialize, Serialize};

use crate::AppError;
pub use draft::Draft;

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
    #[serde(with = "as_text")]
    directory: PathBuf,
    /// The backup that is being restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backup: Option<String>,
    /// Production's files of configuration stay: those that lie there were never the restore's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    keeps: bool,
    /// Which directory the data directory was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<Identity>,
    /// In the place of a tablespace: which one the server's part of it was, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part: Option<Identity>,
    /// In a data directory: the programs with which its server is to be started. What it said of them itself is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    programs: Option<String>,
}

/// Which directory one is, whatever its name. Numbers are used again as soon as a directory is removed, so that the moment at
/// which it was made counts, too. The number of a file system may change with a restart of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    /// Its number.
    inode: u64,
    /// When it was made, seconds and nanoseconds; `None` where the file system does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    born: Option<(i64, u32)>,
}

impl Identity {
    fn of(path: &Path) -> Option<Self> {
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        let found = rustix::fs::statx(CWD, path, AtFlags::empty(), wanted).ok()?;
        let born = (found.stx_btime.tv_sec, found.stx_btime.tv_nsec);
        let told = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME) && born != (0, 0);
        Some(Self { inode: found.stx_ino, born: told.then_some(born) })
    }
}

/// Whether a directory is the one that was noted.
fn bond(noted: Option<Identity>, found: Option<Identity>) -> Bond {
    let (Some(noted), Some(found)) = (noted, found) else { return Bond::Unknown };
    match (noted.born, found.born) {
        _ if noted.inode != found.inode => Bond::Different,
        (Some(noted), Some(found)) if noted == found => Bond::Same,
        (Some(_), Some(_)) => Bond::Different,
        _ => Bond::Unknown,
    }
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
            keeps: false,
            root: None,
            part: None,
            programs: None,
        }
    }

    /// Name of the cluster.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Says whether production's files of configuration stay.
    #[must_use]
    pub fn keeping(self, keeps: bool) -> Self {
        Self { keeps, ..self }
    }

    /// Whether the files of configuration in a data directory are what they were before any restore began there: another one
    /// may have written a part of the backup's in their place.
    #[must_use]
    pub fn keeps_in(&self, root: &Path) -> bool {
        match self.read(&root.join(MARKER)) {
            Ok(found) => found.keeps,
            Err(proof) => proof == MarkProof::None,
        }
    }

    /// What the mark in a data directory proves.
    #[must_use]
    pub fn in_root(&self, root: &Path) -> MarkProof {
        // An unfinished directory may have been moved, or be reached by another name; a mark may have been copied.
        match self.read(&root.join(MARKER)) {
            Ok(found) if bond(found.root, Identity::of(root)) == Bond::Different => MarkProof::Stale,
            Ok(_) => MarkProof::Ours,
            Err(proof) => proof,
        }
    }

    /// What the mark in the place of a tablespace proves. `root_empty`: nothing is in the data directory, so that no place is
    /// one of it any more; `linked`: a link in it leads to the place.
    #[must_use]
    pub fn in_space(&self, place: &Path, part: &str, root_empty: bool, linked: bool) -> MarkProof {
        let found = match self.read(&place.join(space_name(part))) {
            Ok(found) => found,
            Err(proof) => return proof,
        };
        let same_name = found.directory == self.directory || same_place(&found.directory, &self.directory);
        let root = match bond(found.root, Identity::of(&self.directory)) {
            _ if root_empty => Bond::Different,
            Bond::Unknown if !same_name => Bond::Different,
            bond => bond,
        };
        let part = bond(found.part, Identity::of(&place.join(part)));
        judge_mark(&SpaceMark { root, part, linked })
    }

    /// The data directory that the mark in the place of a tablespace names.
    #[must_use]
    pub fn named_in_space(&self, place: &Path, part: &str) -> Option<PathBuf> {
        self.read(&place.join(space_name(part))).ok().map(|found| found.directory)
    }

    /// The mark at a path, if it is one of this repository and cluster; else what is to be thought of what is there.
    fn read(&self, path: &Path) -> Result<Self, MarkProof> {
        let Ok(found) = fs::symlink_metadata(path) else { return Err(MarkProof::None) };
        let text = if found.is_file() && found.len() <= LONGEST { fs::read(path).ok() } else { None };
        let mark: Option<Self> = text.and_then(|text| serde_json::from_slice(&text).ok());
        mark.filter(|mark| mark.repository == self.repository && mark.cluster == self.cluster)
            .ok_or(MarkProof::Foreign)
    }

    /// The programs with which the restore was to start its server, as the mark in a data directory says.
    #[must_use]
    pub fn programs_in(&self, root: &Path) -> Option<PathBuf> {
        self.read(&root.join(MARKER)).ok()?.programs.as_deref().map(to_path)
    }

    /// The mark that says so of these programs.
    #[must_use]
    pub fn with_programs(mut self, programs: Option<&Path>) -> Self {
        self.programs = programs.map(of_path);
        self
    }

    /// Writes the mark of an unfinished restore, durably; returns where.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&self, root: &Path) -> Result<PathBuf, AppError> {
        self.draft(root)?.put()
    }

    /// The mark of an unfinished restore under another name.
    ///
    /// # Errors
    /// If it can't be written: nothing is left of it then.
    pub fn draft(&self, root: &Path) -> Result<Draft, AppError> {
        Draft::write(root, MARKER, &|| Self { root: Identity::of(root), ..self.clone() })
    }

    /// Writes the mark of a tablespace, durably; returns where.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write_space(&self, place: &Path, part: &str) -> Result<PathBuf, AppError> {
        self.draft_space(place, part)?.put()
    }

    /// The mark of a tablespace under another name.
    ///
    /// # Errors
    /// If it can't be written: nothing is left of it then.
    pub fn draft_space(&self, place: &Path, part: &str) -> Result<Draft, AppError> {
        Draft::write(place, &space_name(part), &|| Self {
            note: SPACE_NOTE.to_owned(),
            backup: None,
            keeps: false,
            root: Identity::of(&self.directory),
            part: Identity::of(&place.join(part)),
            programs: None,
            ..self.clone()
        })
    }
}

/// Paths are bytes: see [`everpoint_core::name`].
mod as_text {
    use std::path::{Path, PathBuf};

    use everpoint_core::name::{of_path, to_path};
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&of_path(path))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        String::deserialize(from).map(|text| to_path(&text))
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
    }

    #[test]
    fn configuration_is_productions_unless_a_restore_that_did_not_keep_it_has_begun() {
        let place = tempfile::tempdir().unwrap();
        let mark = Mark::new("r1", "shop", place.path(), "b");
        assert!(mark.keeps_in(place.path()));
        for keeps in [true, false] {
            mark.clone().keeping(keeps).write(place.path()).unwrap();
            assert_eq!(mark.keeps_in(place.path()), keeps);
        }
        Mark::new("r2", "shop", place.path(), "b").keeping(true).write(place.path()).unwrap();
        assert!(!mark.keeps_in(place.path()), "of another repository");
    }

    #[test]
    fn a_mark_keeps_the_programs_and_speaks_of_them_to_its_own_only() {
        let place = tempfile::tempdir().unwrap();
        let ours = Mark::new("r1", "shop", place.path(), "b");
        ours.clone().with_programs(Some(Path::new("/opt/pg/bin"))).write(place.path()).unwrap();
        assert_eq!(ours.programs_in(place.path()).as_deref(), Some(Path::new("/opt/pg/bin")));
        assert_eq!(Mark::new("r2", "shop", place.path(), "b").programs_in(place.path()), None);
        ours.write(place.path()).unwrap();
        assert_eq!(ours.programs_in(place.path()), None);
    }

    #[test]
    fn a_mark_that_was_copied_into_another_directory_proves_nothing_there() {
        let home = tempfile::tempdir().unwrap();
        let [root, another, moved] = ["copy", "another", "moved"].map(|name| home.path().join(name));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&another).unwrap();
        let ours = Mark::new("r1", "shop", &root, "b");
        let mark = ours.write(&root).unwrap();
        fs::copy(&mark, another.join(MARKER)).unwrap();
        assert_eq!(ours.in_root(&another), MarkProof::Stale);
        fs::rename(&root, &moved).unwrap();
        assert_eq!(ours.in_root(&moved), MarkProof::Ours, "it is the same directory");
        // Older marks say nothing of it.
        let old = format!(r#"{{"repository": "r1", "cluster": "shop", "directory": "{}"}}"#, root.display());
        fs::write(another.join(MARKER), old).unwrap();
        assert_eq!(ours.in_root(&another), MarkProof::Ours);
    }

    #[test]
    fn a_directory_of_any_name_is_marked() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt as _;
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join(OsStr::from_bytes(b"b\xff"));
        fs::create_dir(&root).unwrap();
        let ours = Mark::new("r1", "shop", &root, "b");
        let path = ours.write(&root).unwrap();
        assert_eq!(ours.in_root(&root), MarkProof::Ours);
        assert_eq!(ours.read(&path).unwrap().directory, root);
    }

    #[test]
    fn the_mark_of_a_tablespace_is_of_what_was_there_and_of_no_later_one() {
        let home = tempfile::tempdir().unwrap();
        let [root, another, place] = ["copy", "another", "place"].map(|name| home.path().join(name));
        let part = place.join("PG_15_1");
        for path in [&root, &another, &part] {
            fs::create_dir_all(path).unwrap();
        }
        let ours = Mark::new("r1", "shop", &root, "b");
        ours.write_space(&place, "PG_15_1").unwrap();
        let proof = |mark: &Mark, linked| mark.in_space(&place, "PG_15_1", false, linked);
        if Identity::of(&part).unwrap().born.is_none() {
            return;
        }
        assert_eq!(proof(&ours, false), MarkProof::Ours);
        assert_eq!(ours.in_space(&place, "PG_14_1", false, true), MarkProof::None);
        assert_eq!(ours.in_space(&place, "PG_15_1", true, true), MarkProof::Stale, "nothing is in the copy");
        let elsewhere = Mark::new("r1", "shop", &another, "b");
        assert_eq!(proof(&elsewhere, true), MarkProof::Stale, "of another directory");
        assert_eq!(proof(&Mark::new("r1", "other", &root, "b"), true), MarkProof::Foreign);

        // Renamed it is the same one, made again another one: of the same name, and often of the same number.
        fs::rename(&root, home.path().join("moved")).unwrap();
        assert_eq!(proof(&Mark::new("r1", "shop", &home.path().join("moved"), "b"), false), MarkProof::Ours);
        fs::create_dir(&root).unwrap();
        assert_eq!(proof(&ours, true), MarkProof::Stale);
        fs::remove_dir(&root).unwrap();
        fs::rename(home.path().join("moved"), &root).unwrap();
        fs::remove_dir(&part).unwrap();
        fs::create_dir(&part).unwrap();
        assert_eq!(proof(&ours, true), MarkProof::Stale);

        // Older marks say neither.
        let mark = place.join(space_name("PG_15_1"));
        let old = format!(r#"{{"repository": "r1", "cluster": "shop", "directory": "{}"}}"#, root.display());
        fs::write(mark, old).unwrap();
        assert_eq!(
            [proof(&ours, false), proof(&ours, true), proof(&elsewhere, true)],
            [MarkProof::Stale, MarkProof::Ours, MarkProof::Stale]
        );
    }
}
