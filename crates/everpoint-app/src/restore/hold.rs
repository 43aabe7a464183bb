//! One restore at a time has a directory. The lock lies on the directory itself and goes with the process.

use std::fs::File;
use std::path::Path;

use everpoint_core::FailureClass;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

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
