//! Nothing of the host: what tests start sees no configuration, key, password or address of the machine that it runs on.

use std::ffi::OsString;
use std::process::Command;

/// Where no configuration of a whole system is.
pub const NO_SYSTEM_CONFIG: (&str, &str) = ("EVERPOINT_SYSTEM_CONFIG", "/nonexistent/everpoint.toml");
/// A home with nothing in it: no password file, no certificates, no state.
pub const NO_HOME: (&str, &str) = ("HOME", "/nonexistent");

/// How the names of variables begin that change what Everpoint or PostgreSQL do.
const PREFIXES: [&str; 13] = [
    "EVERPOINT_",
    "PG",
    "AWS_",
    "AZURE_",
    "GOOGLE_",
    "BACKUP_",
    "OTEL_",
    "XDG_",
    "WATCHDOG_",
    "WAL_RETENTION",
    "SNAPSHOT_RETENTION",
    "STATE_DIRECTORY",
    "NOTIFY_SOCKET",
];

/// The variables of this process that nothing started by a test may see.
#[must_use]
pub fn foreign_variables() -> Vec<OsString> {
    std::env::vars_os().map(|(name, _)| name).filter(|name| is_foreign(&name.to_string_lossy())).collect()
}

fn is_foreign(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || name.to_ascii_lowercase().ends_with("_proxy")
}

/// Takes what is of the host from a command's environment. What the test sets afterwards counts.
pub fn clean(command: &mut Command) -> &mut Command {
    for name in foreign_variables() {
        command.env_remove(name);
    }
    // Nothing is remembered between one test's process and another's.
    command.env("XDG_RUNTIME_DIR", "/nonexistent");
    command.env(NO_SYSTEM_CONFIG.0, NO_SYSTEM_CONFIG.1).env(NO_HOME.0, NO_HOME.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_the_host_is_known() {
        for name in ["EVERPOINT_CONFIG", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "https_proxy", "BACKUP_DIR"] {
            assert!(is_foreign(name), "{name}");
        }
        assert!(!is_foreign("PATH") && !is_foreign("TZ"));
        let mut command = Command::new("env");
        let seen = clean(&mut command).output().unwrap();
        let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
        assert!(seen.lines().any(|line| line == "HOME=/nonexistent"), "{seen}");
        let foreign = seen.lines().filter(|line| is_foreign(line));
        assert!(
            foreign.clone().count() == 2 && foreign.clone().all(|line| line.contains("=/nonexistent")),
            "{seen}"
        );
    }
}
