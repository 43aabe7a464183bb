//! How far a standby is behind its primary.

use std::time::{Duration, Instant};

use everpoint_core::health::{StandbyFacts, StandbyHealth, standby};
use everpoint_core::words::size;
use everpoint_core::{LogOffset, Micros};
use everpoint_engine::{CheckLine, CheckState};

use crate::client::{Connection, PgError};
use crate::lsn::Lsn;

/// So long it may take to replay what it has received: nobody is late who only has not come to it yet.
const MOMENT: Duration = Duration::from_secs(2);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// The receiver's own view of the primary's end is hidden from roles without pg_read_all_stats; then it is null.
const QUERY: &str = "SELECT greatest(pg_catalog.pg_last_wal_receive_lsn(), (SELECT latest_end_lsn FROM \
    pg_catalog.pg_stat_wal_receiver)), pg_catalog.pg_last_wal_replay_lsn(), \
    (extract(epoch FROM pg_catalog.pg_last_xact_replay_timestamp()) * 1000000)::bigint, \
    (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint, \
    EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver)";

/// Asks the standby, and waits a moment for it to replay what it has received by now.
///
/// # Errors
/// If the connection broke.
pub(super) fn look(sql: &mut Connection) -> Result<Option<StandbyFacts>, PgError> {
    let begun = Instant::now();
    let mut end = None;
    loop {
        let Some(mut facts) = ask(sql)? else { return Ok(None) };
        end = end.or(facts.received);
        facts.received = end;
        if end.is_none_or(|end| facts.replayed >= end) || begun.elapsed() > MOMENT {
            return Ok(Some(facts));
        }
        std::thread::sleep(LOOK);
    }
}

fn ask(sql: &mut Connection) -> Result<Option<StandbyFacts>, PgError> {
    let rows = sql.query(QUERY)?;
    let position =
        |column| rows.get(0, column).and_then(|text| text.parse::<Lsn>().ok()).map(LogOffset::from);
    let time = |column| rows.get(0, column).and_then(|text| text.parse().ok()).map(Micros);
    let (Some(replayed), Some(now)) = (position(1), time(3)) else { return Ok(None) };
    Ok(Some(StandbyFacts {
        received: position(0),
        replayed,
        last_commit: time(2),
        now,
        receiving: rows.get(0, 4) == Some("t"),
    }))
}

/// The line of `check`.
pub(super) fn line(facts: &StandbyFacts, limit: Micros) -> CheckLine {
    let (state, message, hint) = match standby(facts, limit) {
        StandbyHealth::CaughtUp => {
            (CheckState::Ok, "all that the primary wrote is replayed".to_owned(), None)
        }
        StandbyHealth::Behind { bytes } => {
            (CheckState::Ok, format!("{} of log wait to be replayed", size(bytes)), None)
        }
        StandbyHealth::Late { bytes, seconds } => {
            let message = format!(
                "it is {seconds} s behind its primary: {} of log wait, the limit is {} s",
                size(bytes),
                limit.0 / 1_000_000
            );
            let hint = "is its replay paused (SELECT pg_is_wal_replay_paused(); SELECT pg_wal_replay_resume()), held up by a \
                        long query, or its disk too slow? else take backups from the primary";
            (CheckState::Error, message, Some(hint))
        }
        StandbyHealth::Cut => {
            let message =
                "it has no connection to its primary: how far it is behind can't be told".to_owned();
            (CheckState::Warning, message, Some("look at primary_conninfo, and at the standby's log"))
        }
    };
    CheckLine { name: "standby_lag".to_owned(), state, message, hint: hint.map(str::to_owned) }
}
