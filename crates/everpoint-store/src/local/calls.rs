//! What a directory store asks of its file system beyond reading and writing. Shares (SMB), FUSE and file systems of
//! memory sticks lack parts of it: each call then has another way that is as safe, or says what is lacking.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FlockOperation, RenameFlags};
use rustix::io::Errno;

/// The calls that may be lacking. Tests put others in their place.
#[derive(Clone, Copy)]
pub(super) struct Calls {
    /// Makes the names in a directory durable.
    pub(super) sync_directory: fn(BorrowedFd<'_>) -> Result<(), Errno>,
    /// Renames within the store (from the root) into a directory, never over something.
    pub(super) rename_new: fn(BorrowedFd<'_>, &str, BorrowedFd<'_>, &str) -> Result<(), Errno>,
    /// Gives a file a second name.
    pub(super) link: fn(BorrowedFd<'_>, &str, BorrowedFd<'_>, &str) -> Result<(), Errno>,
    /// Locks a file.
    pub(super) lock: fn(BorrowedFd<'_>, FlockOperation) -> Result<(), Errno>,
}

impl Calls {
    /// Those of the system.
    pub(super) const SYSTEM: Self = Self {
        sync_directory: |directory| rustix::fs::fsync(directory),
        rename_new: |root, from, into, base| {
            rustix::fs::renameat_with(root, from, into, base, RenameFlags::NOREPLACE)
        },
        link: |root, from, into, base| rustix::fs::linkat(root, from, into, base, AtFlags::empty()),
        lock: |file, operation| rustix::fs::flock(file, operation),
    };
}

/// Whether a file system says by this that it does not have such a call, and not that the call failed.
pub(super) const fn is_lacking(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOTSUP
            | Errno::NOSYS
            | Errno::INVAL
            | Errno::PERM
            | Errno::NOLCK
            | Errno::NOTTY
            | Errno::MLINK
    )
}

/// As [`is_lacking`], of the fsync of a directory, which some refuse as one of something that is no file.
pub(super) const fn is_no_sync(errno: Errno) -> bool {
    is_lacking(errno) || matches!(errno, Errno::BADF | Errno::ISDIR | Errno::ACCESS)
}
