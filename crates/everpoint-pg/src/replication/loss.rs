//! When the server no longer has the log that the sink needs: finds where it can go on, and records the gap.

use everpoint_core::LogOffset;
use everpoint_engine::{EngineError, LogSink, ServerIdentity};

use super::start::{Start, segment_start};
use super::{Replication, SlotPosition};
use crate::client::PgError;
use crate::history::History;

/// SQLSTATEs that say that log is gone: a segment that does not exist, a slot that was invalidated.
const GONE: [&str; 2] = ["58P01", "55000"];

/// Whether an error of a stream says that the log asked for is gone.
pub(super) fn is_gone(error: &PgError) -> bool {
    error.sqlstate().is_some_and(|code| GONE.contains(&code))
}

/// Where the log can be had from now on. A slot that keeps log is left alone, a lost one is made anew.
///
/// # Errors
/// If the slot is lost and may not be made, or the connection broke.
pub(super) fn next_available(
    replication: &mut Replication,
    slot: Option<&str>,
    lost_at: LogOffset,
    server: &ServerIdentity,
    history: &History,
) -> Result<Start, PgError> {
    let mut kept = None;
    if let Some(name) = slot {
        kept = kept_by(replication.read_slot(name)?);
        if kept.is_none_or(|kept| kept <= lost_at) {
            replication.drop_slot(name)?;
            replication.create_slot(name, false)?;
            kept = kept_by(replication.read_slot(name)?);
        }
    }
    let now = segment_start(server.position, server.segment_size);
    let position = kept
        .map(|kept| segment_start(kept, server.segment_size))
        .filter(|kept| *kept > lost_at && *kept <= server.position)
        .unwrap_or(now);
    Ok(Start { timeline: history.timeline_at(position), position, close: None })
}

fn kept_by(slot: Option<SlotPosition>) -> Option<LogOffset> {
    slot.and_then(|slot| slot.restart)
}

/// Tells the sink that everything from where it stands to `start` is lost, timeline by timeline.
///
/// # Errors
/// That of the sink.
pub(super) fn record_gap(
    sink: &mut dyn LogSink,
    timeline: u32,
    from: LogOffset,
    start: &Start,
    history: &History,
    reason: &str,
) -> Result<(), EngineError> {
    let mut from = from;
    let steps = history.followed();
    for step in steps.iter().filter(|it| it.timeline >= timeline && it.timeline < start.timeline) {
        if from < step.until {
            sink.gap(step.timeline, from, step.until, reason)?;
            from = step.until;
        }
    }
    if from < start.position {
        sink.gap(start.timeline, from, start.position, reason)?;
    }
    Ok(())
}
