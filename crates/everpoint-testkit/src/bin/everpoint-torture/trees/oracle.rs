//! What may change, and what has.

use std::path::{Path, PathBuf};

use super::snapshot::Change;

/// What a run may change.
#[derive(Debug, Default)]
pub(crate) struct Zones {
    /// Directories that may change as a whole.
    pub(crate) free: Vec<PathBuf>,
    /// Places of tablespaces: this version's directory may change, and what Everpoint leaves as a mark.
    pub(crate) spaces: Vec<PathBuf>,
    /// Places to which the directory's own links led: a mark may say that they were ours.
    pub(crate) left: Vec<PathBuf>,
    /// What may not change, wherever it lies.
    pub(crate) kept: Vec<PathBuf>,
    /// Readers leave leases here.
    pub(crate) repository: PathBuf,
    /// The repository may get new objects.
    pub(crate) grows: bool,
}

impl Zones {
    /// The changes that may not be, in words.
    pub(crate) fn violated(&self, changes: &[Change]) -> Vec<String> {
        let bad = changes.iter().filter(|change| !self.allows(change));
        bad.map(|change| format!("{}: {}", change.path.display(), change.what)).collect()
    }

    fn allows(&self, change: &Change) -> bool {
        let path = change.path.as_path();
        if self.kept.iter().any(|kept| path.starts_with(kept)) {
            return false;
        }
        if path.starts_with(&self.repository) {
            return self.allows_in_repository(change);
        }
        if self.free.iter().any(|free| path.starts_with(free)) {
            return true;
        }
        if self.spaces.iter().any(|place| in_space(place, path)) {
            return true;
        }
        let is_left = |place: &PathBuf| {
            path == place && change.only_time || path.parent() == Some(place) && is_mark(path)
        };
        if self.left.iter().any(is_left) {
            return true;
        }
        // Whoever makes a directory changes the one above it, and may have to make that, too.
        let above = self.free.iter().chain(&self.spaces).any(|place| place.starts_with(path));
        above && change.is_directory && (change.only_time || change.is_new)
    }

    fn allows_in_repository(&self, change: &Change) -> bool {
        let leases = self.repository.join("leases");
        // Pieces of a segment go when the whole is there.
        let piece =
            change.path.components().any(|part| part.as_os_str().to_string_lossy().ends_with(".tail"));
        let new = change.is_new || piece;
        change.only_time || change.path.starts_with(&leases) || self.grows && new
    }
}

/// Whether a path of a tablespace's place belongs to this version, or is a mark of Everpoint.
fn in_space(place: &Path, path: &Path) -> bool {
    let Ok(below) = path.strip_prefix(place) else {
        return false;
    };
    match below.components().next() {
        None => true,
        Some(first) => {
            first.as_os_str().to_string_lossy().starts_with("PG_15_") || is_mark(Path::new(&first))
        }
    }
}

/// Whether a file by its name is one of Everpoint's marks.
fn is_mark(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().trim_start_matches('.').to_owned());
    name.is_some_and(|name| name.starts_with("everpoint"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(path: &str) -> Change {
        Change {
            path: PathBuf::from(path),
            what: "gone".to_owned(),
            only_time: false,
            is_new: false,
            is_directory: false,
        }
    }

    #[test]
    fn only_proven_places_may_change() {
        let zones = Zones {
            free: vec![PathBuf::from("/w/data")],
            spaces: vec![PathBuf::from("/s/a")],
            left: vec![PathBuf::from("/s/b")],
            kept: vec![PathBuf::from("/w/data/mnt")],
            repository: PathBuf::from("/r"),
            grows: false,
        };
        let paths = [
            ("/w/data/base/1", true),
            ("/w/data/mnt/photo", false),
            ("/w/database", false),
            ("/w", false),
            ("/s/a/PG_15_202209061/5", true),
            ("/s/a/PG_14_202107181/5", false),
            ("/s/a/thesis.txt", false),
            ("/s/b/everpoint.ours", true),
            ("/s/b/PG_15_202209061/5", false),
            ("/r/leases/1", true),
            ("/r/config", false),
        ];
        for (path, allowed) in paths {
            assert_eq!(zones.violated(&[change(path)]).is_empty(), allowed, "{path}");
        }
        let above = Change { only_time: true, is_directory: true, ..change("/w") };
        assert!(zones.violated(&[above]).is_empty());
    }
}
