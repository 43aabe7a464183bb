//! From a target to a record of the log at which replay stops.

use crate::continuity::Run;
use crate::digest::{LogEvent, RecordSpan, TransactionEnd};
use crate::drops::before_transaction;
use crate::facts::BackupFacts;
use crate::moment::moment;
use crate::name::means;
use crate::path::PathPiece;
use crate::position::{LogOffset, Micros, Span};
use crate::reader::{PathLog, events, last_record};
use crate::source::LogSource;
use crate::target::{RestoreRequest, Target};
use crate::words;

/// The record at which replay stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) record: RecordSpan,
    pub(crate) inclusive: bool,
}

impl Found {
    /// Whether this record is replayed.
    pub(crate) fn replays(self, record: RecordSpan) -> bool {
        record.start < self.record.start || (self.inclusive && record.start == self.record.start)
    }
}

/// Where an unreachable target lies, as far as that is known: for what is nearest to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Time(Micros),
    Position(LogOffset),
    Nowhere,
}

/// Why there is no plan.
pub(crate) enum Refusal<E> {
    /// The target can't be reached.
    Shortfall { reason: String, place: Place },
    /// Something could not be read.
    Source(E),
}

impl<E> Refusal<E> {
    pub(crate) fn shortfall(place: Place, reason: impl Into<String>) -> Self {
        Self::Shortfall { reason: reason.into(), place }
    }
}

/// What is said beside the plan.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) reasons: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

impl Notes {
    pub(crate) fn reason(&mut self, text: impl Into<String>) {
        self.reasons.push(text.into());
    }

    pub(crate) fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }
}

/// Finds the record of a target.
pub(crate) fn resolve<S: LogSource>(
    log: &PathLog<'_>,
    all_backups: &[BackupFacts],
    request: &RestoreRequest,
    source: &mut S,
    notes: &mut Notes,
) -> Result<Found, Refusal<S::Error>> {
    let exclusive = request.exclusive;
    if exclusive && matches!(request.target, Target::Latest | Target::Backup(_)) {
        notes.warn("exclusive means nothing for this target and is ignored");
    }
    match &request.target {
        Target::Latest => latest(log, source),
        Target::Time(time) => moment(log, all_backups, request, *time, source, notes),
        Target::Position(position) => at_position(log, *position, exclusive, source, notes),
        Target::Xid { xid, before } => transaction(log, *xid, *before || exclusive, source, notes),
        Target::Name(name) => named(log, name, exclusive, source, notes),
        Target::Backup(label) => end_of_backup(log, all_backups, label, source),
    }
}

/// The last whole record of the path. Refused where more is stored, or known to be missing, behind a break: that the
/// newest can't be reached must not go unsaid.
fn latest<S: LogSource>(log: &PathLog<'_>, source: &mut S) -> Result<Found, Refusal<S::Error>> {
    let refuse = |place, reason: String| Err(Refusal::Shortfall { reason, place });
    let leaf = log.path.last().map(|step| step.branch);
    let (Some(run), Some(leaf)) = (log.continuity.runs.last(), leaf) else {
        return refuse(Place::Nowhere, "no log is stored".to_owned());
    };
    let end = run.span.to;
    if leaf.pieces.is_empty() {
        let reason = format!(
            "nothing is stored of timeline {}; the log of the timelines before it ends at {end}",
            leaf.timeline
        );
        return refuse(Place::Position(end), reason);
    }
    if let Some(reason) = &run.ended_by {
        let reason = format!("the newest log can't be replayed: {reason}, at {end}");
        return refuse(Place::Position(end), reason);
    }
    match end_of_run(run, source).map_err(Refusal::Source)? {
        Some(record) => Ok(Found { record, inclusive: true }),
        None => refuse(
            Place::Position(end),
            format!("the log from {} to {end} holds no whole record", run.span.from),
        ),
    }
}

/// The last whole record of a run.
pub(crate) fn end_of_run<S: LogSource>(
    run: &Run<'_>,
    source: &mut S,
) -> Result<Option<RecordSpan>, S::Error> {
    last_record(source, run, LogOffset(run.span.to.0.saturating_sub(1)))
}

/// The last record that begins at or before the position (before it, if exclusive). The position may be the end of
/// the log, where no record begins: that is what a server tells as its current position.
fn at_position<S: LogSource>(
    log: &PathLog<'_>,
    position: LogOffset,
    exclusive: bool,
    source: &mut S,
    notes: &mut Notes,
) -> Result<Found, Refusal<S::Error>> {
    let refuse = |reason: String| Err(Refusal::Shortfall { reason, place: Place::Position(position) });
    let run = log.run(Span { from: position, to: position });
    let Some(run) = run else {
        return refuse(outside(log, position));
    };
    let at = LogOffset(position.0.saturating_sub(u64::from(exclusive)));
    let Some(record) = last_record(source, run, at).map_err(Refusal::Source)? else {
        return refuse(format!("no whole record of the stored log begins before {position}"));
    };
    if record.end < position {
        notes.reason(format!(
            "no whole record begins between {} and {position}: the last one before is taken",
            record.end
        ));
    }
    Ok(Found { record, inclusive: true })
}

/// Why a position is in no run.
fn outside(log: &PathLog<'_>, position: LogOffset) -> String {
    let broken = log.continuity.breaks.iter().find(|gap| gap.span.from <= position && position < gap.span.to);
    if let Some(gap) = broken {
        return format!("{position} lies in log that can't be replayed: {}", gap.reason);
    }
    match (log.continuity.runs.first(), log.continuity.runs.last()) {
        (Some(first), _) if position < first.span.from => {
            format!("the stored log begins at {}, after {position}", first.span.from)
        }
        (_, Some(last)) => format!("the stored log ends at {}, before {position}", last.span.to),
        _ => "no log is stored".to_owned(),
    }
}

/// The end of the last transaction with this id, or what it did first that shows before its end. The log bears the lower half
/// of an id with epoch.
fn transaction<S: LogSource>(
    log: &PathLog<'_>,
    asked: u64,
    before: bool,
    source: &mut S,
    notes: &mut Notes,
) -> Result<Found, Refusal<S::Error>> {
    let xid = asked & u64::from(u32::MAX);
    if xid != asked {
        notes.reason(format!("transaction {asked} is {xid} in the log, which does not bear the epoch: the last {xid} that is stored is taken, \
             of whatever epoch it is"));
    }
    let mut prepared = None;
    for piece in log.pieces.iter().rev().filter(|piece| piece.may_name(xid)) {
        let found = events(source, piece).map_err(Refusal::Source)?;
        for event in found.events.iter().rev() {
            match event {
                LogEvent::Commit(end) | LogEvent::Abort(end) if is_of(end, xid) => {
                    tell_end(end, xid, matches!(event, LogEvent::Commit(_)), notes);
                    if before {
                        return before_transaction(log, end, source, notes).map_err(Refusal::Source);
                    }
                    return Ok(Found { record: end.record, inclusive: true });
                }
                LogEvent::Prepare { xid: it, gid, .. } if *it == xid => {
                    prepared.get_or_insert_with(|| gid.clone());
                }
                _ => {}
            }
        }
    }
    let reason = match prepared {
        Some(gid) => {
            format!("transaction {xid} was prepared as \"{gid}\", but its end is not in the stored log")
        }
        None => format!("no end of a transaction {xid} is in the stored log of this timeline"),
    };
    Err(Refusal::shortfall(Place::Nowhere, reason))
}

fn tell_end(end: &TransactionEnd, xid: u64, committed: bool, notes: &mut Notes) {
    if end.xid != xid {
        notes.reason(format!("{xid} is a subtransaction of transaction {}", end.xid));
    }
    let how = if committed { "committed" } else { "was rolled back" };
    notes.reason(format!("transaction {} {how} at {}", end.xid, end.time));
    if !committed {
        notes.warn(format!("transaction {} did not commit: it was rolled back", end.xid));
    }
}

fn is_of(end: &TransactionEnd, xid: u64) -> bool {
    end.xid == xid || end.subxids.contains(&xid)
}

/// The last restore point of this name.
fn named<S: LogSource>(
    log: &PathLog<'_>,
    wanted: &str,
    exclusive: bool,
    source: &mut S,
    notes: &mut Notes,
) -> Result<Found, Refusal<S::Error>> {
    let (mut points, mut others) = (Vec::new(), Vec::new());
    let mut pieces = log.pieces.iter();
    let has_points = |piece: &&PathPiece<'_>| piece.piece.may_hold(piece.piece.counts.restore_points);
    while let Some(piece) = pieces.find(has_points) {
        let found = events(source, piece).map_err(Refusal::Source)?.events;
        for event in found {
            match event {
                LogEvent::RestorePoint { name, time, record } if means(&name, wanted) => {
                    points.push((time, record))
                }
                LogEvent::RestorePoint { name, .. } => others.push(name),
                _ => {}
            }
        }
    }
    let Some((time, record)) = points.pop() else {
        let there = words::known(wanted, "restore points", others.iter().map(String::as_str));
        let reason = format!(
            "no restore point \"{wanted}\" is in the stored log of this timeline; {there} \
             (one of another branch, as list shows them, needs --timeline)"
        );
        return Err(Refusal::shortfall(Place::Nowhere, reason));
    };
    notes.reason(format!("restore point \"{wanted}\" was made at {time}, at {}", record.start));
    if let Some((time, record)) = points.last() {
        let earlier = match points.len() {
            1 => "an earlier restore point has".to_owned(),
            count => format!("{count} earlier restore points have"),
        };
        let at = record.start;
        notes.warn(format!("{earlier} the same name; the one before was made at {time}, at {at}"));
    }
    Ok(Found { record, inclusive: !exclusive })
}

/// The record that marks the end of a backup; on a standby, which marks none, the last one before its stop.
fn end_of_backup<S: LogSource>(
    log: &PathLog<'_>,
    all_backups: &[BackupFacts],
    label: &str,
    source: &mut S,
) -> Result<Found, Refusal<S::Error>> {
    let Some(backup) = all_backups.iter().find(|backup| backup.label == label) else {
        let there = all_backups.iter().map(|backup| backup.label.as_str());
        let reason = format!("there is no backup {label}; {}", words::known(label, "backups", there));
        return Err(Refusal::shortfall(Place::Nowhere, reason));
    };
    let span = Span { from: backup.start, to: backup.stop };
    let Some(run) = log.run(span) else {
        let reason = format!("the log that backup {label} needs is not stored whole");
        return Err(Refusal::shortfall(Place::Position(backup.stop), reason));
    };
    let marked = |piece: &&PathPiece<'_>| {
        !backup.from_standby
            && piece.to > span.from
            && piece.from < span.to
            && piece.piece.may_hold(piece.piece.counts.backup_ends)
    };
    for piece in run.pieces.iter().rev().filter(marked) {
        let found = events(source, piece).map_err(Refusal::Source)?.events;
        let end = found.into_iter().rev().find_map(|event| match event {
            LogEvent::BackupEnd { start, record } if start == backup.start => Some(record),
            _ => None,
        });
        if let Some(record) = end.filter(|record| record.end <= backup.stop) {
            return Ok(Found { record, inclusive: true });
        }
    }
    let before = LogOffset(backup.stop.0.saturating_sub(1));
    match last_record(source, run, before).map_err(Refusal::Source)? {
        Some(record) if record.end <= backup.stop && record.start >= backup.start => {
            Ok(Found { record, inclusive: true })
        }
        _ => {
            let reason = format!("no whole record ends at the stop of backup {label}, {}", backup.stop);
            Err(Refusal::shortfall(Place::Position(backup.stop), reason))
        }
    }
}
