//! Stretched passphrases, kept in memory between one process and the next (see docs/adr/0009-remembered-passphrases.md): on a
//! file system that is memory, in a directory that only this user can read.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use everpoint_format::keyslot::Remembered;

/// Numbers by which Linux calls file systems that lie in memory: tmpfs, ramfs.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
/// What is kept is shorter.
const MOST: u64 = 4096;

/// See the module. Where there is no such place, nothing is remembered.
pub(crate) struct Memory;

impl Remembered for Memory {
    fn recall(&self, name: &str) -> Option<Vec<u8>> {
        read(&directory()?.join(name))
    }

    fn remember(&self, name: &str, bytes: &[u8]) {
        let Some(directory) = directory() else { return };
        if let Err(error) = write(&directory, name, bytes) {
            tracing::debug!(%error, "the passphrase is stretched again next time");
        }
    }
}

/// The directory, made if it is missing; `None` if there is no place that is memory, or another made it.
fn directory() -> Option<PathBuf> {
    let of_user = std::env::var_os("XDG_RUNTIME_DIR").filter(|place| !place.is_empty()).map(PathBuf::from);
    private_in(&of_user.unwrap_or_else(|| PathBuf::from("/dev/shm")))
}

fn private_in(place: &Path) -> Option<PathBuf> {
    let me = rustix::process::geteuid().as_raw();
    let kind = rustix::fs::statfs(place).ok()?.f_type;
    if !u64::try_from(kind).is_ok_and(|kind| IN_MEMORY.contains(&(kind & 0xffff_ffff))) {
        return None;
    }
    let directory = place.join(format!("everpoint-{me}"));
    // That it exists is usual, and looked at below.
    let _ = DirBuilder::new().mode(0o700).create(&directory);
    let found = directory.symlink_metadata().ok()?;
    (found.is_dir() && found.uid() == me && found.mode() & 0o077 == 0).then_some(directory)
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).ok()?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let found = file.metadata().ok()?;
    if !found.is_file() || found.mode() & 0o077 != 0 || found.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    let mut bytes = Vec::new();
    File::take(file, MOST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn write(directory: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    // For its owner alone: so tempfile makes them.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.persist(directory.join(name))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn only_memory_remembers_and_only_for_its_user() {
        let on_disk = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        assert_eq!(private_in(on_disk.path()), None, "a disk keeps what memory forgets");
        let Ok(place) = tempfile::tempdir_in("/dev/shm") else { return };
        let directory = private_in(place.path()).unwrap();
        assert_eq!(directory.metadata().unwrap().mode() & 0o777, 0o700);
        write(&directory, "a", b"x").unwrap();
        let path = directory.join("a");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(read(&path).as_deref(), Some(b"x".as_slice()));
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read(&path), None, "others could have read it");
        std::fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(private_in(place.path()), None);
    }
}
