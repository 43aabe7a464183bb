//! Judges what was found out about a server.

use everpoint_core::words::size;
use everpoint_engine::{CheckLine, CheckState};

use super::archive;
use super::check::{Findings, SlotFindings};
use crate::client::{POOLER_HINT, quote_identifier, quote_literal};

/// Major versions that are supported.
const SUPPORTED: std::ops::RangeInclusive<u32> = 13..=18;

/// A capture and a backup run at the same time: each needs a sender.
const SENDERS_NEEDED: u64 = 2;

/// A slot that holds back more than this is worth a warning.
const MUCH_HELD: u64 = 10 << 30;

/// Suffixes of the host names of managed services.
const MANAGED_HOSTS: [(&str, &str); 4] = [
    (".rds.amazonaws.com", "Amazon RDS"),
    (".postgres.database.azure.com", "Azure Database"),
    (".sql.goog", "Google Cloud SQL"),
    (".aivencloud.com", "Aiven"),
];

/// Roles that only managed services have.
const MANAGED_ROLES: [(&str, &str); 4] = [
    ("rds_superuser", "Amazon RDS"),
    ("cloudsqlsuperuser", "Google Cloud SQL"),
    ("azure_pg_admin", "Azure Database"),
    ("alloydbsuperuser", "AlloyDB"),
];

fn line(name: &str, state: CheckState, message: impl Into<String>) -> CheckLine {
    CheckLine { name: name.to_owned(), state, message: message.into(), hint: None }
}

pub(super) fn ok(name: &str, message: impl Into<String>) -> CheckLine {
    line(name, CheckState::Ok, message)
}

pub(super) fn warning(name: &str, message: impl Into<String>, hint: impl Into<String>) -> CheckLine {
    CheckLine { hint: Some(hint.into()), ..line(name, CheckState::Warning, message) }
}

pub(super) fn error(name: &str, message: impl Into<String>, hint: impl Into<String>) -> CheckLine {
    CheckLine { hint: Some(hint.into()), ..line(name, CheckState::Error, message) }
}

impl Findings {
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.value(name)?.parse().ok()
    }
}

/// All lines for a server that could be reached.
pub(super) fn all(findings: &Findings) -> Vec<CheckLine> {
    let mut lines = Vec::new();
    lines.extend(connection(findings));
    lines.push(encryption(findings));
    lines.extend(pooler(findings));
    lines.extend(managed(findings));
    lines.extend(version(findings));
    lines.push(privileges(findings));
    lines.extend(wal_level(findings));
    lines.extend(capacity(findings, "wal_senders", "max_wal_senders", "wal_senders_used", SENDERS_NEEDED));
    let missing = u64::from(findings.slot.as_ref().is_none_or(|slot| !slot.exists));
    lines.extend(capacity(findings, "replication_slots", "max_replication_slots", "slots_used", missing));
    lines.extend(findings.slot.as_ref().map(slot));
    lines.extend(slot_limits(findings));
    lines.extend(archive::line(findings));
    lines.extend(pages(findings));
    lines.extend(synchronous(findings));
    lines.extend(tablespaces(findings));
    lines
}

fn connection(findings: &Findings) -> Option<CheckLine> {
    let identity = findings.identity.as_ref()?;
    let role = if identity.in_recovery { "standby" } else { "primary" };
    let message = format!(
        "connected to {} as {}: {role}, system identifier {}, timeline {}",
        findings.host, findings.user, identity.system, identity.timeline
    );
    Some(ok("connection", message))
}

fn encryption(findings: &Findings) -> CheckLine {
    match &findings.encryption {
        Some(encryption) => ok("encryption", encryption.clone()),
        None if findings.unix => ok("encryption", "not needed on a unix socket"),
        None => warning(
            "encryption",
            "the connection is not encrypted",
            "set ssl = on with a certificate on the server, and sslmode=verify-full here",
        ),
    }
}

/// A pooler gives each transaction whichever session of the server is free.
fn pooler(findings: &Findings) -> Option<CheckLine> {
    let message = "a pooler answers at this address, not the server: start and stop of a backup could meet different sessions";
    findings.pooled.then(|| error("pooler", message, POOLER_HINT))
}

/// Recognises managed services.
pub(super) fn managed(findings: &Findings) -> Option<CheckLine> {
    let by_host = MANAGED_HOSTS.iter().find(|(suffix, _)| findings.host.ends_with(suffix));
    let role = findings.value("managed_role");
    let by_role = MANAGED_ROLES.iter().find(|(name, _)| role == Some(*name));
    let (_, service) = by_host.or(by_role)?;
    Some(error(
        "managed_service",
        format!("{service} gives no physical access: neither base backups nor a physical stream of the log"),
        "logical dumps are possible there (pg_dump)",
    ))
}

fn version(findings: &Findings) -> Option<CheckLine> {
    let identity = findings.identity.as_ref()?;
    let major = identity.version / 10_000;
    let message = format!("PostgreSQL {}", identity.version_text);
    Some(match major {
        major if SUPPORTED.contains(&major) => ok("version", message),
        major if major < *SUPPORTED.start() => error(
            "version",
            format!("{message} is too old"),
            format!("{} is the oldest supported", SUPPORTED.start()),
        ),
        _ => {
            warning("version", format!("{message} is newer than what was tested"), "look for a newer release")
        }
    })
}

fn privileges(findings: &Findings) -> CheckLine {
    let user = quote_identifier(&findings.user);
    let grants = if findings.identity.as_ref().is_some_and(|identity| identity.version < 150_000) {
        format!(
            "GRANT EXECUTE ON FUNCTION pg_catalog.pg_start_backup(text, boolean, boolean), \
             pg_catalog.pg_stop_backup(boolean, boolean) TO {user}"
        )
    } else {
        format!(
            "GRANT EXECUTE ON FUNCTION pg_catalog.pg_backup_start(text, boolean), \
             pg_catalog.pg_backup_stop(boolean) TO {user}"
        )
    };
    if findings.identity.is_none() && findings.value("replication_role") != Some("t") {
        return error("privileges", "the role lacks REPLICATION", format!("ALTER ROLE {user} REPLICATION"));
    }
    if !findings.sql {
        return ok(
            "privileges",
            "REPLICATION; no ordinary connection, so backups come over the replication protocol",
        );
    }
    if findings.may_start_backup {
        return ok("privileges", "REPLICATION, and backups by reading files");
    }
    CheckLine {
        hint: Some(grants),
        ..ok("privileges", "REPLICATION; a grant would allow backups by reading files")
    }
}

fn wal_level(findings: &Findings) -> Option<CheckLine> {
    match findings.value("wal_level")? {
        "minimal" => Some(error(
            "wal_level",
            "wal_level is minimal: the log can't be replayed over a backup",
            "ALTER SYSTEM SET wal_level = 'replica'; then restart the server",
        )),
        level => Some(ok("wal_level", level)),
    }
}

/// Whether `needed` more fit.
fn capacity(findings: &Findings, name: &str, limit: &str, used: &str, needed: u64) -> Option<CheckLine> {
    let most = findings.number(limit)?;
    // Our own connection for this check does not stream, so it is not counted as used.
    let used = findings.number(used);
    let free = most.saturating_sub(used.unwrap_or(0));
    let message = match used {
        Some(used) => format!("{used} of {most} in use"),
        None => format!("{most} at most; how many are in use can't be seen"),
    };
    if free < needed {
        let hint = format!("ALTER SYSTEM SET {limit} = {}; then restart the server", most + needed);
        return Some(error(name, format!("{message}, {needed} needed"), hint));
    }
    Some(ok(name, message))
}

fn slot(slot: &SlotFindings) -> CheckLine {
    let name = &slot.name;
    if !slot.exists {
        let hint = format!("SELECT pg_create_physical_replication_slot({}, true)", quote_literal(name));
        let found = ok("slot", format!("{name} does not exist yet; capture makes it"));
        return CheckLine { hint: Some(hint), ..found };
    }
    let held =
        slot.held_bytes.map_or_else(String::new, |bytes| format!(", holds back {} of log", size(bytes)));
    match slot.wal_status.as_deref() {
        Some("lost") => error(
            "slot",
            format!("{name} has lost log that was not captured"),
            "capture makes it anew and records the gap; take a backup then",
        ),
        Some("unreserved") => warning(
            "slot",
            format!("{name} is about to lose log{held}"),
            "start capture now, or raise max_slot_wal_keep_size",
        ),
        _ if slot.held_bytes.is_some_and(|bytes| bytes > MUCH_HELD) => {
            warning("slot", format!("{name}{held}"), "start capture, or drop the slot if nobody uses it")
        }
        _ => {
            let used = slot.active.map_or("", |active| if active { ", in use" } else { ", not in use" });
            ok("slot", format!("{name}{used}{held}"))
        }
    }
}

fn slot_limits(findings: &Findings) -> Vec<CheckLine> {
    let mut lines = Vec::new();
    if findings.value("max_slot_wal_keep_size") == Some("-1") {
        lines.push(warning(
            "slot_limit",
            "max_slot_wal_keep_size is unlimited: while nobody receives, the log fills the server's disk",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '<less than the free space>'; SELECT pg_reload_conf()",
        ));
    }
    if let Some(timeout) = findings.value("idle_replication_slot_timeout").filter(|value| *value != "0") {
        lines.push(warning(
            "slot_timeout",
            format!("a slot that is idle for {timeout} is given up, and with it log"),
            "ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf()",
        ));
    }
    lines
}

fn pages(findings: &Findings) -> Vec<CheckLine> {
    let mut lines = Vec::new();
    match findings.value("data_checksums") {
        Some("on") => lines.push(ok("checksums", "on")),
        Some(_) => lines.push(warning(
            "checksums",
            "data pages have no checksums: damage is not noticed when it is backed up",
            "stop the server, then `pg_checksums --enable -D <data directory>`",
        )),
        None => {}
    }
    for (name, why) in [
        ("full_page_writes", "a backup from a standby is not possible, and a crash may tear pages"),
        ("fsync", "a crash of the machine may damage the cluster"),
    ] {
        if findings.value(name) == Some("off") {
            let hint = format!("ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()");
            lines.push(warning(name, format!("{name} is off: {why}"), hint));
        }
    }
    lines
}

/// PostgreSQL only warns of them; whoever moves or removes one of the two has the other on his hands.
fn tablespaces(findings: &Findings) -> Option<CheckLine> {
    let inside = findings.value("tablespaces_inside").filter(|inside| !inside.is_empty())?;
    let message = format!("tablespaces lie inside the data directory: {inside}");
    let hint = "move them: CREATE TABLESPACE elsewhere, ALTER TABLE … SET TABLESPACE, then DROP TABLESPACE";
    Some(warning("tablespaces", message, hint))
}

fn synchronous(findings: &Findings) -> Option<CheckLine> {
    let names = findings.value("synchronous_standby_names")?;
    if names.is_empty() {
        return Some(ok("synchronous", "commits do not wait for this receiver"));
    }
    let named = names
        .split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '*')))
        .any(|word| word == findings.application_name || word == "*");
    if !named {
        return Some(ok("synchronous", format!("commits wait for {names}, not for this receiver")));
    }
    if findings.value("synchronous_commit") == Some("remote_apply") {
        return Some(warning(
            "synchronous",
            "synchronous_commit = remote_apply waits for a receiver that applies; this one never does",
            "ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf()",
        ));
    }
    Some(ok("synchronous", format!("commits may wait for this receiver ({names})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(values: &[(&str, &str)]) -> Findings {
        Findings {
            application_name: "everpoint".into(),
            values: values.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            ..Findings::default()
        }
    }

    fn state(lines: &[CheckLine], name: &str) -> Option<CheckState> {
        lines.iter().find(|line| line.name == name).map(|line| line.state)
    }

    #[test]
    fn what_is_wrong_has_a_remedy() {
        let found = findings(&[
            ("wal_level", "minimal"),
            ("max_wal_senders", "3"),
            ("wal_senders_used", "2"),
            ("archive_mode", "on"),
            ("archive_command", "x"),
            ("archive_failing", "000000010000000000000007"),
            ("data_checksums", "off"),
        ]);
        let lines = all(&found);
        for name in ["wal_level", "wal_senders", "archive", "privileges"] {
            assert_eq!(state(&lines, name), Some(CheckState::Error), "{name}");
        }
        assert_eq!(state(&lines, "checksums"), Some(CheckState::Warning));
        assert!(lines.iter().all(|line| line.state == CheckState::Ok || line.hint.is_some()));
    }

    #[test]
    fn a_pooler_is_named_as_what_it_is() {
        let found = Findings { pooled: true, sql: true, ..findings(&[]) };
        assert_eq!(state(&all(&found), "pooler"), Some(CheckState::Error));
        assert_eq!(state(&all(&findings(&[])), "pooler"), None);
    }

    #[test]
    fn managed_services_are_recognised() {
        let mut found = findings(&[("managed_role", "cloudsqlsuperuser")]);
        assert!(managed(&found).is_some_and(|line| line.message.contains("Cloud SQL")));
        found.values.clear();
        assert_eq!(managed(&found), None);
        found.host = "x.eu-west-1.rds.amazonaws.com".into();
        assert!(managed(&found).is_some());
    }

    #[test]
    fn what_nobody_tells_of_a_slot_is_not_said() {
        let said = |active| {
            slot(&SlotFindings { name: "s".into(), exists: true, active, ..SlotFindings::default() }).message
        };
        assert_eq!([None, Some(true), Some(false)].map(said), ["s", "s, in use", "s, not in use"]);
    }

    #[test]
    fn a_synchronous_receiver_is_told_by_its_name() {
        let with =
            |names: &str| synchronous(&findings(&[("synchronous_standby_names", names)])).unwrap().message;
        assert!(with("ANY 1 (a, everpoint)").contains("may wait for this receiver"));
        assert!(with("FIRST 1 (\"other\")").contains("not for this receiver"));
    }
}
