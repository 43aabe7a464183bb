//! Scratch: the directories in which packages are made and put in. What lies there is not encrypted, so no other user may
//! look into them.

use std::fs::{File, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use everpoint_core::FailureClass;
use everpoint_engine::beside::{self, Locked};
use everpoint_engine::user_name;
use tempfile::TempDir;

use crate::AppError;

const PREFIX: &str = "package-";
/// Locked as long as a process works in the directory.
const LOCK: &str = "lock";
/// Directories and files of ours: for nobody else.
const PRIVATE_DIRECTORY: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
const OTHERS_WRITE: u32 = 0o002;
const GROUP_OR_OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// A directory of its own in scratch, for this user alone. Goes away with the value.
pub struct Scratch {
    directory: TempDir,
    _lock: File,
}

impl Scratch {
    /// Makes one, and takes away those that killed processes left behind: they would fill the disk day by day.
    ///
    /// # Errors
    /// `scratch.unsafe` as [`prepare`] says; if nothing can be made there.
    pub fn new(parent: &Path) -> Result<Self, AppError> {
        prepare(parent)?;
        sweep(parent);
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(PRIVATE_DIRECTORY))
            .tempdir_in(parent)
            .map_err(|error| AppError::io("make a directory in", parent, error))?;
        // Should this process be killed, who owns the place must be able to sweep it.
        File::open(directory.path())
            .and_then(|made| beside::give(made, parent))
            .map_err(|error| AppError::io("give away", directory.path(), error))?;
        // Locked before it has the name by which others look for it.
        let (unnamed, lock) = (directory.path().join("unlocked"), directory.path().join(LOCK));
        let wrap = |error| AppError::io("lock", &lock, error);
        let file = create(&unnamed).map_err(wrap)?;
        match beside::lock(&file).map_err(wrap)? {
            // Without the name nobody takes it for one that was left behind.
            Locked::Unknown(error) => {
                tracing::warn!(%error, "scratch can't be locked: what killed processes leave behind stays there");
            }
            Locked::Ours | Locked::Theirs => std::fs::rename(&unnamed, &lock).map_err(wrap)?,
        }
        Ok(Self { directory, _lock: file })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// The directory for scratch files where none is configured: each user has one.
#[must_use]
pub fn default_place() -> PathBuf {
    std::env::temp_dir().join(format!("everpoint-{}", rustix::process::geteuid().as_raw()))
}

/// Makes the directory for scratch files if it is not there, and refuses one that others could tamper with: the default
/// one must be this user's alone, as anybody may have made it before; one that the administrator names must not let
/// others rename what is in it.
///
/// # Errors
/// `scratch.unsafe` (class `Usage`); if it can't be made.
pub fn prepare(place: &Path) -> Result<(), AppError> {
    let default = place == default_place();
    let io = |error| AppError::io("make the scratch directory", place, error);
    beside::make_directories(place, PRIVATE_DIRECTORY).map_err(io)?;
    let found = if default { place.symlink_metadata() } else { place.metadata() }.map_err(io)?;
    let Some(reason) = (if default { not_ours(&found) } else { open_to_others(&found) }) else {
        return if default { close(place, &found).map_err(io) } else { Ok(()) };
    };
    let object = place.display().to_string();
    let hint = if default {
        "have its owner or root remove it, or name a directory of your own: scratch_dir of [limits]"
    } else {
        "chmod o-w it, or name a directory of your own: scratch_dir of [limits]"
    };
    let error =
        AppError::new("scratch.unsafe", FailureClass::Usage, "use as scratch directory", object, reason);
    Err(error.hint(hint))
}

fn not_ours(found: &Metadata) -> Option<String> {
    if !found.is_dir() {
        return Some("somebody put something else than a directory there".to_owned());
    }
    let me = rustix::process::geteuid().as_raw();
    if found.uid() != me {
        return Some(format!("it belongs to user {}, not to {}", user_name(found.uid()), user_name(me)));
    }
    let mode = found.mode() & 0o7777;
    (mode & GROUP_OR_OTHERS_WRITE != 0)
        .then(|| format!("other users can write there: its mode is {mode:04o}"))
}

/// What only we could write into is closed to readers, too.
fn close(place: &Path, found: &Metadata) -> std::io::Result<()> {
    if found.mode() & 0o077 == 0 {
        return Ok(());
    }
    std::fs::set_permissions(place, Permissions::from_mode(PRIVATE_DIRECTORY))
}

fn open_to_others(found: &Metadata) -> Option<String> {
    let mode = found.mode() & 0o7777;
    let tampered = mode & OTHERS_WRITE != 0 && mode & STICKY == 0;
    tampered.then(|| format!("any user can rename or replace what lies there: its mode is {mode:04o}"))
}

/// A new file that no other user can read.
pub(super) fn create(path: &Path) -> std::io::Result<File> {
    beside::create_new(path, PRIVATE_FILE)
}

fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let lock = File::open(entry.path().join(LOCK));
        if let (true, Ok(lock)) = (ours, lock)
            && matches!(beside::lock(&lock), Ok(Locked::Ours))
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, "what a killed process left behind could not be removed");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    #[test]
    fn nobody_else_can_look_into_scratch() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(&parent.path().join("new")).unwrap();
        assert_eq!(mode(&parent.path().join("new")), 0o700);
        assert_eq!(mode(scratch.path()), 0o700);
        let file = scratch.path().join("file");
        create(&file).unwrap();
        assert_eq!(mode(&file), 0o600);
    }

    #[test]
    fn a_directory_in_which_others_can_rename_is_refused_and_one_like_tmp_is_not() {
        let parent = tempfile::tempdir().unwrap();
        for (given, refused) in [(0o777, true), (0o1777, false), (0o755, false), (0o775, false)] {
            std::fs::set_permissions(parent.path(), Permissions::from_mode(given)).unwrap();
            let made = Scratch::new(parent.path()).map(|_| ());
            assert_eq!(made.is_err(), refused, "{given:o}");
            assert!(made.err().is_none_or(|error| error.code == "scratch.unsafe" && error.hint.is_some()));
        }
    }

    #[test]
    fn a_default_directory_must_be_ours_alone() {
        let parent = tempfile::tempdir().unwrap();
        let judged = |path: &Path| not_ours(&path.symlink_metadata().unwrap());
        std::fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).unwrap();
        assert_eq!(judged(parent.path()), None);
        close(parent.path(), &parent.path().metadata().unwrap()).unwrap();
        assert_eq!(mode(parent.path()), 0o700);
        std::fs::set_permissions(parent.path(), Permissions::from_mode(0o770)).unwrap();
        assert!(judged(parent.path()).unwrap().contains("0770"));
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(parent.path(), &link).unwrap();
        assert!(judged(&link).unwrap().contains("something else"));
        if !rustix::process::geteuid().is_root() {
            assert!(judged(Path::new("/")).unwrap().contains("belongs to user 0"));
        }
    }
}
