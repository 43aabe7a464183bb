//! Which file is the configuration: `--config`, `$EVERPOINT_CONFIG`, `./everpoint.toml`, `/etc/everpoint/everpoint.toml`.

use std::path::{Path, PathBuf};

const HERE: &str = "everpoint.toml";
const SYSTEM: &str = "/etc/everpoint/everpoint.toml";

/// The file to read; `None` if no file is named and none of the usual ones exists.
pub(crate) fn find(named: Option<&Path>) -> Option<PathBuf> {
    explicit(named).or_else(|| [HERE, SYSTEM].iter().map(PathBuf::from).find(|path| path.exists()))
}

/// The file to read, or the one to write if there is none yet.
pub(crate) fn found_or_default(named: Option<&Path>) -> PathBuf {
    find(named).unwrap_or_else(|| PathBuf::from(HERE))
}

fn explicit(named: Option<&Path>) -> Option<PathBuf> {
    named
        .map(Path::to_owned)
        .or_else(|| std::env::var_os("EVERPOINT_CONFIG").filter(|v| !v.is_empty()).map(PathBuf::from))
}
