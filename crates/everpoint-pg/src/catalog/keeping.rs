//! What a server does about its log by itself: its archiver, and the slots that hold log back.

use everpoint_core::{Archiver, LogKeeping, LogOffset, Receiver, ServerSlot};

use crate::client::{Config, Purpose, connect};
use crate::lsn::{Lsn, WalFile};

/// Every role may ask.
const ARCHIVER: &str = "SELECT pg_catalog.current_setting('archive_mode'), \
     pg_catalog.current_setting('archive_command'), last_archived_wal, \
     (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'), pg_catalog.pg_is_in_recovery(), \
     CASE WHEN last_failed_time > coalesce(last_archived_time, '-infinity') THEN last_failed_wal END \
     FROM pg_catalog.pg_stat_archiver";
/// Of sessions of other roles only members of `pg_read_all_stats` see more than the number.
const SLOTS: &str = "SELECT slot_name, active, temporary, slot_type = 'physical', pg_catalog.pg_wal_lsn_diff( \
     CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_receive_lsn() \
     ELSE pg_catalog.pg_current_wal_lsn() END, restart_lsn)::bigint, restart_lsn, active_pid, application_name, usename, \
     client_addr FROM pg_catalog.pg_replication_slots LEFT JOIN pg_catalog.pg_stat_replication ON pid = active_pid \
     ORDER BY 1";

/// Only members of pg_monitor may list it; of others the server would note an error.
const MAY_LIST: &str = "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_ls_waldir()', 'EXECUTE') \
     AND NOT pg_catalog.pg_is_in_recovery()";
const OLDEST: &str = "SELECT pg_catalog.min(name) FROM pg_catalog.pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' \
     AND pg_catalog.left(name, 8) = pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8)";

/// Asks; `None` if no ordinary connection is possible.
pub(crate) fn log_keeping(config: &Config) -> Option<LogKeeping> {
    let mut sql = connect(config, Purpose::Sql).ok()?;
    let rows = sql.query(ARCHIVER).ok()?;
    let field = |at| rows.get(0, at).unwrap_or_default();
    // A standby archives by itself only with "always"; with "on" its primary does.
    let on = field(0) == "always" || field(0) == "on";
    let by_itself = field(4) != "t" || field(0) == "always";
    let size = field(3).parse().unwrap_or_default();
    let archived = Some(field(2)).filter(|_| by_itself).and_then(|name| archived(name, size));
    let failing = Some(field(5)).filter(|name| on && by_itself && !name.is_empty()).map(str::to_owned);
    let archiver = Archiver { on, command: field(1).to_owned(), archived, failing };
    let slots =
        sql.query(SLOTS).map_or_else(|_| Vec::new(), |rows| rows.0.iter().map(|row| slot(row)).collect());
    let mut asked = |query| sql.query(query).ok().and_then(|rows| rows.get(0, 0).map(str::to_owned));
    let listed = asked(MAY_LIST).filter(|may| may == "t").and_then(|_| asked(OLDEST));
    let oldest = listed.and_then(|name| match WalFile::parse(&name)? {
        WalFile::Segment(segment) => segment.start(size),
        WalFile::Partial(_) | WalFile::Backup(..) | WalFile::History(_) => None,
    });
    Some(LogKeeping { archiver, slots, oldest })
}

/// Timeline and end of a segment by its name; other files say nothing of positions.
fn archived(name: &str, segment_size: u64) -> Option<(u32, LogOffset)> {
    match WalFile::parse(name)? {
        WalFile::Segment(segment) => {
            Some((segment.timeline, segment.start(segment_size)?.plus(segment_size)))
        }
        WalFile::Partial(_) | WalFile::Backup(..) | WalFile::History(_) => None,
    }
}

fn slot(row: &[Option<String>]) -> ServerSlot {
    let known = |at: usize| row.get(at).cloned().flatten().filter(|text| !text.is_empty());
    let text = |at: usize| known(at).unwrap_or_default();
    ServerSlot {
        name: text(0),
        active: text(1) == "t",
        temporary: text(2) == "t",
        physical: text(3) == "t",
        held: text(4).parse().ok(),
        kept_from: text(5).parse::<Lsn>().ok().map(|lsn| LogOffset(lsn.0)),
        receiver: known(6).map(|process| Receiver {
            process,
            application: known(7),
            role: known(8),
            address: known(9),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_archived_segment_is_known_by_its_name() {
        let size = 16 << 20;
        assert_eq!(archived("000000020000000100000003", size), Some((2, LogOffset((1 << 32) + 4 * size))));
        assert_eq!(archived("00000002.history", size), None);
        assert_eq!(archived("000000020000000100000003.partial", size), None);
        assert_eq!(archived("", size), None);
    }
}
