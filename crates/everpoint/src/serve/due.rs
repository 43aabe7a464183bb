//! Which run is due: by schedule, because the last one failed, or because something needs it.

use everpoint_app::AppError;
use everpoint_core::{Again, Due, LastTry, Micros, RetryPolicy, RunEnd, again, begins, due};
use everpoint_repo::code;

use super::history::JobRow;
use super::job::{Kind, NO_ROOM, Order};
use super::runner::{Runner, lock};
use super::watch::Watched;
use crate::config::Schedules;

/// While there is no room, it is looked for so often: microseconds.
const ROOM_EVERY: i64 = 30_000_000;

impl Runner {
    pub(super) fn due(
        &self,
        kind: Kind,
        watched: &Watched,
        schedules: &Schedules,
        now: Micros,
    ) -> Result<Option<Order>, AppError> {
        let cluster = &watched.cluster;
        if self.is_running(kind, cluster) || (!schedules.enabled && kind != Kind::Check) {
            return Ok(None);
        }
        let last = self.history.last(kind, cluster)?;
        let (schedule, failed) = match kind {
            Kind::Backup => (&schedules.backup, last.as_ref().map(|last| backup_again(watched, last))),
            Kind::Bundle => (&schedules.bundle, None),
            Kind::Check => (&schedules.check, None),
            Kind::Expire => (&None, last.as_ref().map(|last| again(RetryPolicy::default(), &last_try(last)))),
            Kind::Package | Kind::Restore => return Ok(None),
        };
        let anchor = match &last {
            Some(last) => last.started,
            None => self.history.known_since(kind, cluster, now)?,
        };
        let scheduled =
            schedule.as_ref().is_some_and(|schedule| matches!(due(schedule, anchor, now), Due::Now { .. }));
        let wanted = match kind {
            Kind::Backup => watched.has_begun() && lock(&self.wanted).contains_key(cluster),
            Kind::Expire => makes_room(watched, last.as_ref(), now) || lock(&self.renewed).contains(cluster),
            _ => false,
        };
        let tried = match kind {
            // Room is made as often as it is needed, and after each backup.
            Kind::Expire if wanted => Some(0),
            _ => begins(failed.unwrap_or(Again::NotNeeded), scheduled, wanted, now),
        };
        let at_once = kind == Kind::Expire && watched.full_since().is_some();
        Ok(tried.map(|tried| Order { tried, at_once, ..Order::new(kind, cluster) }))
    }
}

/// Nothing can be stored, and what may go has not gone lately.
fn makes_room(watched: &Watched, last: Option<&JobRow>, now: Micros) -> bool {
    watched.full_since().is_some_and(|since| {
        last.is_none_or(|last| last.started < since || last.started.0.saturating_add(ROOM_EVERY) <= now.0)
    })
}

/// When a backup that failed is made up for. One that had no room: as soon as there may be some, before
/// the log has taken it.
fn backup_again(watched: &Watched, last: &JobRow) -> Again {
    if last.state != "failed" || !matches!(last.code(), Some(NO_ROOM | code::FULL)) {
        return again(RetryPolicy::default(), &last_try(last));
    }
    let ended = last.ended.unwrap_or(last.started);
    let room = watched.room_since().filter(|room| *room > ended);
    Again::At(room.unwrap_or(Micros(ended.0.saturating_add(ROOM_EVERY))), last.tried)
}

/// What of a run the next one depends on.
pub(super) fn last_try(last: &JobRow) -> LastTry {
    let end = match last.state.as_str() {
        "failed" => RunEnd::Failed,
        "interrupted" => RunEnd::CutOff,
        _ => RunEnd::Done,
    };
    LastTry { end, tried: last.tried, started: last.started, ended: last.ended.unwrap_or(last.started) }
}
