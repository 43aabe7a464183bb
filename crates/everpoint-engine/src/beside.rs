//! Files and directories that a command makes beside others: they belong to whom the directory belongs, so that a command
//! of root leaves nothing behind that a service can't use; and what file systems lack is told from what fails.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

/// The directory of a path: `.` for a bare name.
#[must_use]
pub fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A user and a group, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hands {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Hands {
    /// To whom something belongs; `None` if it is not there.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|found| Self { uid: found.uid(), gid: found.gid() })
    }
}

/// Gives what we have just made in `directory` to whom that belongs. Only root can, and need.
///
/// # Errors
/// If the file system refuses.
pub fn give(made: impl AsFd, directory: &Path) -> io::Result<()> {
    give_for(made, directory, None)
}

/// As [`give`]; in a directory of root to `service`, if that is known: it belongs to whom the repository belongs.
///
/// # Errors
/// As [`give`].
pub fn give_for(made: impl AsFd, directory: &Path, service: Option<Hands>) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let above = std::fs::metadata(directory)?;
    let above = Hands { uid: above.uid(), gid: above.gid() };
    hand_over(made, service.filter(|_| above.uid == 0).unwrap_or(above))
}

fn hand_over(made: impl AsFd, owner: Hands) -> io::Result<()> {
    let found = rustix::fs::fstat(&made)?;
    // Some file systems know no owners but one.
    if (found.st_uid, found.st_gid) != (owner.uid, owner.gid) {
        rustix::fs::fchown(made, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
    }
    Ok(())
}

/// Gives a file the owner and permissions that another had, which it replaces. Where only permissions can be kept, as by a
/// user who is not root, the owner must be the same.
///
/// # Errors
/// If it can't be the same: the file then must not be replaced.
pub fn keep(made: &File, before: &std::fs::Metadata) -> io::Result<()> {
    hand_over(made, Hands { uid: before.uid(), gid: before.gid() })?;
    made.set_permissions(before.permissions())
}

/// Makes a directory and those above it that are missing.
///
/// # Errors
/// If one can't be made, or is none.
pub fn make_directories(path: &Path, mode: u32) -> io::Result<()> {
    make_directories_for(path, mode, None)
}

/// As [`make_directories`]; whose they are says [`give_for`].
///
/// # Errors
/// As [`make_directories`].
pub fn make_directories_for(path: &Path, mode: u32, service: Option<Hands>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = directory_of(path);
    make_directories_for(&above, mode, service)?;
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        made => made?,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    give_for(rustix::fs::open(path, flags, Mode::empty())?, &above, service)
}

/// Makes a new file, to read and to write.
///
/// # Errors
/// If it is there already, or can't be made.
pub fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)?;
    give(&file, &directory_of(path))?;
    Ok(file)
}

/// Opens a file to write, and makes it if it is missing. What is in it stays.
///
/// # Errors
/// If it can't be opened.
pub fn open_or_create(path: &Path, mode: u32) -> io::Result<File> {
    loop {
        match create_new(path, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made,
        }
        match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {}
            opened => return opened,
        }
    }
}

/// Makes the names in a directory durable. Some file systems (SMB, FUSE) can't be told to: that is no failure.
///
/// # Errors
/// If it failed.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    synced(File::open(directory)?.sync_all())
}

fn synced(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if is_no_sync(&error) => Ok(()),
        result => result,
    }
}

fn is_no_sync(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    errno
        .is_some_and(|errno| is_lacking(errno) || matches!(errno, Errno::BADF | Errno::ISDIR | Errno::ACCESS))
}

/// Whether a file system says by this that it does not have such a call, and not that the call failed.
#[must_use]
pub const fn is_lacking(errno: Errno) -> bool {
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

/// What came of trying to lock a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Locked {
    /// It is ours as long as it is open.
    Ours,
    /// Another has it.
    Theirs,
    /// The file system has no locks: nobody can tell.
    Unknown(Errno),
}

/// Locks a file against everybody else, without waiting.
///
/// # Errors
/// If it failed for another reason than those of [`Locked`].
pub fn lock(file: impl AsFd) -> io::Result<Locked> {
    judge(rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive))
}

fn judge(result: Result<(), Errno>) -> io::Result<Locked> {
    match result {
        Ok(()) => Ok(Locked::Ours),
        Err(Errno::WOULDBLOCK) => Ok(Locked::Theirs),
        Err(errno) if is_lacking(errno) => Ok(Locked::Unknown(errno)),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, chown};

    #[test]
    fn what_root_makes_belongs_to_whom_the_directory_belongs() {
        let place = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            chown(place.path(), Some(70000), Some(70001)).unwrap();
        }
        let owner = |path: &Path| path.metadata().map(|found| (found.uid(), found.gid())).unwrap();
        let wanted = owner(place.path());
        let (below, file) = (place.path().join("a/b"), place.path().join("a/b/c"));
        make_directories(&below, 0o700).unwrap();
        drop(create_new(&file, 0o600).unwrap());
        drop(open_or_create(&below.join("d"), 0o600).unwrap());
        drop(open_or_create(&file, 0o600).unwrap());
        for path in [place.path().join("a"), below.clone(), file.clone(), below.join("d")] {
            assert_eq!(owner(&path), wanted, "{}", path.display());
        }
        assert!(create_new(&file, 0o600).is_err(), "never over something");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let link = below.join("link");
        std::os::unix::fs::symlink(place.path().join("nowhere"), &link).unwrap();
        assert!(open_or_create(&link, 0o600).is_err(), "nothing is made through a link");
    }

    #[test]
    fn what_a_file_system_lacks_is_told_from_what_fails() {
        assert_eq!(judge(Ok(())).unwrap(), Locked::Ours);
        assert_eq!(judge(Err(Errno::WOULDBLOCK)).unwrap(), Locked::Theirs);
        for errno in [Errno::NOTSUP, Errno::NOSYS, Errno::INVAL, Errno::PERM, Errno::NOLCK] {
            assert_eq!(judge(Err(errno)).unwrap(), Locked::Unknown(errno));
            assert!(synced(Err(errno.into())).is_ok());
        }
        assert!(judge(Err(Errno::IO)).is_err() && synced(Err(Errno::IO.into())).is_err());
    }
}
