//! Removes what writers that died have left.

use std::os::fd::AsFd as _;

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::calls::is_lacking;
use super::writer::{PLACING, Writer};
use super::{LocalStore, UNFINISHED, modified, open_directory};

/// Age at which an unfinished file is given up, in microseconds: one day.
const AGE_MICROS: i64 = 24 * 3600 * 1_000_000;

/// Sweeps once. That it fails is harmless: leftovers cost space only, and the next process tries again.
pub(super) fn sweep(store: &LocalStore) {
    match try_sweep(store) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => tracing::warn!(store = store.shared.root, %errno, "leftovers could not be swept"),
    }
}

fn try_sweep(store: &LocalStore) -> Result<(), Errno> {
    let directory = open_directory(store.root(), UNFINISHED)?;
    // The age is judged by the clock that stamps the files, which on a network filesystem is not ours.
    let Ok(probe) = Writer::begin(store.clone(), "probe") else {
        return Ok(());
    };
    let now = modified(&rustix::fs::fstat(probe.file())?);
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let old = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| now.saturating_sub(modified(&stat)) > AGE_MICROS);
        if old && name.to_bytes() != PLACING.as_bytes() && is_abandoned(store, &directory, name) {
            let _ = rustix::fs::unlinkat(&directory, name, AtFlags::empty());
        }
    }
    Ok(())
}

/// Nobody holds the writer's lock. (A capture of an idle database keeps an object open for days.) Where there are no locks,
/// a writer that is alive can't be told from a dead one by anything but its age.
fn is_abandoned(store: &LocalStore, directory: &std::os::fd::OwnedFd, name: &std::ffi::CStr) -> bool {
    let Ok(file) = rustix::fs::openat(directory, name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) else {
        return false;
    };
    match (store.shared.directories.calls.lock)(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => true,
        Err(errno) => is_lacking(errno) && errno != Errno::PERM,
    }
}
