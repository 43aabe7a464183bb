//! What planning knows: digests in brief, branches, backups.

use crate::digest::{Digest, LogEvent, RecordSpan, Verdict};
use crate::position::{BranchId, LogOffset, Micros, Span};
use crate::production::Sighting;

/// A digest in brief: small enough that those of a whole log fit in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceFacts {
    /// See [`Digest::span`].
    pub span: Span,
    /// See [`Digest::content_hash`].
    pub content_hash: [u8; 32],
    /// See [`Digest::previous_hash`].
    pub previous_hash: Option<[u8; 32]>,
    /// See [`Digest::verdict`].
    pub verdict: Verdict,
    /// See [`Digest::first_record`].
    pub first_record: Option<LogOffset>,
    /// See [`Digest::last_record`].
    pub last_record: Option<RecordSpan>,
    /// See [`Digest::first_previous`].
    pub first_previous: Option<LogOffset>,
    /// End of the last whole record, if that is a switch of segments: what follows in the segment holds nothing.
    pub switched: Option<LogOffset>,
    /// See [`Digest::system`].
    pub system: u64,
    /// See [`Digest::timeline`].
    pub timeline: u32,
    /// See [`Digest::head_unknown`].
    pub head_unknown: bool,
    /// Everything that happened until this moment lies in this piece or before it: the digest says so, or a
    /// checkpoint, a restore point or an end of recovery in it has this time. The latest such moment.
    pub known_until: Option<Micros>,
    /// Earliest and latest time of the commits and aborts in the piece.
    pub times: Option<(Micros, Micros)>,
    /// Lowest and highest of the transaction ids that the piece's events name, subtransactions too.
    pub xids: Option<(u64, u64)>,
    /// Where the log becomes one that can't be replayed over a backup: start of the first record that says so, end
    /// of the last.
    pub minimal: Option<Span>,
    /// What else is in it.
    pub counts: EventCounts,
}

/// How many events of some kinds a piece has, so that only pieces with something to find are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventCounts {
    /// Commits.
    pub commits: u32,
    /// Aborts.
    pub aborts: u32,
    /// Transactions prepared, and prepared transactions ended.
    pub prepared: u32,
    /// Named restore points.
    pub restore_points: u32,
    /// Ends of backups.
    pub backup_ends: u32,
    /// Databases and tablespaces created or dropped.
    pub places: u32,
    /// Records of settings that a replaying server must match.
    pub parameters: u32,
    /// Records that need an extension.
    pub extensions: u32,
}

/// Of a digest whose `span` was narrowed, because other pieces hold the rest, only what lies in the rest of it counts.
impl From<&Digest> for PieceFacts {
    fn from(digest: &Digest) -> Self {
        let span = digest.span;
        let begins_here = |at: &LogOffset| span.from <= *at && *at < span.to;
        let first_record = digest.first_record.filter(begins_here);
        let mut facts = Self {
            span,
            content_hash: digest.content_hash,
            previous_hash: digest.previous_hash,
            verdict: digest.verdict.clone(),
            first_record,
            last_record: digest.last_record.filter(|record| span.ends_in(*record)),
            first_previous: digest.first_previous.filter(|_| first_record.is_some()),
            switched: None,
            system: digest.system,
            timeline: digest.timeline,
            head_unknown: digest.head_unknown,
            known_until: digest.covered_until,
            times: None,
            xids: None,
            minimal: None,
            counts: EventCounts::default(),
        };
        let events = digest.events.iter().filter(|event| span.ends_in(event.record()));
        events.for_each(|event| facts.count(event));
        facts
    }
}

impl PieceFacts {
    /// Whether the piece may hold events of a kind of which this many are counted: one that crosses into it from the
    /// piece before may be missing from the count.
    #[must_use]
    pub const fn may_hold(&self, counted: u32) -> bool {
        counted > 0 || self.head_unknown
    }

    /// The latest moment that the piece tells of.
    #[must_use]
    pub fn latest(&self) -> Option<Micros> {
        self.known_until.max(self.times.map(|(_, to)| to))
    }

    fn count(&mut self, event: &LogEvent) {
        match event {
            LogEvent::Commit(end) | LogEvent::Abort(end) => {
                let counter = match event {
                    LogEvent::Commit(_) => &mut self.counts.commits,
                    _ => &mut self.counts.aborts,
                };
                *counter = counter.saturating_add(1);
                self.counts.prepared = self.counts.prepared.saturating_add(u32::from(end.prepared));
                widen(&mut self.times, end.time);
                widen(&mut self.xids, end.xid);
                end.subxids.iter().for_each(|xid| widen(&mut self.xids, *xid));
            }
            LogEvent::Prepare { xid, .. } => {
                self.counts.prepared = self.counts.prepared.saturating_add(1);
                widen(&mut self.xids, *xid);
            }
            LogEvent::DatabaseCreate { xid, .. }
            | LogEvent::DatabaseDrop { xid, .. }
            | LogEvent::TablespaceCreate { xid, .. }
            | LogEvent::TablespaceDrop { xid, .. } => {
                self.counts.places = self.counts.places.saturating_add(1);
                if *xid > 0 {
                    widen(&mut self.xids, *xid);
                }
            }
            LogEvent::RestorePoint { time, .. } => {
                self.counts.restore_points = self.counts.restore_points.saturating_add(1);
                self.known_until = self.known_until.max(Some(*time));
            }
            LogEvent::Checkpoint { time, .. } | LogEvent::EndOfRecovery { time, .. } => {
                self.known_until = self.known_until.max(Some(*time));
            }
            LogEvent::Parameters { minimal, record, .. } => {
                self.counts.parameters = self.counts.parameters.saturating_add(1);
                if *minimal {
                    let from = self.minimal.map_or(record.start, |span| span.from);
                    self.minimal = Some(Span { from, to: record.end });
                }
            }
            LogEvent::Extension { .. } => {
                self.counts.extensions = self.counts.extensions.saturating_add(1);
            }
            LogEvent::BackupEnd { .. } => {
                self.counts.backup_ends = self.counts.backup_ends.saturating_add(1);
            }
            LogEvent::SegmentSwitch { record } if self.last_record == Some(*record) => {
                self.switched = Some(record.end);
            }
            LogEvent::SegmentSwitch { .. } => {}
        }
    }
}

/// Makes the range hold the value.
fn widen<T: Ord + Copy>(range: &mut Option<(T, T)>, value: T) {
    *range = Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))));
}

/// A stretch of the log that is known to be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownGap {
    /// What is missing.
    pub span: Span,
    /// Why, in words.
    pub reason: String,
}

/// One branch of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchFacts {
    /// Number of the identity to which it belongs; [`BranchId`]s are unique within one.
    pub identity: u32,
    /// Its name.
    pub id: BranchId,
    /// Its timeline number.
    pub timeline: u32,
    /// Size of a log segment in bytes.
    pub segment_size: u64,
    /// The branch from which it forked, and the first position that is no longer of that one; see
    /// [`parent_branch`](crate::parent_branch). `None`: it has none, or none of which any log is stored.
    pub parent: Option<(BranchId, LogOffset)>,
    /// Its pieces, sorted by position.
    pub pieces: Vec<PieceFacts>,
    /// Nothing was committed up to this moment beyond this position.
    pub covered: Option<(LogOffset, Micros)>,
    /// What is known to be missing.
    pub gaps: Vec<KnownGap>,
    /// What is missing before this position was let go by retention.
    pub expired: Option<LogOffset>,
}

impl BranchFacts {
    /// Forgets what lies behind a position at which stored log turned out to be unreadable: a piece that reaches beyond it, and
    /// what is known of the time after it.
    pub fn end_at(&mut self, position: LogOffset) {
        self.pieces.retain(|piece| piece.span.to <= position);
        self.covered = self.covered.filter(|(at, _)| *at <= position);
    }
}

/// The log map in brief.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogFacts {
    /// All branches of all identities of a cluster, in any order.
    pub branches: Vec<BranchFacts>,
    /// Where production was seen, the oldest sighting first.
    pub sightings: Vec<Sighting>,
}

impl LogFacts {
    /// The branch of this name.
    #[must_use]
    pub fn branch(&self, identity: u32, id: &BranchId) -> Option<&BranchFacts> {
        self.branches.iter().find(|branch| branch.identity == identity && branch.id == *id)
    }
}

/// Whether a backup can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackupStatus {
    /// It can.
    Ok,
    /// Something in it was found damaged.
    Damaged,
    /// It was never finished.
    Failed,
    /// It is being taken.
    Running,
}

/// A backup in brief.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupFacts {
    /// Its name.
    pub label: String,
    /// `full`, `incremental`, ...
    pub kind: String,
    /// Number of the identity to which it belongs.
    pub identity: u32,
    /// The branch on which it was taken.
    pub branch: BranchId,
    /// Timeline number of that branch.
    pub timeline: u32,
    /// Where replay begins.
    pub start: LogOffset,
    /// Consistent once replay has reached this.
    pub stop: LogOffset,
    /// The server's clock when it had begun: after `start`, before `stop` was written.
    pub started_at: Micros,
    /// The server's clock when `stop` had been written.
    pub stopped_at: Micros,
    /// Bytes of the image.
    pub size: u64,
    /// Whether it can be used.
    pub status: BackupStatus,
    /// Pages that were damaged on the server already when it was taken.
    pub damaged_pages: u64,
    /// It was taken from a standby: no record marks its end.
    pub from_standby: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::TransactionEnd;

    fn record(start: u64) -> RecordSpan {
        RecordSpan { start: LogOffset(start), end: LogOffset(start + 34) }
    }

    fn end(start: u64, xid: u64, time: i64) -> TransactionEnd {
        TransactionEnd {
            xid,
            time: Micros(time),
            record: record(start),
            subxids: vec![xid + 5],
            prepared: xid == 11,
        }
    }

    fn digest(from: u64, to: u64) -> Digest {
        Digest {
            system: 1,
            timeline: 1,
            log_format: 1,
            span: Span { from: LogOffset(from), to: LogOffset(to) },
            content_hash: [1; 32],
            previous_hash: None,
            verdict: Verdict::Intact,
            first_record: Some(LogOffset(100)),
            last_record: Some(record(380)),
            first_previous: Some(LogOffset(60)),
            head_unknown: false,
            covered_until: Some(Micros(30)),
            records: 6,
            events: vec![
                LogEvent::Commit(end(100, 10, 50)),
                LogEvent::Abort(end(140, 11, 40)),
                LogEvent::RestorePoint { name: "p".to_owned(), time: Micros(60), record: record(180) },
                LogEvent::TablespaceDrop { xid: 30, tablespace: 1, record: record(220) },
                LogEvent::Parameters { minimal: true, limits: [0; 5], record: record(260) },
                LogEvent::Parameters { minimal: true, limits: [0; 5], record: record(300) },
                LogEvent::Prepare { xid: 2, gid: String::new(), record: record(340) },
                LogEvent::SegmentSwitch { record: record(380) },
            ],
        }
    }

    #[test]
    fn a_digest_is_counted() {
        let facts = PieceFacts::from(&digest(100, 500));
        assert_eq!(facts.times, Some((Micros(40), Micros(50))));
        assert_eq!(facts.xids, Some((2, 30)));
        assert_eq!(facts.known_until, Some(Micros(60)));
        let minimal = Span { from: LogOffset(260), to: LogOffset(334) };
        assert_eq!(facts.minimal, Some(minimal));
        let counts = EventCounts {
            commits: 1,
            aborts: 1,
            prepared: 2,
            restore_points: 1,
            backup_ends: 0,
            extensions: 0,
            places: 1,
            parameters: 2,
        };
        assert_eq!(facts.counts, counts);
        assert_eq!(facts.first_previous, Some(LogOffset(60)));
    }

    #[test]
    fn of_a_narrowed_piece_only_what_lies_in_it_counts() {
        let facts = PieceFacts::from(&digest(150, 500));
        assert_eq!((facts.counts.commits, facts.counts.aborts), (0, 1), "the abort crosses into it");
        assert_eq!((facts.first_record, facts.first_previous), (None, None));
        assert_eq!(facts.last_record, Some(record(380)));
        assert_eq!(PieceFacts::from(&digest(100, 200)).last_record, None);
    }
}
