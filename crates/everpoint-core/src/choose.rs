//! From a record to stop at to the backup to begin with.

use crate::continuity::Run;
use crate::facts::BackupFacts;
use crate::position::{LogOffset, Span};
use crate::reader::{PathLog, last_record};
use crate::resolve::{Found, Notes, Place, Refusal};
use crate::source::LogSource;
use crate::target::RestoreRequest;

/// The newest usable backup that is consistent at the stop, and the run that leads from its start to the stop. One that
/// holds pages which were damaged on the server only where there is none without: more log to replay costs time, a
/// damaged page costs rows.
pub(crate) fn choose<'l, 'a, S: LogSource>(
    log: &'l PathLog<'a>,
    found: Found,
    request: &RestoreRequest,
    source: &mut S,
    notes: &mut Notes,
) -> Result<(&'a BackupFacts, &'l Run<'a>), Refusal<S::Error>> {
    let mut unconnected: Option<&BackupFacts> = None;
    let mut with_damage: Option<(&BackupFacts, &Run<'_>)> = None;
    for backup in log.backups.iter().rev() {
        let needed = Span { from: backup.start, to: found.record.end.max(backup.stop) };
        let run = log.run(needed);
        if !is_consistent(backup, run, found, source).map_err(Refusal::Source)? {
            continue;
        }
        match run {
            Some(run) if backup.damaged_pages == 0 => {
                tell(backup, with_damage.map(|(damaged, _)| damaged), request, notes);
                return Ok((backup, run));
            }
            Some(run) => {
                with_damage.get_or_insert((backup, run));
            }
            None => {
                unconnected.get_or_insert(backup);
            }
        }
    }
    if let Some((backup, run)) = with_damage {
        tell(backup, None, request, notes);
        notes.warn(format!(
            "backup {} holds {} pages that were damaged on the server already; no backup without them leads there",
            backup.label, backup.damaged_pages
        ));
        return Ok((backup, run));
    }
    let reason = match unconnected {
        Some(backup) => broken_between(log, backup, found),
        None => no_backup(log, found),
    };
    Err(Refusal::shortfall(Place::Position(found.record.start), reason))
}

fn tell(backup: &BackupFacts, passed: Option<&BackupFacts>, request: &RestoreRequest, notes: &mut Notes) {
    if let Some(passed) = passed {
        notes.reason(format!(
            "backup {} holds {} pages that were damaged on the server already: one without is taken",
            passed.label, passed.damaged_pages
        ));
    }
    let skipped = if request.skip.is_empty() { "" } else { " that is not to be skipped" };
    let whole = if passed.is_some() { " without damage" } else { "" };
    notes.reason(format!(
        "backup {} is the newest{skipped}{whole} that is consistent before the stop, from {} on",
        backup.label, backup.stop
    ));
}

/// Whether the backup's image is consistent when replay stops there: every record before the backup's stop position
/// has been replayed.
fn is_consistent<S: LogSource>(
    backup: &BackupFacts,
    run: Option<&Run<'_>>,
    found: Found,
    source: &mut S,
) -> Result<bool, S::Error> {
    if found.record.start >= backup.stop {
        return Ok(true);
    }
    // The stop may be at the very record that ends the backup.
    let (true, Some(run)) = (found.inclusive && found.record.start >= backup.start, run) else {
        return Ok(false);
    };
    let last = last_record(source, run, LogOffset(backup.stop.0.saturating_sub(1)))?;
    Ok(last == Some(found.record))
}

fn broken_between(log: &PathLog<'_>, backup: &BackupFacts, found: Found) -> String {
    let between = |from: LogOffset| backup.start <= from && from <= found.record.end;
    let gap = log.continuity.breaks.iter().find(|gap| between(gap.span.from));
    let stop = found.record.start;
    match gap {
        Some(gap) => format!(
            "between backup {} and the target at {stop} the log can't be replayed at {}: {}",
            backup.label, gap.span.from, gap.reason
        ),
        None => format!(
            "the log from backup {} (from {}) to the target at {stop} is not stored whole",
            backup.label, backup.start
        ),
    }
}

fn no_backup(log: &PathLog<'_>, found: Found) -> String {
    match log.backups.first() {
        Some(first) => format!(
            "the target lies at {}, but the earliest usable backup on this timeline, {}, is consistent only from {} on",
            found.record.start, first.label, first.stop
        ),
        None => "no usable backup lies on this timeline".to_owned(),
    }
}
