//! A new object of a directory store on its way.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::calls::is_lacking;
use super::{FILE_MODE, LocalStore, UNFINISHED, fail_io, split};
use crate::{ObjectWriter, StoreError, StoreErrorKind};

/// How often a commit makes the object's directory again when others remove it as empty meanwhile.
const ATTEMPTS: usize = 100;

/// Locked while an object gets its name, where neither a rename that never replaces nor a second name can be had.
pub(super) const PLACING: &str = "placing";
/// What such a file system lacks, if it has no locks either.
const LACKING: &str = "this file system has neither renames that never replace, nor hard links, nor locks: two writers \
                       could replace each other's objects";

static COUNTER: AtomicU64 = AtomicU64::new(0);

pub(super) struct Writer {
    store: LocalStore,
    name: String,
    unfinished: String,
    file: File,
    moved: bool,
    failed: bool,
}

impl Writer {
    pub(super) fn begin(store: LocalStore, name: &str) -> Result<Self, StoreError> {
        let (file, unfinished) = begin_file(&store).map_err(|errno| store.fail("create", name, errno))?;
        // The lock tells sweepers that somebody still writes here. Where locks don't work, age alone protects.
        let lock = store.shared.directories.calls.lock;
        let _ = lock(file.as_fd(), FlockOperation::NonBlockingLockExclusive);
        Ok(Self { store, name: name.to_owned(), unfinished, file, moved: false, failed: false })
    }

    /// Where it is, relative to the root.
    #[cfg(test)]
    pub(super) fn unfinished(&self) -> &str {
        &self.unfinished
    }

    /// The file that is being written.
    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// Moves the file to its name unless that is taken.
    fn place(&mut self) -> Result<(), StoreError> {
        let (parent, base) = split(&self.name);
        for _ in 0..ATTEMPTS {
            let directories = &self.store.shared.directories;
            let placed = directories
                .durable(parent)
                .and_then(|into| move_new(&self.store, &self.unfinished, &into, base).map(|()| into));
            match placed {
                Ok(into) => {
                    self.moved = true;
                    return directories
                        .synced(&*into)
                        .map_err(|errno| self.store.fail("create", &self.name, errno));
                }
                Err(Errno::EXIST) => return Err(taken(&self.store, &self.name)),
                Err(Errno::NOTSUP) => {
                    let object = self.store.object(&self.name);
                    let made = StoreError::new("create", object, StoreErrorKind::Unsupported);
                    return Err(made.cause(LACKING));
                }
                // The directory was removed as empty between two steps.
                Err(Errno::NOENT) if self.unfinished_exists() => {}
                Err(errno) => return Err(self.store.fail("create", &self.name, errno)),
            }
        }
        Err(StoreError::new("create", self.store.object(&self.name), StoreErrorKind::Unavailable)
            .cause("its directory is removed again and again by others"))
    }

    fn unfinished_exists(&self) -> bool {
        rustix::fs::statat(self.store.root(), &*self.unfinished, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }
}

impl ObjectWriter for Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let result = self.file.write_all(bytes);
        self.failed |= result.is_err();
        result.map_err(|error| fail_io("write", &self.store.object(&self.name), error))
    }

    fn commit(mut self: Box<Self>) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::new("create", self.store.object(&self.name), StoreErrorKind::Other)
                .cause("an earlier write to it failed"));
        }
        self.file.sync_all().map_err(|error| fail_io("create", &self.store.object(&self.name), error))?;
        self.place()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.moved {
            // What stays behind is removed by a later sweep.
            let _ = rustix::fs::unlinkat(self.store.root(), &*self.unfinished, AtFlags::empty());
        }
    }
}

/// The error for a name that is taken. Whoever hears it may rely on the object, so it is made durable first: the one who
/// made it may have died between its rename and its sync.
pub(super) fn taken(store: &LocalStore, name: &str) -> StoreError {
    let (parent, _) = split(name);
    let directories = &store.shared.directories;
    match directories.durable(parent).and_then(|directory| directories.synced(&*directory)) {
        Ok(()) => StoreError::new("create", store.object(name), StoreErrorKind::AlreadyExists),
        Err(errno) => store.fail("create", name, errno),
    }
}

fn begin_file(store: &LocalStore) -> Result<(File, String), Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(FILE_MODE);
    loop {
        let path = unfinished_name();
        match rustix::fs::openat(store.root(), &*path, flags, mode) {
            Ok(handle) => {
                store.shared.directories.give_file(&handle)?;
                return Ok((File::from(handle), path));
            }
            Err(Errno::EXIST) => {}
            Err(Errno::NOENT) => {
                store.shared.directories.durable(UNFINISHED)?;
            }
            Err(errno) => return Err(errno),
        }
    }
}

/// A name that no other process is likely to choose; creation is exclusive anyway.
fn unfinished_name() -> String {
    let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{UNFINISHED}/{moment:x}-{:x}-{number:x}", std::process::id())
}

/// Renames without replacing; where the filesystem can't (NFS), links and unlinks, which never replaces either; where it
/// can't do that (exFAT, some FUSE), looks and renames under a lock. `NOTSUP`: it has none of the three.
fn move_new(store: &LocalStore, unfinished: &str, into: &OwnedFd, base: &str) -> Result<(), Errno> {
    let calls = &store.shared.directories.calls;
    match (calls.rename_new)(store.root(), unfinished, into.as_fd(), base) {
        Err(errno) if is_lacking(errno) => {}
        result => return result,
    }
    match link_new(store, unfinished, into, base) {
        Err(errno) if is_lacking(errno) => move_locked(store, unfinished, into, base),
        result => result,
    }
}

pub(super) fn link_new(
    store: &LocalStore,
    unfinished: &str,
    into: &OwnedFd,
    base: &str,
) -> Result<(), Errno> {
    (store.shared.directories.calls.link)(store.root(), unfinished, into.as_fd(), base)?;
    // The second name that may stay is removed by a later sweep.
    let _ = rustix::fs::unlinkat(store.root(), unfinished, AtFlags::empty());
    Ok(())
}

/// All writers of a store take the same way to a name, so that one lock is enough.
fn move_locked(store: &LocalStore, unfinished: &str, into: &OwnedFd, base: &str) -> Result<(), Errno> {
    let path = format!("{UNFINISHED}/{PLACING}");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let lock = rustix::fs::openat(store.root(), &*path, flags, Mode::from_raw_mode(FILE_MODE))?;
    store.shared.directories.give_file(&lock)?;
    match (store.shared.directories.calls.lock)(lock.as_fd(), FlockOperation::LockExclusive) {
        Err(errno) if is_lacking(errno) => return Err(Errno::NOTSUP),
        result => result?,
    }
    store.shared.weak.call_once(|| {
        tracing::warn!(
            store = store.shared.root,
            "this file system has neither renames that never replace nor hard links: objects get their names under a lock, \
             which must reach every machine that writes there"
        );
    });
    match rustix::fs::statat(into, base, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Err(Errno::EXIST),
        Err(Errno::NOENT) => rustix::fs::renameat(store.root(), unfinished, into, base),
        Err(errno) => Err(errno),
    }
}
