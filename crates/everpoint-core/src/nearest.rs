//! What can be reached next to a target that can't.

use crate::plan::Reachable;
use crate::position::{LogOffset, Micros};
use crate::reader::{PathLog, last_commit};
use crate::resolve::Place;
use crate::source::LogSource;
use crate::window::{Window, others_from, window};

/// The last state before the place and the first after it that can be brought back on this path.
pub(crate) fn nearest<S: LogSource>(
    log: &PathLog<'_>,
    place: Place,
    source: &mut S,
) -> Result<(Option<Reachable>, Option<Reachable>), S::Error> {
    let windows = log.continuity.runs.iter();
    let windows: Vec<Window> = windows.filter_map(|run| window(&log.path, run, &log.backups)).collect();
    let (before, after) = match place {
        Place::Nowhere => (None, None),
        Place::Time(time) => (
            windows.iter().filter(|it| it.to < time).max_by_key(|it| (it.to, it.to_position)),
            windows.iter().filter(|it| it.from > time).min_by_key(|it| (it.from, it.from_position)),
        ),
        Place::Position(at) => (
            windows.iter().filter(|it| it.to_position <= at).max_by_key(|it| it.to_position),
            windows.iter().filter(|it| it.from_position > at).min_by_key(|it| it.from_position),
        ),
    };
    let before = before.map(|it| reachable(log, it.to_position, it.to, source)).transpose()?;
    let after = after.map(|it| reachable(log, it.from_position, it.from, source)).transpose()?;
    Ok((before, after))
}

fn reachable<S: LogSource>(
    log: &PathLog<'_>,
    position: LogOffset,
    time: Micros,
    source: &mut S,
) -> Result<Reachable, S::Error> {
    let run =
        log.continuity.runs.iter().rev().find(|run| run.span.from < position && position <= run.span.to);
    let last = run.map(|run| last_commit(source, run, position)).transpose()?.flatten();
    // With a clock that was put back the moment may lie behind this log: then the position alone leads here.
    let leads_here = run.and_then(|run| others_from(run, &log.backups)).is_none_or(|other| time < other);
    Ok(Reachable { position, time: leads_here.then_some(time), xid: last.map(|end| end.xid) })
}
