//! Writes a file anew: a new one comes in its place, so that it is never half written; where none can (it alone is mounted
//! into a container, or nothing can be made in its directory), it is written where it is.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use everpoint_core::mount::mounted;
use everpoint_engine::beside;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tempfile::NamedTempFile;

/// How a file can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By a new one in its place.
    Replaced,
    /// In itself.
    InPlace,
}

/// How a file, or one that is not there yet, can be written; nothing is left behind.
///
/// # Errors
/// Why it can't be.
pub(crate) fn way(path: &Path) -> io::Result<Way> {
    let place = place_of(path);
    let Ok(before) = std::fs::metadata(&place) else {
        let directory = beside::directory_of(&place);
        // One that is missing is made in the first one above it that is there.
        let there = directory.ancestors().find(|above| above.is_dir()).unwrap_or(&directory);
        return fresh(there, 0o600).map(|_| Way::Replaced);
    };
    let replaced = if is_mount_point(&place) {
        Err(Errno::BUSY.into())
    } else {
        successor(&place, Some(&before), 0o600).map(drop)
    };
    match (replaced, open(&place)) {
        (Ok(()), _) => Ok(Way::Replaced),
        (Err(_), Ok(_)) => Ok(Way::InPlace),
        (Err(error), Err(in_place)) => Err(if is_busy(&error) { in_place } else { error }),
    }
}

/// Writes it. Owner and permissions of one that is there stay, and a link to it stays a link; a new one gets `mode`, and
/// belongs to whom its directory belongs.
///
/// # Errors
/// If it can't be written: then it is as it was.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let place = place_of(path);
    if way(&place)? == Way::InPlace {
        return in_place(&place, text);
    }
    let before = std::fs::metadata(&place).ok();
    let mut file = successor(&place, before.as_ref(), mode)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    match file.persist(&place) {
        // Mounted, and not listed as that.
        Err(error) if is_busy(&error.error) => in_place(&place, text),
        Err(error) => Err(error.error),
        Ok(_) => beside::sync_directory(&beside::directory_of(&place)),
    }
}

/// The file, not a link that leads to it.
fn place_of(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Opens the file that is there, and nothing that a link leads to: whose directory it is may have put one there meanwhile.
fn open(place: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(place, flags, Mode::empty())?.into())
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::BUSY.raw_os_error())
}

fn is_mount_point(place: &Path) -> bool {
    let listed = std::fs::read("/proc/self/mountinfo");
    listed.is_ok_and(|listed| mounted(&String::from_utf8_lossy(&listed)).iter().any(|point| point == place))
}

fn fresh(directory: &Path, mode: u32) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".everpoint-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory)
}

/// What can come in the place of a file: beside it, with its owner and permissions.
fn successor(place: &Path, before: Option<&Metadata>, mode: u32) -> io::Result<NamedTempFile> {
    let directory = beside::directory_of(place);
    let file = fresh(&directory, mode)?;
    match before {
        Some(before) => beside::keep(file.as_file(), before)?,
        None => beside::give(file.as_file(), &directory)?,
    }
    Ok(file)
}

/// What only grows gets no more than its end written. When that fails, what was there is put back.
fn in_place(place: &Path, text: &str) -> io::Result<()> {
    let mut file = open(place)?;
    let mut before = Vec::new();
    file.read_to_end(&mut before)?;
    let kept = if text.as_bytes().starts_with(&before) { before.len() } else { 0 };
    put(&mut file, kept, text.as_bytes()).inspect_err(|_| {
        // What failed is told, not that it could not be undone.
        let _ = put(&mut file, kept, &before);
    })
}

/// Writes all of a text behind its first bytes, which are there.
fn put(file: &mut File, kept: usize, text: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(kept as u64))?;
    file.write_all(text.get(kept..).unwrap_or_default())?;
    file.set_len(text.len() as u64)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    fn text_of(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_file_keeps_its_mode_and_a_link_stays_a_link() {
        let home = tempfile::tempdir().unwrap();
        let (file, link) = (home.path().join("file"), home.path().join("link"));
        write(&file, "one", 0o640).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o640);
        std::fs::set_permissions(&file, Permissions::from_mode(0o604)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let before = file.metadata().unwrap().ino();
        write(&link, "two", 0o600).unwrap();
        assert_eq!((text_of(&file).as_str(), file.metadata().unwrap().mode() & 0o777), ("two", 0o604));
        assert_ne!(file.metadata().unwrap().ino(), before, "another one came in its place");
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 2, "nothing stays behind");
    }

    #[test]
    fn in_its_place_a_file_grows_or_becomes_another() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        for (before, after) in [("one\n", "one\ntwo\n"), ("one\n", "two"), ("", "x"), ("x", "")] {
            std::fs::write(&file, before).unwrap();
            let inode = file.metadata().unwrap().ino();
            in_place(&file, after).unwrap();
            assert_eq!((text_of(&file).as_str(), file.metadata().unwrap().ino()), (after, inode));
        }
    }

    #[test]
    fn where_nothing_can_be_made_the_file_itself_is_written_or_it_is_told_before() {
        if rustix::process::geteuid().is_root() {
            return;
        }
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        std::fs::write(&file, "one").unwrap();
        let mode = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        assert_eq!(way(&file).unwrap(), Way::Replaced);
        mode(&file, 0o444);
        assert_eq!(way(&file).unwrap(), Way::Replaced);
        mode(home.path(), 0o555);
        assert!(way(&file).is_err() && way(&home.path().join("new")).is_err());
        mode(&file, 0o644);
        assert_eq!(way(&file).unwrap(), Way::InPlace);
        write(&file, "one, two", 0o600).unwrap();
        assert_eq!(text_of(&file), "one, two");
        mode(home.path(), 0o755);
    }
}
