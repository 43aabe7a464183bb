//! Segments that lie ready beside the place where a recovering server wants them.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use everpoint_engine::beside::{self, Locked};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::ArchiveGetRequest;
use crate::log_file::LogFile;

/// The directory beside the destination.
const DIRECTORY: &str = "everpoint-spool";
/// Held by the one process that fills it.
const LOCK: &str = "lock";
/// Names the segment that was asked for last and was not ready.
const WANTED: &str = "wanted";
/// Ends the name of a segment that is being fetched.
const PART: &str = ".part";
/// How long a segment that is being fetched is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(2);

/// A spool of one cluster, branch and purpose; others that share the destination's directory are told apart by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    directory: PathBuf,
}

impl Spool {
    /// The spool for a request; `None` if it does not want one.
    #[must_use]
    pub fn of(cluster: &str, request: &ArchiveGetRequest) -> Option<Self> {
        if request.look_ahead_bytes == 0 || !matches!(LogFile::parse(&request.name)?, LogFile::Segment(_)) {
            return None;
        }
        let parent = match request.destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let purpose = (cluster, &request.branch, request.in_place_tablespaces);
        let tag = blake3::hash(format!("{purpose:?}").as_bytes()).to_hex();
        Some(Self { directory: parent.join(DIRECTORY).join(tag.get(..16).unwrap_or_default()) })
    }

    /// A spool in a given directory.
    #[must_use]
    pub fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory in which spools stand: where the server wants its files.
    #[must_use]
    pub fn home(&self) -> Option<&Path> {
        self.directory.parent()?.parent()
    }

    /// Moves a segment that is ready to its destination. One that is being fetched is waited for a little.
    pub(super) fn take(&self, name: &str, destination: &Path) -> bool {
        let (ready, part) = (self.directory.join(name), self.part(name));
        let begun = Instant::now();
        loop {
            // It was written whole before it got this name.
            if std::fs::rename(&ready, destination).is_ok() {
                return true;
            }
            // Between the two looks it may have got its name.
            if (!part.exists() && !ready.exists()) || begun.elapsed() > PATIENCE || !self.is_being_filled() {
                return false;
            }
            std::thread::sleep(POLL);
        }
    }

    /// Says which segment was asked for and was not ready, so that the process that fills it goes on behind. Best effort.
    pub(super) fn want(&self, name: &str) {
        if self.directory.exists()
            && let Err(error) = super::write_whole(&self.directory.join(WANTED), name.as_bytes())
        {
            tracing::debug!(%error, "the spool was not told what is wanted");
        }
    }

    /// What [`Spool::want`] said last.
    pub(crate) fn take_wanted(&self) -> Option<String> {
        let path = self.directory.join(WANTED);
        let name = std::fs::read_to_string(&path).ok()?;
        std::fs::remove_file(&path).ok()?;
        Some(name)
    }

    /// Whether a process fills it.
    #[must_use]
    pub fn is_being_filled(&self) -> bool {
        let Ok(lock) = File::open(self.directory.join(LOCK)) else {
            return false;
        };
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
    }

    /// Makes the directory and becomes the process that fills it; `None` if another is.
    ///
    /// # Errors
    /// If it can't be made.
    pub(crate) fn fill(&self) -> std::io::Result<Option<File>> {
        // Only what is ours: the directory of the log belongs to the server, who may have gone with it.
        if !self.home().is_none_or(Path::is_dir) {
            return Err(ErrorKind::NotFound.into());
        }
        beside::make_directories(&self.directory, 0o700)?;
        let lock = beside::open_or_create(&self.directory.join(LOCK), 0o600)?;
        match beside::lock(&lock)? {
            Locked::Ours => Ok(Some(lock)),
            // Without locks nobody could tell who fills it: what is wanted is then fetched as it is asked for.
            Locked::Theirs | Locked::Unknown(_) => Ok(None),
        }
    }

    /// Puts a segment there.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        let part = self.part(name);
        let mut file = beside::open_or_create(&part, 0o600)?;
        file.set_len(0)?;
        file.write_all(bytes)?;
        drop(file);
        std::fs::rename(part, self.directory.join(name))
    }

    /// Says that a segment is being fetched.
    pub(crate) fn announce(&self, name: &str) -> std::io::Result<()> {
        beside::open_or_create(&self.part(name), 0o600).map(drop)
    }

    /// Takes back what [`Spool::announce`] said.
    pub(crate) fn withdraw(&self, name: &str) {
        let _ = std::fs::remove_file(self.part(name));
    }

    /// Whether a segment is ready.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.directory.join(name).exists()
    }

    /// Removes a segment that nobody wants.
    pub(crate) fn drop_segment(&self, name: &str) {
        let _ = std::fs::remove_file(self.directory.join(name));
    }

    /// Removes segments that an earlier process has left.
    pub(crate) fn clear(&self) {
        for entry in std::fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name != LOCK && name != WANTED {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Removes all of it, and the directory of spools if this was the last one.
    pub(crate) fn remove(&self) {
        let _ = std::fs::remove_dir_all(&self.directory);
        if let Some(spools) = self.directory.parent() {
            let _ = std::fs::remove_dir(spools);
        }
    }

    fn part(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}{PART}"))
    }
}
