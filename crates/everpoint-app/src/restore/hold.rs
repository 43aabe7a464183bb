//! One restore at a time has a directory, and each place of a tablespace. The lock lies on the directory itself and goes with the process.

use std::fs::File;
use std::path::{Path, PathBuf};

use everpoint_core::FailureClass;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::mark::{MARKER, NEW_MARK};
use super::preflight::Prepared;
use super::prove::only;
use super::spaces::real;
use super::tree::Tree;
use super::{Job, prove};
use crate::AppError;

/// Holds a directory, if it is there.
///
/// # Errors
/// `restore.locked` if another restore has it: nothing was touched.
pub fn directory(path: &Path) -> Result<Option<File>, AppError> {
    let Ok(directory) = File::open(path) else { return Ok(None) };
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(directory)),
        Err(Errno::WOULDBLOCK) => Err(locked(path)),
        // A file system without locks: two at once are told apart by the mark alone.
        Err(error) => {
            tracing::debug!(%error, directory = %path.display(), "it can't be locked");
            Ok(Some(directory))
        }
    }
}

/// Another restore works in the directory.
pub fn locked(path: &Path) -> AppError {
    let message = "another restore works in it";
    AppError::new("restore.locked", FailureClass::Locked, "restore into", path.display().to_string(), message)
        .hint("wait until that one has ended, or stop it, then run this again")
}

/// What a restore holds, and the directories that it has made for that.
#[derive(Debug, Default)]
pub struct Taken {
    locks: Vec<File>,
    made: Vec<PathBuf>,
}

impl Taken {
    /// Makes a directory, unless it is there, and holds it.
    fn take(&mut self, tree: &Tree, path: &Path) -> Result<(), AppError> {
        tree.make(path, 0o700, &mut self.made)?;
        match directory(path) {
            Ok(lock) => self.locks.extend(lock),
            Err(error) => {
                // We may have made it, but it is the other one's now.
                self.made.pop_if(|made| made.as_path() == path);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Removes the directories that were made, as far as nothing is in them.
    pub fn undo(&self) {
        self.made.iter().rev().for_each(|path| drop(std::fs::remove_dir(path)));
    }
}

impl Job<'_> {
    /// Makes the directory and the places of tablespaces, and holds them until the end. Then the places are proven again:
    /// between the proof and the lock somebody may have filled one. `held`: the data directory was there, and is held.
    ///
    /// # Errors
    /// If another restore has one or works in a directory around it, or it is not proven any more.
    pub(super) fn hold(
        &self,
        prepared: &mut Prepared,
        held: bool,
        taken: &mut Taken,
    ) -> Result<(), AppError> {
        let tree = &prepared.proof.tree;
        let root = tree.root().to_owned();
        if !held {
            taken.take(tree, &root)?;
            let mut found = std::fs::read_dir(&root).map_err(|error| AppError::io("list", &root, error))?;
            // Another restore may have had the same wish.
            if found.next().is_some() && self.skipped == 0 {
                return Err(locked(&root));
            }
        }
        let outside = tree.outside().map(|(_, place, _)| place.to_owned());
        let places: Vec<PathBuf> = outside.filter(|place| !place.starts_with(&root)).collect();
        places.iter().try_for_each(|place| taken.take(tree, place))?;
        let ours: Vec<PathBuf> = std::iter::once(&root).chain(&places).map(|path| real(path)).collect();
        ours.iter().try_for_each(|path| refuse_around(path, &ours))?;
        if !places.is_empty() {
            let mut again = prove::run(self.context, self.request, self.plan, self.record)?;
            if again.occupied && !prepared.proof.occupied {
                return Err(locked(&root));
            }
            let marked = again.tree.marked_programs();
            again.tree = again.tree.with_programs(prepared.programs.as_deref().or(marked.as_deref()));
            prepared.proof = again;
        }
        Ok(())
    }
}

/// Refuses a place in a directory that another restore fills, or is about to: it removes from there what its image lacks.
/// `ours`: what we hold ourselves.
fn refuse_around(place: &Path, ours: &[PathBuf]) -> Result<(), AppError> {
    let mut way = place;
    for above in place.ancestors().skip(1) {
        let towards = way.file_name();
        way = above;
        if ours.iter().any(|held| held == above) {
            continue;
        }
        // Others lock directories, too: only in one of a restore there is nothing yet, or its mark, which is being written first.
        let bare = || only(above, &|name, _| towards.is_some_and(|next| next == name)).unwrap_or(false);
        let Ok(opened) = File::open(above) else { continue };
        let taken = flock(&opened, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK);
        let marked = || [NEW_MARK, MARKER].iter().any(|mark| above.join(mark).exists());
        if taken && (bare() || marked()) {
            return Err(locked(above));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_a_directory() {
        let place = tempfile::tempdir().unwrap();
        let held = directory(place.path()).unwrap().unwrap();
        assert_eq!(directory(place.path()).unwrap_err().class, FailureClass::Locked);
        drop(held);
        directory(place.path()).unwrap().unwrap();
        assert!(directory(&place.path().join("none")).unwrap().is_none());
    }

    #[test]
    fn nothing_is_put_into_a_directory_that_another_restore_has() {
        let home = tempfile::tempdir().unwrap();
        let other = home.path().join("other");
        let place = other.join("a/place");
        std::fs::create_dir_all(&place).unwrap();
        refuse_around(&place, &[]).unwrap();
        let held = directory(&other).unwrap();
        assert_eq!(refuse_around(&place, &[]).unwrap_err().class, FailureClass::Locked);
        refuse_around(&place, std::slice::from_ref(&other)).unwrap();
        // Somebody else's lock, on a directory that is in use; and one that is being restored.
        std::fs::write(other.join("notes"), "").unwrap();
        refuse_around(&place, &[]).unwrap();
        for mark in [NEW_MARK, MARKER] {
            std::fs::write(other.join(mark), "").unwrap();
            assert_eq!(refuse_around(&place, &[]).unwrap_err().class, FailureClass::Locked);
            std::fs::remove_file(other.join(mark)).unwrap();
        }
        drop(held);
        refuse_around(&place, &[]).unwrap();
    }

    #[test]
    fn of_what_was_made_only_what_is_empty_goes_again() {
        let home = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "a/b", "c"].map(|name| home.path().join(name));
        std::fs::create_dir_all(&b).unwrap();
        std::fs::create_dir_all(c.join("file")).unwrap();
        Taken { locks: Vec::new(), made: vec![a.clone(), b, c.clone()] }.undo();
        assert!(!a.exists() && c.exists());
    }
}
