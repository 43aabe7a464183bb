//! The text of generated configuration.

use std::fmt::Write as _;
use std::path::Path;

use everpoint_engine::RecoverySettings;

use super::{limits, memory};
use crate::control::Control;
use crate::lsn::Lsn;

/// First line of every generated file: such a file is never kept as if it were production's.
pub(super) const MARK: &str = "# Written by Everpoint for a restored copy.";

/// What a copy calls itself.
pub(crate) const COPY_NAME: &str = "everpoint copy";

/// Longest path of a socket that every system takes, with room for the socket's name in the directory.
const SOCKET_DIRECTORY_BYTES: usize = 80;

/// First minor versions of 13 and 14 that know `allow_in_place_tablespaces`; all later majors do.
const IN_PLACE_SINCE: [(u32, u32); 2] = [(13, 130_008), (14, 140_005)];

/// A setting's line; the value is quoted as the server's parser reads it.
fn line(text: &mut String, name: &str, value: impl AsRef<str>) {
    let quoted = value.as_ref().replace('\\', "\\\\").replace('\'', "''");
    // Writing to a string can't fail.
    let _ = writeln!(text, "{name} = '{quoted}'");
}

/// The line by which a copy says of what it is one.
pub(super) fn copy_setting(name: &str, of: &str) -> String {
    let mut text = String::new();
    line(&mut text, name, of);
    text
}

/// What makes the server recover to the target, and only that.
pub(super) fn recovery(settings: &RecoverySettings, major: u32, end_command: &str) -> String {
    let mut text = String::new();
    line(&mut text, "restore_command", &settings.fetch_command);
    line(&mut text, "recovery_end_command", end_command);
    line(&mut text, "archive_cleanup_command", "");
    line(&mut text, "recovery_target_timeline", settings.timeline.to_string());
    for other in ["recovery_target_name", "recovery_target_time", "recovery_target_xid"] {
        line(&mut text, other, "");
    }
    let (target, lsn) = match settings.stop {
        Some(stop) => ("", Lsn::from(stop.record).to_string()),
        None => ("immediate", String::new()),
    };
    line(&mut text, "recovery_target", target);
    line(&mut text, "recovery_target_lsn", lsn);
    let inclusive = settings.stop.is_none_or(|stop| stop.inclusive);
    line(&mut text, "recovery_target_inclusive", if inclusive { "on" } else { "off" });
    line(&mut text, "recovery_target_action", if settings.promote { "promote" } else { "pause" });
    line(&mut text, "recovery_min_apply_delay", "0");
    line(&mut text, "hot_standby", "on");
    line(&mut text, "primary_conninfo", "");
    line(&mut text, "primary_slot_name", "");
    if knows_in_place(settings, major) {
        // Without it recovery refuses to end while a tablespace is a directory instead of a link.
        line(&mut text, "allow_in_place_tablespaces", "on");
    }
    text
}

fn knows_in_place(settings: &RecoverySettings, major: u32) -> bool {
    let version = settings
        .facts
        .iter()
        .find(|(name, _)| name == "server_version" || name == "server_version_num")
        .and_then(|(_, value)| value.parse::<u32>().ok());
    takes_in_place(version.unwrap_or(u32::MAX).max(major * 10_000))
}

/// Whether a server of this version knows `allow_in_place_tablespaces`.
pub(super) fn takes_in_place(version: u32) -> bool {
    let since = IN_PLACE_SINCE.iter().find(|(major, _)| *major == version / 10_000);
    since.is_none_or(|(_, since)| version >= *since)
}

/// All of `postgresql.conf` of a copy: enough to replay, nothing through which it could reach production.
pub(super) fn copy(settings: &RecoverySettings, major: u32, control: Option<&Control>, port: u16) -> String {
    let mut text = format!("{MARK}\n# Production's own configuration lies beside it as *.production.\n\n");
    line(&mut text, "listen_addresses", "localhost");
    line(&mut text, "port", port.to_string());
    line(&mut text, "unix_socket_directories", socket_directory(&settings.directory));
    line(&mut text, "unix_socket_permissions", "0700");
    text.push_str(
        "\n# So that it does not pass for production at production's address, before `everpoint adopt`.\n",
    );
    line(&mut text, "cluster_name", COPY_NAME);
    text.push_str("\n# Nothing of production's is archived to, waited for, consumed or run.\n");
    line(&mut text, "archive_mode", "off");
    line(&mut text, "synchronous_standby_names", "");
    line(&mut text, "max_logical_replication_workers", "0");
    for libraries in ["session_preload_libraries", "local_preload_libraries"] {
        line(&mut text, libraries, "");
    }
    // Only what replay can't do without.
    let replaying: Vec<String> = settings.libraries.iter().map(|name| format!("\"{name}\"")).collect();
    line(&mut text, "shared_preload_libraries", replaying.join(", "));
    text.push_str("\n# At least what the log was written with.\n");
    line(&mut text, "wal_level", "replica");
    for (name, value) in limits::largest(major, &settings.facts, control.map(|control| control.limits)) {
        line(&mut text, name, value.to_string());
    }
    text.push_str("\n# A guest on this machine.\n");
    line(
        &mut text,
        "shared_buffers",
        format!("{}MB", memory::buffers(&settings.facts, memory::available()) >> 20),
    );
    line(&mut text, "huge_pages", "off");
    // At least two segments, else it does not start; PostgreSQL's own defaults are 80 MB and 1 GB.
    let segment = control.map_or(0, |control| u64::from(control.segment_size) >> 20);
    line(&mut text, "min_wal_size", format!("{}MB", (2 * segment).max(80)));
    line(&mut text, "max_wal_size", format!("{}MB", (4 * segment).max(1024)));
    line(&mut text, "logging_collector", "off");
    line(&mut text, "log_destination", "stderr");
    line(&mut text, "log_timezone", "UTC");
    line(&mut text, "lc_messages", "C");
    if major >= 14 {
        // The restored files may not be on disk yet: one call instead of one a file.
        line(&mut text, "recovery_init_sync_method", "syncfs");
    }
    if knows_in_place(settings, major) {
        // Tablespaces of its log are directories inside; a standby of the copy could not start without this.
        line(&mut text, "allow_in_place_tablespaces", "on");
    }
    text
}

/// Where the server's socket goes: the data directory itself, which nobody else can enter, or, if its path is too
/// long or strange for a socket, a directory of its own that only the server's user can enter.
pub(super) fn socket_directory(data_dir: &Path) -> String {
    let path = data_dir.to_string_lossy();
    let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    if plain && path.len() <= SOCKET_DIRECTORY_BYTES {
        return path.into_owned();
    }
    let hash = blake3::hash(path.as_bytes()).to_hex();
    format!("/tmp/everpoint-{}", hash.get(..16).unwrap_or_default())
}

/// `pg_hba.conf` of a copy. Over its private socket its own user and root get in. Over the loopback interface the rules
/// are production's, as far as they need nothing outside the directory; if there are none, passwords.
pub(super) fn access(production: &str) -> String {
    let mut text = format!("{MARK}\nlocal all all trust\n");
    let kept: Vec<&str> = production.lines().filter(|rule| is_loopback_rule(rule)).collect();
    for rule in &kept {
        text.push_str(rule.trim());
        text.push('\n');
    }
    if kept.is_empty() {
        text.push_str("host all all 127.0.0.1/32 md5\nhost all all ::1/128 md5\n");
    }
    text
}

fn is_loopback_rule(rule: &str) -> bool {
    let fields: Vec<&str> = rule.split_whitespace().collect();
    let [kind, databases, users, address, method, options @ ..] = fields.as_slice() else {
        return false;
    };
    let places = ["127.0.0.1/32", "::1/128", "127.0.0.0/8", "localhost", "samehost", "samenet", "all"];
    let everywhere = ["0.0.0.0/0", "::/0", "::0/0"];
    matches!(*kind, "host" | "hostnossl")
        && !databases.contains('@')
        && !users.contains('@')
        && *databases != "replication"
        && (places.contains(address) || everywhere.contains(address))
        && ["trust", "reject", "md5", "scram-sha-256", "password"].contains(method)
        && options.first().is_none_or(|option| option.starts_with('#'))
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use everpoint_core::LogOffset;
    use everpoint_engine::StopAt;

    use super::*;

    pub(in super::super) fn settings() -> RecoverySettings {
        RecoverySettings {
            directory: PathBuf::from("/srv/copy"),
            stop: Some(StopAt { record: LogOffset(0x1_0300_0148), inclusive: false }),
            timeline: 3,
            fetch_command: "it's \\ %f".to_owned(),
            facts: vec![("server_version".to_owned(), "130007".to_owned())],
            links: Vec::new(),
            unfinished: Vec::new(),
            libraries: Vec::new(),
            kept: Vec::new(),
            keep_configuration: false,
            copy_of: None,
            promote: false,
        }
    }

    #[test]
    fn the_target_is_written_and_quoted() {
        let text = recovery(&settings(), 13, "");
        for line in [
            "restore_command = 'it''s \\\\ %f'",
            "recovery_target_lsn = '1/3000148'",
            "recovery_target_inclusive = 'off'",
            "recovery_target_action = 'pause'",
            "recovery_target_timeline = '3'",
            "recovery_target = ''",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} not in\n{text}");
        }
        assert!(!text.contains("in_place"));
        assert!(recovery(&settings(), 15, "").contains("in_place"));
    }

    #[test]
    fn only_rules_for_the_loopback_that_need_nothing_else_are_kept() {
        let rules = "# x\nlocal all all peer\nhost all all 127.0.0.1/32 scram-sha-256 # note\nhost all all 10.0.0.0/8 trust\nhost all +x@file ::1/128 trust\nhostssl all all all trust\nhost all all all ldap ldapserver=x\nhost replication all 127.0.0.1/32 trust\n";
        let text = access(rules);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("127.0.0.1/32 scram-sha-256"));
        assert!(access("").contains("127.0.0.1/32 md5"));
    }

    #[test]
    fn the_socket_lies_where_its_path_fits() {
        assert_eq!(socket_directory(Path::new("/srv/copy")), "/srv/copy");
        assert!(socket_directory(Path::new("/srv/a copy")).starts_with("/tmp/everpoint-"));
        assert!(socket_directory(Path::new(&format!("/{}", "x".repeat(90)))).starts_with("/tmp/everpoint-"));
    }
}
