//! Directories that are known to be durable.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::calls::{Calls, is_no_sync};
use super::owner::Owner;
use super::{DIRECTORY_MODE, open_directory, split};

/// At most so many handles are kept open: enough for the few directories that are written to again and again.
const KEPT: usize = 64;

/// A directory whose own name has been synced into all directories above it, by this process.
///
/// Another process may have made a directory and died before it synced that: an object in it would vanish with it in a
/// power cut. So each process syncs the way to a directory once, and remembers the open handle: not the path, which
/// could mean another directory after a removal.
pub(super) struct Directories {
    root: Arc<OwnedFd>,
    known: Mutex<HashMap<String, Arc<OwnedFd>>>,
    pub(super) calls: Calls,
    unsynced: Once,
}

impl Directories {
    pub(super) fn new(root: OwnedFd, calls: Calls) -> Self {
        Self { root: Arc::new(root), known: Mutex::new(HashMap::new()), calls, unsynced: Once::new() }
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Arc<OwnedFd>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory `path`, made where missing.
    pub(super) fn durable(&self, path: &str) -> Result<Arc<OwnedFd>, Errno> {
        if path.is_empty() {
            return Ok(Arc::clone(&self.root));
        }
        let known = self.known().get(path).cloned();
        if let Some(handle) = known {
            if rustix::fs::fstat(&*handle)?.st_nlink > 0 {
                return Ok(handle);
            }
            self.known().remove(path);
        }
        let (parent_path, name) = split(path);
        let parent = self.durable(parent_path)?;
        let made = match rustix::fs::mkdirat(&*parent, name, Mode::from_raw_mode(DIRECTORY_MODE)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(errno),
        };
        let handle = Arc::new(open_directory(&*parent, name)?);
        // Another root may have been killed before it gave one away.
        if made || rustix::fs::fstat(&*handle)?.st_uid == 0 {
            self.give_directory(&*handle)?;
        }
        self.synced(&*parent)?;
        let mut all = self.known();
        if all.len() >= KEPT {
            all.clear();
        }
        all.insert(path.to_owned(), Arc::clone(&handle));
        Ok(handle)
    }

    /// Gives a file that root has made to the owner of the repository, whose service has to read it, and to remove it.
    pub(super) fn give_file(&self, made: impl AsFd) -> Result<(), Errno> {
        Owner::of_store(self.root())?.map_or(Ok(()), |owner| owner.give_file(made.as_fd()))
    }

    /// As [`Self::give_file`], a directory.
    fn give_directory(&self, made: impl AsFd) -> Result<(), Errno> {
        Owner::of_store(self.root())?.map_or(Ok(()), |owner| owner.give_directory(made.as_fd()))
    }

    /// Makes the names in a directory durable. Where the file system can't be told to (SMB, some FUSE), it does so by itself
    /// or not at all: a power cut may then cost the newest objects, as a crash before they were made would.
    pub(super) fn synced(&self, directory: impl AsFd) -> Result<(), Errno> {
        match (self.calls.sync_directory)(directory.as_fd()) {
            Err(errno) if is_no_sync(errno) => {
                self.unsynced.call_once(|| {
                    tracing::warn!(
                        %errno,
                        "this file system can't make the names in a directory durable (fsync of directories): after a \
                         power cut the newest objects may be gone"
                    );
                });
                Ok(())
            }
            result => result,
        }
    }

    /// Syncs the entries of a directory, or, if others have removed it as empty, of the nearest one above it.
    pub(super) fn sync(&self, path: &str) -> Result<(), Errno> {
        let mut path = path;
        loop {
            match open_directory(&*self.root, path) {
                Err(Errno::NOENT | Errno::NOTDIR) if !path.is_empty() => path = split(path).0,
                directory => return self.synced(directory?),
            }
        }
    }

    /// Removes the directory and those above it as far as they are empty. That it fails is harmless: an empty directory
    /// holds no object.
    pub(super) fn remove_empty(&self, path: &str) {
        let mut path = path;
        while !path.is_empty() && rustix::fs::unlinkat(&*self.root, path, AtFlags::REMOVEDIR).is_ok() {
            self.known().remove(path);
            path = split(path).0;
        }
    }
}
