//! Before `protect` makes anything: its places take what it writes, and belong to whom the configuration belongs.

use std::path::Path;

use everpoint_app::AppError;
use everpoint_engine::beside::{self, Hands};

use crate::config::rewrite;

/// As `everpoint-store` makes it.
const MODE: u32 = 0o750;

/// Looks whether a file can be made or written anew here, so that nothing is left behind where it can't.
///
/// # Errors
/// If it can't be.
pub(super) fn takes_files(path: &Path) -> Result<(), AppError> {
    rewrite::way(path).map(drop).map_err(|error| {
        AppError::io("write", path, error)
            .hint("run it where you may write, or name the file with --config; nothing was written")
    })
}

/// The same of a key that is to be made.
///
/// # Errors
/// If it can't be.
pub(super) fn takes_key(path: &Path) -> Result<(), AppError> {
    rewrite::way(path).map(drop).map_err(|error| {
        AppError::io("write the new key to", path, error).hint(
            "name a file where you may write with --key-file (on a disk that lasts, and not the repository's), or give the \
             key in EVERPOINT_KEY; nothing was written",
        )
    })
}

/// A repository that root makes in a directory of root belongs to whom the configuration belongs: its service writes to it.
///
/// # Errors
/// If it can't be made.
pub(super) fn own(url: &str, config: &Path) -> Result<(), AppError> {
    let place = Path::new(url.strip_prefix("file://").unwrap_or(url));
    if !rustix::process::geteuid().is_root() || !place.is_absolute() || place.exists() {
        return Ok(());
    }
    let owner = Hands::of(config).or_else(|| Hands::of(&beside::directory_of(config)));
    beside::make_directories_for(place, MODE, owner).map_err(|error| AppError::io("create", place, error))
}
