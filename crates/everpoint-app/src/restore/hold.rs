//! One restore at a time has a directory, and each place of a tablespace. The lock lies on the directory itself and goes with the process.

use std::fs::File;
use std::path::{Path, PathBuf};

use everpoint_core::FailureClass;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::preflight::Prepared;
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

impl Job<'_> {
    /// Makes the directory and holds it; another restore may have had the same wish.
    pub(super) fn hold_new(&self, tree: &Tree) -> Result<Option<File>, AppError> {
        tree.directory(tree.root(), 0o700)?;
        let held = directory(tree.root())?;
        let mut found =
            std::fs::read_dir(tree.root()).map_err(|error| AppError::io("list", tree.root(), error))?;
        if found.next().is_some() && self.skipped == 0 {
            return Err(locked(tree.root()));
        }
        Ok(held)
    }

    /// Makes the places of tablespaces and holds them until the end. Then they are proven again: between the proof and the
    /// lock somebody may have filled one. `held`: the data directory was there before.
    ///
    /// # Errors
    /// If another restore has one, or it is not proven any more: what was made is removed again, nothing else was touched.
    pub(super) fn hold_places(&self, prepared: &mut Prepared, held: bool) -> Result<Vec<File>, AppError> {
        let root = prepared.proof.tree.root().to_owned();
        let outside = prepared.proof.tree.outside().map(|(_, place, _)| place.to_owned());
        let places: Vec<PathBuf> = outside.filter(|place| !place.starts_with(&root)).collect();
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let mut made = if held { Vec::new() } else { vec![root.clone()] };
        let proven = self.held_places(&prepared.proof.tree, &places, &mut made).and_then(|locks| {
            let again = prove::run(self.context, self.request, self.plan, self.record)?;
            let filled = again.occupied && !prepared.proof.occupied;
            if filled { Err(locked(&root)) } else { Ok((locks, again)) }
        });
        match proven {
            Ok((locks, again)) => {
                prepared.proof = again;
                Ok(locks)
            }
            Err(error) => {
                // Only what is still empty goes.
                made.iter().for_each(|path| drop(std::fs::remove_dir(path)));
                Err(error)
            }
        }
    }

    fn held_places(
        &self,
        tree: &Tree,
        places: &[PathBuf],
        made: &mut Vec<PathBuf>,
    ) -> Result<Vec<File>, AppError> {
        let mut locks = Vec::new();
        for place in places {
            if !place.exists() {
                tree.directory(place, 0o700)?;
                made.push(place.clone());
            }
            locks.extend(directory(place)?);
        }
        Ok(locks)
    }
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
}
