//! When the configuration is read again: when it has changed and nobody writes it any more, or when somebody says so.

use std::time::{Duration, Instant};

use crate::config::FileStamp;

/// How often it is looked whether something has changed.
const EVERY: Duration = Duration::from_millis(500);
/// A file that changed is read when it has stayed as it is for so long: whoever writes it may be in the middle of it.
const SETTLED: Duration = Duration::from_secs(1);

/// What is known of the files of the configuration.
pub(super) struct Changes {
    /// As they were when they were read.
    read: Vec<FileStamp>,
    /// As they were seen since, and since when.
    seen: Option<(Vec<FileStamp>, Instant)>,
    looked: Instant,
}

impl Changes {
    /// They were read as they are now.
    pub(super) fn new(read: Vec<FileStamp>, now: Instant) -> Self {
        Self { read, seen: None, looked: now }
    }

    /// Whether to look at them now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.looked) >= EVERY
    }

    /// They were looked at; says whether to read them.
    pub(super) fn look(&mut self, files: Vec<FileStamp>, now: Instant) -> bool {
        self.looked = now;
        if files == self.read {
            self.seen = None;
            return false;
        }
        match &self.seen {
            Some((seen, since)) if *seen == files => now.saturating_duration_since(*since) >= SETTLED,
            _ => {
                self.seen = Some((files, now));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_once_it_has_settled() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("everpoint.toml");
        let write = |text: &str| {
            // The clock of files ticks slowly.
            std::thread::sleep(Duration::from_millis(15));
            std::fs::write(&path, text).unwrap();
        };
        let files = || vec![FileStamp::of(&path)];
        write("one");
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut changes = Changes::new(files(), begun);
        assert!(!changes.is_due(at(100)) && changes.is_due(at(500)));
        assert!(!changes.look(files(), at(5000)), "nothing has changed");
        write("tw");
        assert!(!changes.look(files(), at(6000)));
        write("two");
        assert!(!changes.look(files(), at(7500)), "it is still being written");
        assert!(!changes.look(files(), at(8000)));
        assert!(changes.look(files(), at(8500)));
        let mut changes = Changes::new(files(), at(8500));
        assert!(!changes.look(files(), at(9999)), "once");
        std::fs::remove_file(&path).unwrap();
        assert!(!changes.look(files(), at(10_000)));
        assert!(changes.look(files(), at(11_000)), "one that is gone is a change, too");
    }
}
