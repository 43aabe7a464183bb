//! A directory: a mounted disk or share.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use everpoint_core::thinning::repository_of;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::{Counts, Entry, Provider, ProviderError, ProviderErrorKind, Receipt};

/// What files are called until they are whole.
const INCOMING: &str = ".incoming-";
/// A file that is being written changes more often: this old, its process has died.
const LEFT_OVER: Duration = Duration::from_secs(3600);

/// A directory.
#[derive(Debug, Clone)]
pub struct FilesystemProvider {
    dir: PathBuf,
    below: Option<PathBuf>,
    keep: Option<usize>,
}

impl FilesystemProvider {
    /// Files go to `dir`, which must be there when they come; the newest `keep` packages stay (`None`: all).
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, keep: Option<usize>) -> Self {
        Self { dir: dir.into(), below: None, keep }
    }

    /// The directory is made if it is missing, provided that `below`, a directory above it, is there.
    #[must_use]
    pub fn made_below(mut self, below: Option<PathBuf>) -> Self {
        self.below = below;
        self
    }

    fn error(&self, operation: &'static str, name: &str, error: io::Error) -> ProviderError {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ProviderErrorKind::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ProviderErrorKind::Denied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                ProviderErrorKind::Full
            }
            _ => ProviderErrorKind::Failed,
        };
        ProviderError::new(operation, self.dir.join(name).display().to_string(), kind).cause(error)
    }

    /// A directory that is missing may be one that is not mounted: it is not made, but below one that must be there.
    fn reach(&self, operation: &'static str) -> Result<(), ProviderError> {
        let wrong = |cause: io::Error| {
            ProviderError::new(operation, self.describe(), ProviderErrorKind::Unreachable)
                .unsent()
                .cause(cause)
        };
        if self.below.as_deref().is_some_and(Path::is_dir) {
            make_directories(&self.dir).map_err(wrong)?;
        }
        match fs::metadata(&self.dir) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(wrong(io::ErrorKind::NotADirectory.into())),
            Err(error) => Err(wrong(error)),
        }
    }

    fn write(
        &self,
        mut file: tempfile::NamedTempFile,
        name: &str,
        size: u64,
        body: &mut dyn Read,
    ) -> io::Result<()> {
        // Where locks are unknown, age alone tells what is left over.
        let _ = file.as_file().try_lock();
        if let Err(error) = self.sweep(file.as_file()) {
            tracing::warn!(directory = %self.dir.display(), %error, "what was left over can't be removed");
        }
        let written = io::copy(body, &mut file)?;
        if written != size {
            return Err(io::Error::other(format!("the file has {written} bytes instead of {size}")));
        }
        file.as_file().sync_all()?;
        give(file.as_file(), &self.dir)?;
        file.persist(self.dir.join(name))?;
        match File::open(&self.dir)?.sync_all() {
            // Shares and some FUSE can't be told to.
            Err(error) if is_no_sync(&error) => Ok(()),
            result => result,
        }
    }

    /// Removes what processes that died have left. `new`, just made, tells the time by the clock of the disk.
    fn sweep(&self, new: &File) -> io::Result<()> {
        let now = new.metadata()?.modified()?;
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let ours = metadata.is_file() && entry.file_name().to_string_lossy().starts_with(INCOMING);
            let age = now.duration_since(metadata.modified()?).unwrap_or_default();
            if ours && age >= LEFT_OVER {
                let file = File::open(entry.path())?;
                if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    }

    /// Files by age, oldest first.
    fn files(&self) -> io::Result<Vec<(SystemTime, Entry)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if metadata.is_file() && !name.starts_with('.') {
                found.push((metadata.modified()?, Entry { name, size: Some(metadata.len()) }));
            }
        }
        found.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
        Ok(found)
    }
}

/// What root makes in a directory belongs to whom that belongs, who has to read it, and to remove it.
fn give(made: impl AsFd, directory: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let (owner, found) = (fs::metadata(directory)?, rustix::fs::fstat(&made)?);
    if (found.st_uid, found.st_gid) != (owner.uid(), owner.gid()) {
        let (uid, gid) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
        rustix::fs::fchown(made, Some(uid), Some(gid))?;
    }
    Ok(())
}

fn make_directories(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().unwrap_or(Path::new("/"));
    make_directories(above)?;
    fs::create_dir(path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    give(rustix::fs::open(path, flags, Mode::empty())?, above)
}

fn is_no_sync(error: &io::Error) -> bool {
    let lacking = [Errno::INVAL, Errno::NOTSUP, Errno::NOSYS, Errno::PERM, Errno::BADF, Errno::ISDIR];
    error.raw_os_error().is_some_and(|errno| lacking.contains(&Errno::from_raw_os_error(errno)))
}

/// A file's name must stay inside the directory.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && Path::new(name).file_name().is_some_and(|last| last == name)
}

impl Provider for FilesystemProvider {
    fn describe(&self) -> String {
        format!("the directory {}", self.dir.display())
    }

    fn counts(&self) -> Counts {
        Counts::default()
    }

    fn upload(
        &self,
        name: &str,
        size: u64,
        mut body: Box<dyn Read + Send>,
    ) -> Result<Receipt, ProviderError> {
        self.reach("upload to")?;
        if !is_plain(name) {
            return Err(ProviderError::new("upload", name, ProviderErrorKind::Usage).unsent());
        }
        // Where nothing can be made nothing has arrived: no call is spent.
        let file = tempfile::Builder::new().prefix(INCOMING).tempfile_in(&self.dir);
        let file = file.map_err(|error| self.error("upload", name, error).unsent())?;
        self.write(file, name, size, &mut *body).map_err(|error| self.error("upload", name, error))?;
        Ok(Receipt { provider_date: None, url: Some(self.dir.join(name).display().to_string()) })
    }

    fn download(&self, name: &str, into: &mut dyn Write) -> Result<u64, ProviderError> {
        self.reach("download from")?;
        if !is_plain(name) {
            return Err(ProviderError::new("download", name, ProviderErrorKind::NotFound));
        }
        let mut copy = || io::copy(&mut File::open(self.dir.join(name))?, into);
        copy().map_err(|error| self.error("download", name, error))
    }

    fn list(&self) -> Result<Option<Vec<Entry>>, ProviderError> {
        self.reach("list")?;
        let files = self.files().map_err(|error| self.error("list", "", error))?;
        Ok(Some(files.into_iter().map(|(_, entry)| entry).collect()))
    }

    fn health(&self) -> Result<(), ProviderError> {
        self.reach("ask")
    }

    fn asks(&self) -> bool {
        true
    }

    fn keeps(&self) -> Option<usize> {
        self.keep
    }

    fn remove(&self, name: &str) -> Result<(), ProviderError> {
        self.reach("remove from")?;
        // Others in the directory are somebody else's.
        if !is_plain(name) || repository_of(name).is_none() {
            return Err(ProviderError::new("remove", name, ProviderErrorKind::Usage).unsent());
        }
        fs::remove_file(self.dir.join(name)).map_err(|error| self.error("remove", name, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &'static str) -> Box<dyn Read + Send> {
        Box::new(text.as_bytes())
    }

    fn names(provider: &FilesystemProvider) -> Vec<String> {
        provider.list().unwrap().unwrap().into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn an_upload_removes_nothing_and_only_packages_can_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        let provider = FilesystemProvider::new(dir.path(), Some(1));
        let [first, second] = ["1", "2"].map(|n| format!("everpoint-4f2a91c0-20260129T030000Z-{n}.tar.age"));
        let others = ["everpoint-order-db.key", "letter.txt"];
        for other in others {
            fs::write(dir.path().join(other), "mine").unwrap();
        }
        provider.upload(&first, 4, body("data")).unwrap();
        provider.upload(&second, 4, body("data")).unwrap();
        assert_eq!((names(&provider).len(), provider.keeps()), (4, Some(1)));
        provider.remove(&first).unwrap();
        assert_eq!(provider.remove(&first).unwrap_err().kind, ProviderErrorKind::NotFound);
        for other in others {
            assert_eq!(provider.remove(other).unwrap_err().kind, ProviderErrorKind::Usage);
        }
        assert_eq!(names(&provider).len(), 3);
        let mut back = Vec::new();
        assert_eq!(provider.download(&second, &mut back).unwrap(), 4);
        assert_eq!(back, b"data");
    }

    #[test]
    fn a_directory_that_is_not_mounted_spends_no_call_and_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let provider = FilesystemProvider::new(dir.path().join("usb"), None);
        let error = provider.upload("everpoint-a", 1, body("a")).unwrap_err();
        assert_eq!(
            (error.kind, error.sent, error.retryable()),
            (ProviderErrorKind::Unreachable, false, true)
        );
        assert!(provider.health().is_err());
        assert!(!dir.path().join("usb").exists());
        let below = |name: &str| {
            let below = dir.path().join(name);
            FilesystemProvider::new(below.join("packages"), None).made_below(Some(below))
        };
        assert!(below("usb").health().is_err());
        fs::create_dir(dir.path().join("usb")).unwrap();
        below("usb").upload("everpoint-a", 1, body("a")).unwrap();
    }

    #[test]
    fn a_short_body_leaves_nothing_and_a_name_stays_inside() {
        let dir = tempfile::tempdir().unwrap();
        let provider = FilesystemProvider::new(dir.path(), None);
        assert!(provider.upload("everpoint-a", 5, body("abcd")).unwrap_err().sent);
        assert!(!provider.upload("../x", 1, body("a")).unwrap_err().sent);
        assert!(provider.upload(".x", 1, body("a")).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_process_that_died_has_left_goes_with_the_next_upload() {
        let dir = tempfile::tempdir().unwrap();
        let leave = |name: &str, age: u64| {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
            file
        };
        drop((leave(".incoming-dead01", 7200), leave(".incoming-young1", 60), leave(".other", 7200)));
        let alive = leave(".incoming-alive1", 7200);
        alive.lock().unwrap();
        FilesystemProvider::new(dir.path(), None).upload("everpoint-a", 1, body("a")).unwrap();
        let there = |name: &str| dir.path().join(name).exists();
        assert!(!there(".incoming-dead01"));
        assert!(there(".incoming-young1") && there(".incoming-alive1") && there(".other"));
    }
}
