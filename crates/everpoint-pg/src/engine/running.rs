//! Whether a server runs in a directory.

use std::path::Path;

use crate::client::Connection;

/// Whether the server was started in this directory: it notes there when it started, and its port.
pub(super) fn is_running_in(sql: &mut Connection, data_dir: &Path) -> bool {
    /// Seconds between the process's start and the moment that the server remembers: shared memory is made meanwhile.
    const TOLERANCE: i64 = 120;
    let text = std::fs::read_to_string(data_dir.join("postmaster.pid")).unwrap_or_default();
    let noted = |line: usize| text.lines().nth(line).and_then(|line| line.trim().parse::<i64>().ok());
    let mut ask = |query: &str| {
        let rows = sql.query(query).ok()?;
        rows.single()?.parse::<i64>().ok()
    };
    let started = ask("SELECT extract(epoch FROM pg_catalog.pg_postmaster_start_time())::bigint");
    let same_start =
        noted(2).zip(started).is_some_and(|(noted, started)| (started - noted).abs() <= TOLERANCE);
    same_start && noted(3).is_some() && noted(3) == ask("SHOW port")
}
