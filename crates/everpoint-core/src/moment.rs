//! From a moment to a record.
//!
//! A server replays up to the first commit or abort record that bears a later time; in what order transactions took
//! their times it does not ask. Where no such record follows, the log must be known to hold everything until the
//! moment: that nothing was committed and that nothing is known look the same otherwise.

use crate::continuity::Run;
use crate::digest::{LogEvent, TransactionEnd};
use crate::drops::before_end;
use crate::facts::BackupFacts;
use crate::known::known_until;
use crate::path::PathPiece;
use crate::position::{LogOffset, Micros, Span};
use crate::reader::{PathLog, events};
use crate::resolve::{Found, Notes, Place, Refusal, end_of_run};
use crate::source::LogSource;
use crate::target::RestoreRequest;

/// At most this many pieces are read to tell which transactions lie on the wrong side of the stop.
const PIECES_READ_FOR_STRAGGLERS: usize = 8;

/// A moment and on which side of it equal times fall.
#[derive(Debug, Clone, Copy)]
struct Moment {
    time: Micros,
    exclusive: bool,
}

impl Moment {
    /// Whether what happened at `time` is not wanted any more.
    fn is_before(self, time: Micros) -> bool {
        time > self.time || (self.exclusive && time == self.time)
    }
}

/// Finds the record at which replay stops for a moment.
pub(crate) fn moment<S: LogSource>(
    log: &PathLog<'_>,
    all_backups: &[BackupFacts],
    request: &RestoreRequest,
    time: Micros,
    source: &mut S,
    notes: &mut Notes,
) -> Result<Found, Refusal<S::Error>> {
    let moment = Moment { time, exclusive: request.exclusive };
    let refuse = |reason: String| Err(Refusal::Shortfall { reason, place: Place::Time(time) });
    let mut ended = log.backups.iter().rev().filter(|backup| backup.stopped_at <= time);
    let Some(newest) = ended.clone().next() else {
        return refuse(no_backup(log, all_backups));
    };
    let unstored = || format!("the log that backup {} needs is not stored whole", newest.label);
    let with_log = ended.find_map(|backup| {
        let span = Span { from: backup.start, to: backup.stop };
        log.run(span).map(|run| (backup, run))
    });
    let Some((backup, run)) = with_log else {
        return refuse(unstored());
    };
    let scan = Scan { run, moment, from: backup.stop };
    if let Some(end) = scan.first_after(source, notes).map_err(Refusal::Source)? {
        // Before the moment a newer backup had ended, behind this: a clock was put back in between, and what there is
        // until the moment can't be known without its log.
        if end.record.start < newest.stop {
            return refuse(unstored());
        }
        notes.reason(format!(
            "transaction {} at {} is the first to end after {time}: stopping before it",
            end.xid, end.time
        ));
        scan.tell_stragglers(&end, source, notes).map_err(Refusal::Source)?;
        tell_other_branches(log, moment, end.record.start, notes);
        return before_end(&run.pieces, &end, source, notes).map_err(Refusal::Source);
    }
    let found = scan.end_of_quiet_log(log, source, notes)?;
    tell_other_branches(log, moment, found.record.end, notes);
    Ok(found)
}

fn no_backup(log: &PathLog<'_>, all_backups: &[BackupFacts]) -> String {
    match log.backups.first() {
        Some(first) => format!("the earliest usable backup, {}, ended at {}", first.label, first.stopped_at),
        None if all_backups.is_empty() => "there is no backup".to_owned(),
        None => "no usable backup lies on this timeline".to_owned(),
    }
}

/// A look through the log behind a backup.
struct Scan<'r, 'a> {
    run: &'r Run<'a>,
    moment: Moment,
    /// Stop position of the backup.
    from: LogOffset,
}

impl Scan<'_, '_> {
    /// The first end of a transaction after the moment, in log order.
    fn first_after<S: LogSource>(
        &self,
        source: &mut S,
        notes: &mut Notes,
    ) -> Result<Option<TransactionEnd>, S::Error> {
        if self.run.pieces.iter().any(|piece| piece.to <= self.from && self.may_end_after(piece)) {
            notes.warn(
                "the backup holds transactions whose time is later than the wanted one: a clock was put back",
            );
        }
        for (index, piece) in self.run.pieces.iter().enumerate() {
            if piece.to <= self.from || !(piece.piece.head_unknown || self.may_end_after(piece)) {
                continue;
            }
            let found = events(source, piece)?;
            if found.head_unknown && index > 0 {
                notes.warn(format!("what the record did that ends first after {} is not known", piece.from));
            }
            let first = found
                .events
                .into_iter()
                .filter_map(end_of_transaction)
                .find(|end| end.record.start >= self.from && self.moment.is_before(end.time));
            if first.is_some() {
                return Ok(first);
            }
        }
        Ok(None)
    }

    fn may_end_after(&self, piece: &PathPiece<'_>) -> bool {
        piece.piece.times.is_some_and(|(_, last)| self.moment.is_before(last))
    }

    /// Names the transactions behind the stop that bear a time before the moment.
    fn tell_stragglers<S: LogSource>(
        &self,
        stop: &TransactionEnd,
        source: &mut S,
        notes: &mut Notes,
    ) -> Result<(), S::Error> {
        let behind = self.run.pieces.iter().filter(|piece| {
            let earliest = piece.piece.times.map(|(earliest, _)| earliest);
            piece.to > stop.record.start && earliest.is_some_and(|time| !self.moment.is_before(time))
        });
        let (mut count, mut last) = (0_usize, None);
        for piece in behind.clone().take(PIECES_READ_FOR_STRAGGLERS) {
            let ends = events(source, piece)?.events.into_iter().filter_map(|event| match event {
                LogEvent::Commit(end) => Some(end),
                _ => None,
            });
            for end in
                ends.filter(|end| end.record.start > stop.record.start && !self.moment.is_before(end.time))
            {
                count = count.saturating_add(1);
                last = Some(end);
            }
        }
        if let Some(last) = last {
            let or_more = if behind.count() > PIECES_READ_FOR_STRAGGLERS { " or more" } else { "" };
            notes.warn(format!(
                "times are out of order here: {count}{or_more} transactions behind the stop at {} bear an earlier \
                 time than the wanted one; transaction {} at {} is the last that was seen. To have them too, restore \
                 to position {}",
                stop.record.start, last.xid, last.time, last.record.start
            ));
        }
        Ok(())
    }

    /// Nothing ended after the moment: right only if the log is known to be complete until then.
    fn end_of_quiet_log<S: LogSource>(
        &self,
        log: &PathLog<'_>,
        source: &mut S,
        notes: &mut Notes,
    ) -> Result<Found, Refusal<S::Error>> {
        let (run, time) = (self.run, self.moment.time);
        let known = known_until(run, &log.path, &log.backups);
        let backup_end = log
            .backups
            .iter()
            .filter(|it| it.stop <= self.from && it.start >= run.span.from)
            .map(|it| it.stopped_at)
            .max();
        let last_seen = known.last_end.max(backup_end);
        if known.certain.is_none_or(|until| until < time) {
            if last_seen.is_none_or(|last| last < time) {
                let reason = ends_before(run, known.latest().max(backup_end));
                return Err(Refusal::shortfall(Place::Time(time), reason));
            }
            notes.warn(format!(
                "the stored log is known to be complete only before {time}: what else ended in the same microsecond is \
                 not known"
            ));
        }
        let Some(record) = end_of_run(run, source).map_err(Refusal::Source)? else {
            let reason = format!("the log behind {} holds no whole record", self.from);
            return Err(Refusal::shortfall(Place::Time(time), reason));
        };
        notes.reason(format!("nothing ended between {} and {time}: all of the log is replayed", record.end));
        Ok(Found { record, inclusive: true })
    }
}

fn ends_before(run: &Run<'_>, until: Option<Micros>) -> String {
    let until = until.map_or_else(|| "no moment".to_owned(), |until| until.to_string());
    let end = run.span.to;
    match &run.ended_by {
        Some(reason) => {
            format!("the log is known to be complete until {until}; it breaks at {end}: {reason}")
        }
        None => format!("the stored log ends at {end} and is known to be complete until {until}"),
    }
}

fn end_of_transaction(event: LogEvent) -> Option<TransactionEnd> {
    match event {
        LogEvent::Commit(end) | LogEvent::Abort(end) => Some(end),
        _ => None,
    }
}

/// Says so if an older timeline went on behind the fork and was alive at the moment: the user may mean that one.
fn tell_other_branches(log: &PathLog<'_>, moment: Moment, stop: LogOffset, notes: &mut Notes) {
    for step in log.path.iter().filter(|step| stop >= step.fork) {
        // A piece that reaches behind the fork counts: what in it is later than the moment lies there.
        let behind = step.branch.pieces.iter().filter(|piece| piece.span.to > step.fork);
        let times: Vec<(Micros, Micros)> = behind.filter_map(|piece| piece.times).collect();
        let alive = times.iter().any(|(from, _)| !moment.is_before(*from))
            && times.iter().any(|(_, to)| moment.is_before(*to));
        if alive {
            notes.warn(format!(
                "timeline {} was written to at that moment too, behind {}; to have that, say --timeline {}",
                step.branch.timeline, step.fork, step.branch.timeline
            ));
        }
    }
}
