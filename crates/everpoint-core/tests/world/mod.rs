//! A made-up history of a cluster: branches, records, pieces, backups, and what of them is stored.
//!
//! Fault model: pieces may be missing, belong to another server, be broken from a record on, or have been read
//! without the piece before; the log behind the last piece is lost. What a piece says of itself is true.

// Each test binary uses its own part of it.
#![allow(dead_code)]

use everpoint_core::{
    BackupFacts, BackupStatus, BranchFacts, BranchId, Digest, LogEvent, LogFacts, LogOffset, LogSource,
    Micros, PieceFacts, RecordSpan, RestorePlan, RestoreRequest, SeenBy, Shortfall, Sighting, Span, Target,
    TransactionEnd, Verdict, plan_restore,
};

/// Bytes of a segment.
pub(crate) const SEGMENT: u64 = 256;

/// A record and what it says.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) span: RecordSpan,
    pub(crate) event: Option<LogEvent>,
}

/// What happened to a stored piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    None,
    /// Another server's segment lies under its name.
    Swapped,
    /// Broken from this position on.
    Broken(u64),
    /// Its digest was made without the piece before it.
    HeadUnknown,
}

/// A stored piece.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) span: Span,
    pub(crate) harm: Harm,
}

/// A branch: its own records, from its fork on.
#[derive(Debug, Clone)]
pub(crate) struct Branch {
    pub(crate) id: BranchId,
    pub(crate) parent: Option<(usize, u64)>,
    pub(crate) records: Vec<Record>,
    pub(crate) stored: Vec<Stored>,
    pub(crate) covered: Option<(LogOffset, Micros)>,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) branches: Vec<Branch>,
    pub(crate) backups: Vec<BackupFacts>,
    pub(crate) sightings: Vec<Sighting>,
    /// Pieces whose digest was asked for.
    pub(crate) digests_read: usize,
}

pub(crate) fn span(from: u64, to: u64) -> Span {
    Span { from: LogOffset(from), to: LogOffset(to) }
}

pub(crate) fn aligned(position: u64) -> u64 {
    position.next_multiple_of(8)
}

impl World {
    /// A new branch that leaves `parent` at a position where a record of that begins or its log ends.
    pub(crate) fn branch(&mut self, timeline: u32, parent: Option<(usize, u64)>) -> usize {
        let number = u8::try_from(self.branches.len()).unwrap();
        let hash = if parent.is_some() { [number; 8] } else { [0; 8] };
        self.branches.push(Branch {
            id: BranchId::new(timeline, hash),
            parent,
            records: Vec::new(),
            stored: Vec::new(),
            covered: None,
        });
        self.branches.len() - 1
    }

    /// Position of the next record of a branch.
    pub(crate) fn end(&self, branch: usize) -> u64 {
        let branch = &self.branches[branch];
        let own = branch.records.last().map(|record| aligned(record.span.end.0));
        own.unwrap_or(branch.parent.map_or(SEGMENT, |(_, fork)| fork))
    }

    /// Adds a record of this many bytes; `event` gets its span.
    pub(crate) fn record(
        &mut self,
        branch: usize,
        bytes: u64,
        event: impl FnOnce(RecordSpan) -> Option<LogEvent>,
    ) -> RecordSpan {
        let start = self.end(branch);
        let record = RecordSpan { start: LogOffset(start), end: LogOffset(start + bytes) };
        self.branches[branch].records.push(Record { span: record, event: event(record) });
        record
    }

    pub(crate) fn filler(&mut self, branch: usize, bytes: u64) -> RecordSpan {
        self.record(branch, bytes, |_| None)
    }

    pub(crate) fn commit(&mut self, branch: usize, xid: u64, time: i64) -> RecordSpan {
        self.record(branch, 34, |record| Some(LogEvent::Commit(ended(xid, time, record))))
    }

    pub(crate) fn abort(&mut self, branch: usize, xid: u64, time: i64) -> RecordSpan {
        self.record(branch, 34, |record| Some(LogEvent::Abort(ended(xid, time, record))))
    }

    pub(crate) fn point(&mut self, branch: usize, name: &str, time: i64) -> RecordSpan {
        let (name, time) = (name.to_owned(), Micros(time));
        self.record(branch, 98, |record| Some(LogEvent::RestorePoint { name, time, record }))
    }

    /// A backup that began at `start` and ends with the next record.
    pub(crate) fn backup(
        &mut self,
        branch: usize,
        label: &str,
        start: RecordSpan,
        began: i64,
        ended: i64,
    ) -> RecordSpan {
        let start = start.start;
        let record = self.record(branch, 34, |record| Some(LogEvent::BackupEnd { start, record }));
        let stop = LogOffset(self.end(branch));
        self.note_backup(branch, label, span(start.0, stop.0), (began, ended), false);
        record
    }

    pub(crate) fn note_backup(
        &mut self,
        branch: usize,
        label: &str,
        at: Span,
        times: (i64, i64),
        from_standby: bool,
    ) {
        let id = self.branches[branch].id.clone();
        self.backups.push(BackupFacts {
            label: label.to_owned(),
            kind: "full".to_owned(),
            identity: 1,
            timeline: id.timeline(),
            branch: id,
            start: at.from,
            stop: at.to,
            started_at: Micros(times.0),
            stopped_at: Micros(times.1),
            size: 1000,
            status: BackupStatus::Ok,
            damaged_pages: 0,
            from_standby,
        });
    }

    /// Stores the log of a branch from the segment of its fork to `to` (or its end): segments, then one tail.
    pub(crate) fn store(&mut self, branch: usize, to: Option<u64>) {
        let to = to.unwrap_or(self.end(branch)).min(self.end(branch));
        let mut from = self.branches[branch].parent.map_or(SEGMENT, |(_, fork)| fork) / SEGMENT * SEGMENT;
        while from < to {
            let next = (from + SEGMENT).min(to);
            self.branches[branch].stored.push(Stored { span: span(from, next), harm: Harm::None });
            from = next;
        }
    }

    pub(crate) fn piece_at(&mut self, branch: usize, position: u64) -> &mut Stored {
        let pieces = self.branches[branch].stored.iter_mut();
        let mut holding = pieces.filter(|it| it.span.from.0 <= position && position < it.span.to.0);
        holding.next().unwrap()
    }

    pub(crate) fn lose(&mut self, branch: usize, position: u64) {
        let holds = |it: &Stored| it.span.from.0 <= position && position < it.span.to.0;
        self.branches[branch].stored.retain(|it| !holds(it));
    }

    /// All records on the path to a branch, in order.
    pub(crate) fn records(&self, branch: usize) -> Vec<&Record> {
        let this = &self.branches[branch];
        let mut records = match this.parent {
            None => Vec::new(),
            Some((parent, fork)) => {
                let mut records = self.records(parent);
                records.retain(|record| record.span.start.0 < fork);
                records
            }
        };
        records.extend(&this.records);
        records
    }

    /// The branch that wrote the byte at `position`, seen from `branch`.
    fn writer(&self, branch: usize, position: u64) -> usize {
        match self.branches[branch].parent {
            Some((parent, fork)) if position < fork => self.writer(parent, position),
            _ => branch,
        }
    }

    /// A hash of the bytes of a span: which branch wrote each of them.
    fn hash(&self, branch: usize, span: Span) -> [u8; 32] {
        let mut state = span.from.0;
        for position in (span.from.0..span.to.0).step_by(8) {
            state = state.wrapping_mul(31).wrapping_add(1 + self.writer(branch, position) as u64);
        }
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&state.to_le_bytes());
        hash[8..16].copy_from_slice(&span.to.0.to_le_bytes());
        hash
    }

    pub(crate) fn digest_of(&self, branch: usize, stored: &Stored, healed: bool) -> Digest {
        let at = stored.span;
        let records = self.records(branch);
        let broken = match stored.harm {
            Harm::Broken(position) => Some(LogOffset(position)),
            _ => None,
        };
        let ends_here =
            |record: &&&Record| record.span.end > at.from && record.span.end <= broken.unwrap_or(at.to);
        let first_index = records.iter().position(|it| it.span.start >= at.from && it.span.start < at.to);
        let before =
            first_index.map(|index| index.checked_sub(1).map_or(LogOffset(0), |it| records[it].span.start));
        let cut = records.iter().find(|it| it.span.start < at.to && it.span.end > at.to);
        let head_unknown = stored.harm == Harm::HeadUnknown && !healed;
        let segment = at.from.0 / SEGMENT * SEGMENT;
        let previous = (segment > SEGMENT).then(|| self.hash(branch, span(segment - SEGMENT, segment)));
        let swapped = |hash: [u8; 32]| {
            if stored.harm == Harm::Swapped { hash.map(|byte| !byte) } else { hash }
        };
        Digest {
            system: 7,
            timeline: self.branches[self.writer(branch, at.to.0 - 1)].id.timeline(),
            log_format: 1,
            span: at,
            content_hash: swapped(self.hash(branch, at)),
            previous_hash: previous.map(swapped),
            verdict: match (broken, cut) {
                (Some(at), _) => Verdict::Broken { at, reason: "checksum".to_owned() },
                (None, Some(record)) => Verdict::EndsAt { at: record.span.start },
                (None, None) => Verdict::Intact,
            },
            first_record: first_index.map(|index| records[index].span.start),
            last_record: records.iter().rfind(ends_here).map(|it| it.span),
            first_previous: before,
            head_unknown,
            covered_until: None,
            records: records.iter().filter(ends_here).count() as u64,
            events: records
                .iter()
                .filter(ends_here)
                .filter(|it| !head_unknown || it.span.start >= at.from)
                .filter_map(|it| it.event.clone())
                .collect(),
        }
    }

    /// Production seen on a branch, at the configured address.
    pub(crate) fn seen(&self, branch: usize) -> Sighting {
        Sighting {
            identity: 1,
            branch: self.branches[branch].id.clone(),
            position: LogOffset(0),
            at: Micros(0),
            by: SeenBy::Server,
        }
    }

    pub(crate) fn facts(&self) -> LogFacts {
        let branches = self.branches.iter().enumerate();
        let branches = branches.map(|(index, branch)| BranchFacts {
            identity: 1,
            id: branch.id.clone(),
            timeline: branch.id.timeline(),
            segment_size: SEGMENT,
            parent: branch.parent.map(|(it, fork)| (self.branches[it].id.clone(), LogOffset(fork))),
            pieces: branch
                .stored
                .iter()
                .map(|it| PieceFacts::from(&self.digest_of(index, it, false)))
                .collect(),
            covered: branch.covered,
            gaps: Vec::new(),
            expired: None,
        });
        LogFacts { branches: branches.collect(), sightings: self.sightings.clone() }
    }

    pub(crate) fn plan(&mut self, request: &RestoreRequest) -> Result<RestorePlan, Shortfall> {
        let (facts, backups) = (self.facts(), self.backups.clone());
        plan_restore(&facts, &backups, request, self).unwrap()
    }

    pub(crate) fn plan_to(&mut self, target: Target) -> Result<RestorePlan, Shortfall> {
        self.plan(&request(target))
    }

    fn find(&self, branch: &BranchFacts, piece: &PieceFacts) -> (usize, Stored) {
        let index = self.branches.iter().position(|it| it.id == branch.id).unwrap();
        let stored = self.branches[index].stored.iter().find(|it| it.span == piece.span);
        (index, *stored.unwrap())
    }
}

impl LogSource for World {
    type Error = std::convert::Infallible;

    fn digest(&mut self, branch: &BranchFacts, piece: &PieceFacts) -> Result<Digest, Self::Error> {
        self.digests_read += 1;
        let (index, stored) = self.find(branch, piece);
        let mut line = Some(index);
        let mut before = false;
        while let Some(branch) = line {
            before |= self.branches[branch].stored.iter().any(|it| it.span.to == stored.span.from);
            line = self.branches[branch].parent.map(|(parent, _)| parent);
        }
        Ok(self.digest_of(index, &stored, before))
    }

    fn last_record(
        &mut self,
        branch: &BranchFacts,
        piece: &PieceFacts,
        at: LogOffset,
    ) -> Result<Option<RecordSpan>, Self::Error> {
        let (index, stored) = self.find(branch, piece);
        let end = match stored.harm {
            Harm::Broken(position) => LogOffset(position),
            _ => stored.span.to,
        };
        let records = self.records(index);
        let ends_here = records.iter().filter(|it| it.span.end > stored.span.from && it.span.end <= end);
        Ok(ends_here.map(|it| it.span).rfind(|it| it.start <= at))
    }
}

pub(crate) fn ended(xid: u64, time: i64, record: RecordSpan) -> TransactionEnd {
    TransactionEnd { xid, time: Micros(time), record, subxids: Vec::new(), prepared: false }
}

pub(crate) fn request(target: Target) -> RestoreRequest {
    RestoreRequest { target, exclusive: false, timeline: None, skip: Vec::new() }
}
