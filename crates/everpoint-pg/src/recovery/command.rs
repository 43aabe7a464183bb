//! What stands at the beginning of commands that a person pastes into a shell.

use std::env;
use std::path::PathBuf;

/// A program of the search path.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let places = env::var_os("PATH")?;
    env::split_paths(&places).map(|place| place.join(name)).find(|program| program.is_file())
}

/// What stands before a command so that another user runs it; nothing unless we are root.
pub(super) fn as_user(name: &str) -> String {
    if !rustix::process::geteuid().is_root() || name.is_empty() {
        return String::new();
    }
    if find("sudo").is_some() { format!("sudo -u {name} ") } else { format!("runuser -u {name} -- ") }
}
