//! Timeline history files: from which timelines a timeline descends, and where each forked.

use everpoint_core::{BranchId, HistoryEntry, LogOffset, followed};

use crate::lsn::Lsn;

/// One line of a history file: the log follows `timeline` up to `until` and a younger timeline from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    /// The older timeline.
    pub timeline: u32,
    /// First position that is no longer of it.
    pub until: LogOffset,
    /// Why, in PostgreSQL's words.
    pub reason: String,
}

/// The history of a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The timeline itself.
    pub timeline: u32,
    /// Its ancestors, the oldest first. Empty for a first timeline.
    pub ancestors: Vec<Ancestor>,
}

/// A history file that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read line {line} of the history of timeline {timeline}: {message}")]
pub struct HistoryError {
    /// The timeline whose history it is.
    pub timeline: u32,
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: &'static str,
}

impl History {
    /// Reads the content of a history file; empty content is that of a first timeline.
    ///
    /// Positions need not grow, as PostgreSQL does not ask that of them (`readTimeLineHistory` in timeline.c): a server that
    /// was brought back to before its last fork, with recovery following the younger timeline, writes such a history.
    ///
    /// # Errors
    /// If a line is malformed or timelines don't grow.
    pub fn parse(timeline: u32, content: &[u8]) -> Result<Self, HistoryError> {
        let text = String::from_utf8_lossy(content);
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let fail = |message| HistoryError { timeline, line: index + 1, message };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let ancestor = ancestor(line).ok_or_else(|| fail("it is not a timeline, an LSN and a reason"))?;
            let last = ancestors.last();
            if last.is_some_and(|last| last.timeline >= ancestor.timeline) || ancestor.timeline >= timeline {
                return Err(fail("timeline numbers do not grow"));
            }
            ancestors.push(ancestor);
        }
        Ok(Self { timeline, ancestors })
    }

    /// The timeline from which it forked, and where; `None` for a first timeline.
    #[must_use]
    pub fn fork(&self) -> Option<(u32, LogOffset)> {
        self.ancestors.last().map(|ancestor| (ancestor.timeline, ancestor.until))
    }

    /// The steps that the log really followed.
    #[must_use]
    pub fn followed(&self) -> Vec<HistoryEntry> {
        followed(&self.entries())
    }

    /// Its lines, without their reasons.
    #[must_use]
    pub fn entries(&self) -> Vec<HistoryEntry> {
        let entry = |it: &Ancestor| HistoryEntry { timeline: it.timeline, until: it.until };
        self.ancestors.iter().map(entry).collect()
    }

    /// The timeline on whose log the byte at `position` lies, seen from this one.
    #[must_use]
    pub fn timeline_at(&self, position: LogOffset) -> u32 {
        let steps = self.followed();
        steps.iter().find(|step| position < step.until).map_or(self.timeline, |step| step.timeline)
    }

    /// First position that is no longer of `ancestor`, or of anything older; `None` if that is none of its ancestors.
    #[must_use]
    pub fn left_at(&self, ancestor: u32) -> Option<LogOffset> {
        let at = self.ancestors.iter().position(|it| it.timeline == ancestor)?;
        self.ancestors.iter().skip(at).map(|it| it.until).min()
    }

    /// The content of a history file that says this.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.ancestors
            .iter()
            .map(|it| format!("{}\t{}\t{}\n", it.timeline, Lsn::from(it.until), it.reason))
            .collect()
    }
}

fn ancestor(line: &str) -> Option<Ancestor> {
    let (timeline, rest) = line.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let (position, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let position: Lsn = position.parse().ok()?;
    Some(Ancestor {
        timeline: timeline.parse().ok()?,
        until: position.into(),
        reason: reason.trim().to_owned(),
    })
}

/// The name of the branch with this timeline and this content of its history file (empty for a first timeline): two
/// copies promoted apart both take the same number, but not the same history.
#[must_use]
pub fn branch_id(timeline: u32, content: &[u8]) -> BranchId {
    let hash = if content.is_empty() {
        [0; 8]
    } else {
        blake3::hash(content).as_bytes().first_chunk::<8>().copied().unwrap_or_default()
    };
    BranchId::new(timeline, hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: &[u8] =
        b"1\t0/5000148\tno recovery target specified\n\n# note\n2\t0/7000028\tat restore point \"x\"\n";

    #[test]
    fn a_history_tells_forks_and_the_timeline_of_a_position() {
        let history = History::parse(3, CONTENT).unwrap();
        assert_eq!(history.fork(), Some((2, LogOffset(0x700_0028))));
        assert_eq!(history.timeline_at(LogOffset(0x500_0147)), 1);
        assert_eq!(history.timeline_at(LogOffset(0x500_0148)), 2);
        assert_eq!(history.timeline_at(LogOffset(0x700_0028)), 3);
        assert_eq!(History::parse(3, history.to_text().as_bytes()), Ok(history));
    }

    #[test]
    fn wrong_lines_are_refused() {
        for (content, line) in [(&b"1 0/1 a\n1 0/2 b"[..], 2), (b"3 0/1 a", 1), (b"x 0/1 a", 1), (b"1", 1)] {
            assert_eq!(History::parse(3, content).unwrap_err().line, line);
        }
    }

    #[test]
    fn a_history_whose_positions_do_not_grow_is_read_as_servers_read_it() {
        // Brought back to before its fork from timeline 1, while it followed timeline 2.
        let history = History::parse(3, b"1\t0/900\tx\n2\t0/500\ty\n").unwrap();
        assert_eq!(history.fork(), Some((2, LogOffset(0x500))));
        assert_eq!(history.timeline_at(LogOffset(0x4FF)), 1);
        assert_eq!(history.timeline_at(LogOffset(0x500)), 3);
        assert_eq!(history.timeline_at(LogOffset(0x899)), 3);
        assert_eq!(
            (history.left_at(1), history.left_at(2)),
            (Some(LogOffset(0x500)), Some(LogOffset(0x500)))
        );
        assert_eq!(history.left_at(7), None);
        assert_eq!(History::parse(3, history.to_text().as_bytes()), Ok(history));
    }

    #[test]
    fn branches_of_equal_number_and_other_history_differ() {
        assert_eq!(branch_id(1, b"").as_str(), "00000001-0000000000000000");
        assert_ne!(branch_id(2, b"1\t0/1\ta\n"), branch_id(2, b"1\t0/2\ta\n"));
    }
}
