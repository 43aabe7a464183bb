//! Whether the recovery still runs for which segments are fetched ahead.

use std::fs;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// Files of which a recovering server's data directory has one until its recovery has ended.
const SIGNALS: [&str; 2] = ["recovery.signal", "standby.signal"];

/// Whether a server recovers in this data directory: it says so with a file, and its process is there.
#[must_use]
pub fn runs_in(data_dir: &Path) -> bool {
    SIGNALS.iter().any(|name| data_dir.join(name).exists()) && is_alive(data_dir)
}

fn is_alive(data_dir: &Path) -> bool {
    let Ok(text) = fs::read_to_string(data_dir.join("postmaster.pid")) else { return false };
    let number = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok());
    let Some(pid) = number.and_then(|number| Pid::from_raw(number.saturating_abs())) else { return false };
    test_kill_process(pid) != Err(Errno::SRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_needs_its_file_and_its_server() {
        let place = tempfile::tempdir().unwrap();
        assert!(!runs_in(place.path()));
        let (signal, pid) = (place.path().join("standby.signal"), place.path().join("postmaster.pid"));
        fs::write(&signal, "").unwrap();
        assert!(!runs_in(place.path()));
        fs::write(&pid, format!("{}\n", std::process::id())).unwrap();
        assert!(runs_in(place.path()));
        fs::write(&pid, "99999999\n").unwrap();
        assert!(!runs_in(place.path()));
    }
}
