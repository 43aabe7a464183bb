//! What `check` says of `archive_mode`.

use everpoint_engine::CheckLine;

use super::check::Findings;
use super::lines::{error, ok, warning};

/// Whether the server hands out its log by itself, and whether that works.
pub(super) fn line(findings: &Findings) -> Option<CheckLine> {
    let mode = findings.value("archive_mode")?;
    if mode == "off" {
        return Some(ok("archive", "archive_mode is off: the log is captured by streaming"));
    }
    let set = |name| findings.value(name).is_some_and(|value| !matches!(value, "" | "(disabled)"));
    let hidden = findings.value("archive_command").is_none();
    if !hidden && !set("archive_command") && !set("archive_library") {
        return Some(warning(
            "archive",
            "archive_mode is on, but nothing archives: the log piles up",
            "ALTER SYSTEM SET archive_command = '/usr/bin/everpoint --config /etc/everpoint/everpoint.toml archive-push CLUSTER \
             %p' (with the name of the cluster, and the paths of program and configuration); SELECT pg_reload_conf(). Or, \
             where the log is captured by streaming alone: ALTER SYSTEM SET archive_mode = off, and a restart",
        ));
    }
    if let Some(segment) = findings.value("archive_failing") {
        let failed = findings.number("archive_failed").unwrap_or(0);
        return Some(error(
            "archive",
            format!("archiving fails: {segment} last, {failed} failures in all"),
            "the server's log says why, and what to do; mend archive_command (it is tried again within a minute, at once after \
             SELECT pg_switch_wal()), or, where `everpoint capture` has taken its place, set archive_mode = off and restart \
             the server",
        ));
    }
    let streamed = findings.slot.as_ref().is_some_and(|slot| slot.active == Some(true));
    if !streamed && findings.value("archive_timeout") == Some("0") {
        return Some(warning(
            "archive",
            "archive_timeout is 0 and nothing streams: commits are on the server's own disk alone until their segment is full",
            "keep `everpoint serve` running, or ALTER SYSTEM SET archive_timeout = '60s'; SELECT pg_reload_conf()",
        ));
    }
    let archived = findings.number("archived").unwrap_or(0);
    Some(ok("archive", format!("archive_mode is {mode}, {archived} segments archived")))
}
