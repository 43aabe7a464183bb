//! Words of commands that a person pastes into a shell.

use std::env;
use std::path::{Path, PathBuf};

/// A word as a shell reads it back.
pub(super) fn quote(word: &str) -> String {
    let plain =
        !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+:=@%,".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// A path as a shell reads it back.
pub(super) fn path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_they_need_it() {
        assert_eq!(quote("/srv/a-b_c.d"), "/srv/a-b_c.d");
        assert_eq!(quote("/srv/it's here"), "'/srv/it'\\''s here'");
        assert_eq!(quote(""), "''");
    }
}
