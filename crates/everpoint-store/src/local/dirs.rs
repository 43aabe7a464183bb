//! Directories that are known to be durable.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Gid, Mode, Uid};
use rustix::io::Errno;

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
}

impl Directories {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root: Arc::new(root), known: Mutex::new(HashMap::new()) }
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
        if made {
            self.give(&*handle)?;
        }
        rustix::fs::fsync(&*parent)?;
        let mut all = self.known();
        if all.len() >= KEPT {
            all.clear();
        }
        all.insert(path.to_owned(), Arc::clone(&handle));
        Ok(handle)
    }

    /// Gives what root makes to the owner of the repository, whose service has to read it, and to remove it.
    pub(super) fn give(&self, made: impl AsFd) -> Result<(), Errno> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let owner = rustix::fs::fstat(&*self.root)?;
        if owner.st_uid == 0 && owner.st_gid == 0 {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
        rustix::fs::fchown(made, Some(uid), Some(gid))
    }

    /// Syncs the entries of a directory, or, if others have removed it as empty, of the nearest one above it.
    pub(super) fn sync(&self, path: &str) -> Result<(), Errno> {
        let mut path = path;
        loop {
            match open_directory(&*self.root, path) {
                Err(Errno::NOENT | Errno::NOTDIR) if !path.is_empty() => path = split(path).0,
                directory => return rustix::fs::fsync(directory?),
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
