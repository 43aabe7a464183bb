//! Which file is the configuration: `--config`, `$EVERPOINT_CONFIG`, `./everpoint.toml`, then that of the whole system:
//! `$EVERPOINT_SYSTEM_CONFIG`, else `/etc/everpoint/everpoint.toml`.

use std::path::{Path, PathBuf};

const HERE: &str = "everpoint.toml";
const SYSTEM: &str = "/etc/everpoint/everpoint.toml";

/// The file to read; `None` if no file is named and none of the usual ones exists.
pub(crate) fn find(named: Option<&Path>) -> Option<PathBuf> {
    explicit(named).or_else(|| [PathBuf::from(HERE), system()].into_iter().find(|path| path.exists()))
}

/// The file that is written to: the one that is named, or one here. What the whole system uses is changed by name only.
pub(crate) fn named_or_here(named: Option<&Path>) -> PathBuf {
    explicit(named).unwrap_or_else(|| PathBuf::from(HERE))
}

/// The configuration of the whole system, where another file is written to.
pub(crate) fn elsewhere(written: &Path) -> Option<PathBuf> {
    Some(system()).filter(|system| system != written && system.exists())
}

/// Where a file is looked for that nobody names, in words.
pub(crate) fn usual() -> String {
    format!("./{HERE} nor {}", system().display())
}

fn system() -> PathBuf {
    set("EVERPOINT_SYSTEM_CONFIG").unwrap_or_else(|| PathBuf::from(SYSTEM))
}

fn set(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn explicit(named: Option<&Path>) -> Option<PathBuf> {
    named.map(Path::to_owned).or_else(|| set("EVERPOINT_CONFIG"))
}
