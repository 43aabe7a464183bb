//! To whom belongs what root makes: to the owner of the repository, with the permissions that it has there, so that its
//! service goes on reading and removing all of it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, Stat, Uid};
use rustix::io::Errno;

/// The object that is made first, by whoever sets the repository up: it tells whose it is, and what others may. The
/// directory itself may be a mount point, which belongs to somebody else.
const FIRST: &str = "config";
/// What permissions of a file may be taken over: nothing of what others may, nothing that runs.
const OF_FILES: u32 = 0o660;
const SET_GROUP: u32 = 0o2000;

/// An owner, and permissions.
pub(super) struct Owner {
    uid: u32,
    gid: u32,
    /// Permissions of files.
    files: u32,
    /// `SET_GROUP` if directories have it.
    set_group: u32,
}

impl Owner {
    /// The one of a store; `None` where we are not root, as then all that we make is ours.
    pub(super) fn of_store(root: BorrowedFd<'_>) -> Result<Option<Self>, Errno> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let directory = rustix::fs::fstat(root)?;
        let first = match rustix::fs::statat(root, FIRST, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(first) => first,
            Err(Errno::NOENT) => directory,
            Err(errno) => return Err(errno),
        };
        Ok(Some(Self::new(&first, &directory)))
    }

    /// The one of a directory in which another is made; `None` as in [`Self::of_store`].
    pub(super) fn of_directory(path: &Path) -> io::Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let directory = rustix::fs::stat(path)?;
        Ok(Some(Self::new(&directory, &directory)))
    }

    const fn new(first: &Stat, directory: &Stat) -> Self {
        Self {
            uid: first.st_uid,
            gid: first.st_gid,
            files: (first.st_mode & OF_FILES) | 0o600,
            set_group: directory.st_mode & SET_GROUP,
        }
    }

    /// Gives it away, if it is not theirs already: some file systems know no owners but one.
    pub(super) fn give(&self, made: BorrowedFd<'_>) -> Result<(), Errno> {
        let found = rustix::fs::fstat(made)?;
        if (found.st_uid, found.st_gid) == (self.uid, self.gid) {
            return Ok(());
        }
        rustix::fs::fchown(made, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
    }

    pub(super) fn give_file(&self, made: BorrowedFd<'_>) -> Result<(), Errno> {
        self.give(made)?;
        permit(made, self.files)
    }

    pub(super) fn give_directory(&self, made: BorrowedFd<'_>) -> Result<(), Errno> {
        self.give(made)?;
        // Who may read files may look for them, too.
        permit(made, self.files | ((self.files & 0o440) >> 2) | 0o100 | self.set_group)
    }
}

/// Sets permissions, whatever our umask has left of them. A file system without any is as good.
fn permit(made: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
    if rustix::fs::fstat(made.as_fd())?.st_mode & 0o7777 == mode {
        return Ok(());
    }
    match rustix::fs::fchmod(made, Mode::from_raw_mode(mode)) {
        Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS) => Ok(()),
        result => result,
    }
}
