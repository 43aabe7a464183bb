//! Whether what happens to a cluster now is stored, by whom, and on which branch: what `status`, `check`, alerts and readiness
//! say of a cluster is this.

use crate::facts::{BranchFacts, LogFacts};
use crate::path::path;
use crate::position::{BranchId, LogOffset};
use crate::production::{SeenBy, left_at, production};
use crate::slots::ServerSlot;

/// A stream that ended so many seconds ago may be on its way to begin anew.
const MOMENT: f64 = 10.0;
/// A stream of which nothing was stored for so many seconds, while there is something to store, is late.
const LATE: f64 = 60.0;

/// What a server says of its archiver.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Archiver {
    /// It archives.
    pub on: bool,
    /// The command that it calls; may hold secrets, so that it is never shown. Empty: none, or a library does it.
    pub command: String,
    /// Timeline and end of the last segment that it says was archived.
    pub archived: Option<(u32, LogOffset)>,
    /// The file on which it failed, if it has archived none since.
    pub failing: Option<String>,
}

/// What a server does about its log by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogKeeping {
    /// Its archiver.
    pub archiver: Archiver,
    /// Its slots.
    pub slots: Vec<ServerSlot>,
    /// Where the log of its current timeline begins that it still has; `None`: it does not tell.
    pub oldest: Option<LogOffset>,
}

impl LogKeeping {
    /// Whether a server that has written its log to `end` still has it from `from` on for certain: to ask for what is gone
    /// leaves an error in its own log.
    #[must_use]
    pub fn has(&self, from: LogOffset, end: LogOffset, segment_size: u64) -> bool {
        let segment = |position: LogOffset| position.0.checked_div(segment_size);
        let mut held = self.slots.iter().filter_map(|slot| slot.held);
        segment(from) == segment(end)
            || held.any(|held| from.0 >= end.0.saturating_sub(held))
            || self.oldest.is_some_and(|oldest| oldest <= from)
    }
}

impl Archiver {
    /// Whether its command brings the log to this cluster of ours, as far as one can read it.
    #[must_use]
    pub fn calls(&self, cluster: &str) -> bool {
        let is_end = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | ';' | '&' | '|' | '(' | ')');
        let mut words = self.command.split(is_end).skip_while(|word| *word != "archive-push");
        self.on && words.next().is_some() && words.any(|word| word == cluster)
    }

    /// It calls something of which one can't read where it leads.
    #[must_use]
    pub fn calls_something(&self) -> bool {
        self.on && !self.command.trim().is_empty()
    }
}

/// What is known of how the log of a cluster is stored.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Storing {
    /// A capture of the cluster runs somewhere.
    pub running: bool,
    /// Everything before is stored, on this timeline.
    pub stored: (u32, LogOffset),
    /// Bytes of log that only the server has; `None`: it can't be asked.
    pub lag_bytes: Option<u64>,
    /// At most so many seconds of changes would be lost; `None`: no stream ever said.
    pub lag_seconds: Option<f64>,
    /// Bytes of two segments, by which archive_command may be behind.
    pub two_segments: u64,
    /// `None`: the server does not say, or can't be asked.
    pub archiver: Option<Archiver>,
}

/// Who stores what happens now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredBy {
    /// A capture that streams.
    Stream,
    /// The server's archive_command.
    ArchiveCommand,
    /// Somebody should, but is behind and does not move.
    Late,
    /// Nobody: what happens now is lost with the server.
    Nobody,
}

impl StoredBy {
    /// A stable word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::ArchiveCommand => "archive_command",
            Self::Late => "late",
            Self::Nobody => "nobody",
        }
    }
}

/// Says who stores what happens now. An archiver counts only if what it has archived is here: one that brings the log elsewhere
/// protects nothing of ours.
#[must_use]
pub fn stored_by(facts: &Storing) -> StoredBy {
    let silent = |most: f64| facts.lag_seconds.is_none_or(|seconds| seconds > most);
    let lag = facts.lag_bytes.unwrap_or_default();
    if facts.running {
        let expected = if facts.lag_seconds.is_some() { 0 } else { facts.two_segments };
        return if lag > expected && silent(LATE) { StoredBy::Late } else { StoredBy::Stream };
    }
    if !silent(MOMENT) {
        return StoredBy::Stream;
    }
    let brings = match &facts.archiver {
        Some(archiver) => archiver.on && is_here(archiver, facts.stored),
        // Where a stream never said anything, something else has stored what there is.
        None => facts.lag_seconds.is_none(),
    };
    match (brings, lag > facts.two_segments) {
        (false, _) => StoredBy::Nobody,
        (true, true) => StoredBy::Late,
        (true, false) => StoredBy::ArchiveCommand,
    }
}

fn is_here(archiver: &Archiver, stored: (u32, LogOffset)) -> bool {
    archiver.archived.is_none_or(|(timeline, end)| timeline < stored.0 || end <= stored.1)
}

/// How the branch that a server is on stands to what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its log is stored.
    Same,
    /// Nothing of its branch is stored: it was promoted, or replaced.
    Unstored,
    /// Production was seen on another branch since, or on one that goes on from this one: an old primary, or one that was brought
    /// back.
    Before {
        /// Timeline on which production was seen.
        seen: u32,
    },
    /// Another server archives log of a branch that goes on from this one, as if it were production.
    Beside {
        /// Timeline of that branch.
        pushed: u32,
        /// Where it left the one that the server is on.
        fork: LogOffset,
    },
}

/// Compares the branch that a server is on with what is stored. Restored copies have branches, too: only where production was
/// seen counts. `stored`: the branch on which the stored log of the server ends.
#[must_use]
pub fn standing(log: &LogFacts, identity: u32, server: &BranchId, stored: Option<&BranchId>) -> Standing {
    let mut seen = log.sightings.iter().filter(|seen| seen.by == SeenBy::Server && seen.identity == identity);
    let last = seen.next_back();
    // A server that leaves its branch does not come back to it: whoever was seen beside it since is another one.
    let was_here = seen.any(|seen| seen.branch == *server);
    let ours = log.branch(identity, server);
    let is_other = |other: &&BranchFacts| {
        let from = |one: &BranchFacts, id: &BranchId| path(log, one).iter().any(|step| step.branch.id == *id);
        let beside = || was_here && ours.is_some_and(|ours| !from(ours, &other.id));
        other.id != *server && (from(other, server) || beside())
    };
    // The last word counts: whoever was seen on it since is there again.
    let last = last.and_then(|seen| log.branch(identity, &seen.branch)).filter(is_other);
    match (last, beside(log, identity, server)) {
        (Some(later), _) => Standing::Before { seen: later.timeline },
        (None, Some((other, fork))) => Standing::Beside { pushed: other.timeline, fork },
        (None, None) if stored == Some(server) => Standing::Same,
        (None, None) => Standing::Unstored,
    }
}

/// What may be production instead, by what was pushed, and where it left the branch of the server.
fn beside<'a>(log: &'a LogFacts, identity: u32, server: &BranchId) -> Option<(&'a BranchFacts, LogOffset)> {
    let ours = log.branch(identity, server)?;
    let candidates = production(log, identity).candidates();
    candidates.into_iter().find_map(|other| left_at(log, other, ours).map(|fork| (other, fork)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENTS: u64 = 32 << 20;

    fn facts(running: bool, lag_bytes: Option<u64>, lag_seconds: Option<f64>) -> Storing {
        Storing {
            running,
            stored: (1, LogOffset(1000)),
            lag_bytes,
            lag_seconds,
            two_segments: SEGMENTS,
            archiver: Some(Archiver::default()),
        }
    }

    fn archived(archived: Option<(u32, u64)>, lag_bytes: u64, lag_seconds: Option<f64>) -> StoredBy {
        let archived = archived.map(|(timeline, end)| (timeline, LogOffset(end)));
        let archiver = Archiver { on: true, archived, ..Archiver::default() };
        stored_by(&Storing { archiver: Some(archiver), ..facts(false, Some(lag_bytes), lag_seconds) })
    }

    #[test]
    fn a_server_has_the_log_of_its_segment_and_what_slots_hold_or_its_directory_lists() {
        let size = 16 << 20;
        let (end, at) = (LogOffset(5 * size + 900), |segment: u64, into| LogOffset(segment * size + into));
        let slot = |held| ServerSlot {
            name: "any".to_owned(),
            active: false,
            temporary: false,
            physical: true,
            held,
            ..ServerSlot::default()
        };
        let keeping = |held, oldest| LogKeeping { slots: vec![slot(held)], oldest, ..LogKeeping::default() };
        assert!(keeping(None, None).has(at(5, 0), end, size));
        assert!(!keeping(None, None).has(at(4, size - 1), end, size), "recycled, for all we know");
        assert!(keeping(Some(1000), None).has(at(4, size - 100), end, size));
        assert!(!keeping(Some(1000), None).has(at(4, size - 101), end, size));
        assert!(keeping(None, Some(at(4, 0))).has(at(4, 0), end, size));
        assert!(!keeping(None, Some(at(4, 0))).has(at(3, size - 1), end, size));
    }

    #[test]
    fn a_stream_is_late_when_there_is_something_to_store_and_nothing_comes() {
        let of = |lag_bytes, lag_seconds| stored_by(&facts(true, lag_bytes, lag_seconds));
        assert_eq!(of(Some(0), Some(999.0)), StoredBy::Stream, "an idle server");
        assert_eq!(of(Some(1), Some(2.0)), StoredBy::Stream);
        assert_eq!(of(Some(1), Some(61.0)), StoredBy::Late);
        assert_eq!(of(None, Some(999.0)), StoredBy::Stream, "a dead server is another problem");
        assert_eq!(of(Some(1), None), StoredBy::Stream, "of a standby: it says no time");
    }

    #[test]
    fn without_stream_and_archiver_it_is_nobody_from_the_first_minute() {
        let of = |lag_bytes, lag_seconds| stored_by(&facts(false, lag_bytes, lag_seconds));
        assert_eq!(of(Some(0), Some(2.0)), StoredBy::Stream, "it may be on its way");
        assert_eq!(of(Some(0), Some(11.0)), StoredBy::Nobody, "the next commit would be lost");
        assert_eq!(of(Some(0), None), StoredBy::Nobody, "a backup has brought its own log, nobody the rest");
        assert_eq!(of(None, Some(11.0)), StoredBy::Nobody);
    }

    #[test]
    fn an_archiver_counts_when_what_it_archived_is_here() {
        assert_eq!(archived(Some((1, 1000)), 20 << 20, None), StoredBy::ArchiveCommand);
        assert_eq!(
            archived(Some((1, 1000)), 20 << 20, Some(9999.0)),
            StoredBy::ArchiveCommand,
            "once streamed"
        );
        assert_eq!(archived(None, 0, None), StoredBy::ArchiveCommand, "nothing to archive yet");
        assert_eq!(archived(Some((1, 1001)), 0, None), StoredBy::Nobody, "it brings it elsewhere");
        assert_eq!(archived(Some((1, 1000)), SEGMENTS + 1, None), StoredBy::Late);
        let unknown =
            |lag_seconds| stored_by(&Storing { archiver: None, ..facts(false, Some(0), lag_seconds) });
        assert_eq!(unknown(None), StoredBy::ArchiveCommand);
        assert_eq!(unknown(Some(11.0)), StoredBy::Nobody);
    }

    #[test]
    fn a_server_is_compared_with_where_production_was_seen() {
        use crate::{Micros, Sighting};
        let (one, two) = (BranchId::new(1, [0; 8]), BranchId::new(2, [7; 8]));
        let branch = |id: &BranchId, parent: Option<(BranchId, LogOffset)>| BranchFacts {
            identity: 1,
            id: id.clone(),
            timeline: id.timeline(),
            segment_size: 1 << 20,
            parent,
            pieces: Vec::new(),
            covered: None,
            gaps: Vec::new(),
            expired: None,
        };
        let seen = |id: &BranchId| Sighting {
            identity: 1,
            branch: id.clone(),
            position: LogOffset(5),
            at: Micros(1),
            by: SeenBy::Server,
        };
        let branches = vec![branch(&one, None), branch(&two, Some((one.clone(), LogOffset(50))))];
        let mut log = LogFacts { branches, sightings: vec![seen(&one)] };
        assert_eq!(standing(&log, 1, &one, Some(&one)), Standing::Same);
        assert_eq!(standing(&log, 1, &two, Some(&one)), Standing::Unstored, "it was promoted");
        let other = BranchId::new(2, [9; 8]);
        assert_eq!(
            standing(&log, 1, &other, Some(&two)),
            Standing::Unstored,
            "the number alone says nothing"
        );
        log.sightings.push(seen(&two));
        assert_eq!(standing(&log, 1, &one, Some(&one)), Standing::Before { seen: 2 }, "an old primary");
        assert_eq!(standing(&log, 1, &two, Some(&two)), Standing::Same);
        log.sightings.push(seen(&one));
        assert_eq!(standing(&log, 1, &one, Some(&one)), Standing::Same, "somebody said so");
        log.sightings.push(Sighting { by: SeenBy::Push, ..seen(&two) });
        let beside = Standing::Beside { pushed: 2, fork: LogOffset(50) };
        assert_eq!(standing(&log, 1, &one, Some(&one)), beside, "a clone that was promoted, and archives");
        assert_eq!(standing(&log, 1, &two, Some(&two)), Standing::Same, "a failover");
        // Two that left the same branch: the one that was seen last says nothing of the other's new branch, but of its old one.
        let three = BranchId::new(3, [3; 8]);
        log.branches.push(branch(&three, Some((one.clone(), LogOffset(50)))));
        log.sightings = vec![seen(&one), seen(&two)];
        assert_eq!(standing(&log, 1, &three, Some(&three)), Standing::Same, "restored in place");
        log.sightings.extend([seen(&three), seen(&two)]);
        assert_eq!(
            standing(&log, 1, &three, Some(&three)),
            Standing::Before { seen: 2 },
            "a clone was looked at"
        );
    }

    #[test]
    fn a_command_that_calls_us_is_known() {
        let of = |command: &str| Archiver { on: true, command: command.to_owned(), ..Archiver::default() };
        assert!(of("everpoint --config /etc/e.toml archive-push order-db %p").calls("order-db"));
        assert!(of("test -f x || '/opt/everpoint' archive-push --json 'order-db' \"%p\"").calls("order-db"));
        assert!(!of("everpoint archive-push order-db-2 %p").calls("order-db"));
        assert!(!of("everpoint archive-get order-db %p").calls("order-db"));
        assert!(!of("cp %p /order-db").calls("order-db") && of("cp %p /order-db").calls_something());
        assert!(!Archiver { on: false, ..of("everpoint archive-push order-db %p") }.calls("order-db"));
    }
}
