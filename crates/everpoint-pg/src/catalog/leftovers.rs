//! Settings of a recovery on a server that has none: no standby cloned from it can run.

use everpoint_engine::{CheckLine, CheckState};

use crate::client::Connection;

/// Settings that a restore writes, of this version or an earlier one.
const OURS: [&str; 16] = [
    "restore_command",
    "recovery_end_command",
    "archive_cleanup_command",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "recovery_min_apply_delay",
    "hot_standby",
    "primary_conninfo",
    "primary_slot_name",
    "allow_in_place_tablespaces",
];

/// What the files say, whether it is in force or not. Superusers, and roles to whom it was granted, see it.
const IN_FILES: &str = "SELECT name, coalesce(setting, ''), coalesce(sourcefile, '') FROM pg_catalog.pg_file_settings \
     ORDER BY seqno";

/// Whether the role may see that.
const MAY: &str = "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_file_settings', 'SELECT') AND \
     pg_catalog.has_function_privilege('pg_catalog.pg_show_all_file_settings()', 'EXECUTE')";

/// For all others: what is in force and still stands in a file.
const IN_FORCE: &str = "SELECT name, coalesce(setting, ''), coalesce(sourcefile, '') FROM pg_catalog.pg_settings \
     WHERE source = 'configuration file' AND NOT pending_restart ORDER BY name";

/// A setting as a file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stated {
    name: String,
    value: String,
    file: String,
}

/// The line of `check` for a server that is not in recovery; `None` if nothing of a recovery is left in its files.
pub(super) fn line(sql: &mut Connection) -> Option<CheckLine> {
    // Asked first: a refused query would be an error in the server's log.
    let may = sql.query(MAY).is_ok_and(|rows| rows.single() == Some("t"));
    let rows = sql.query(if may { IN_FILES } else { IN_FORCE }).ok()?;
    let field = |row: &[Option<String>], at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    let stated =
        rows.0.iter().map(|row| Stated { name: field(row, 0), value: field(row, 1), file: field(row, 2) });
    judge(&stated.collect::<Vec<_>>())
}

fn judge(stated: &[Stated]) -> Option<CheckLine> {
    let left = stated.iter().find(|it| breaks_standbys(it))?;
    let message = format!(
        "{} = '{}' is left of a recovery that has ended: no standby cloned from this server can follow it",
        left.name, left.value
    );
    let hint = mend(stated, &left.file);
    Some(CheckLine {
        name: "recovery_settings".to_owned(),
        state: CheckState::Warning,
        message,
        hint: Some(hint),
    })
}

/// A primary has no use for a target. A restore_command alone may be meant for its standbys: ours names a branch, which a
/// standby must not be held to, or the log that was put beside an image.
fn breaks_standbys(stated: &Stated) -> bool {
    let value = stated.value.trim();
    match stated.name.as_str() {
        "recovery_target"
        | "recovery_target_lsn"
        | "recovery_target_name"
        | "recovery_target_time"
        | "recovery_target_xid" => !value.is_empty(),
        "recovery_target_timeline" => !matches!(value, "" | "latest"),
        "restore_command" => {
            value.contains("archive-get") && value.contains("--branch") || value.contains("everpoint-log/")
        }
        "recovery_end_command" => value.contains("everpoint-"),
        _ => false,
    }
}

/// SQL where ALTER SYSTEM reaches the settings, else the lines to remove.
fn mend(stated: &[Stated], file: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for it in stated.iter().filter(|it| it.file == file && OURS.contains(&it.name.as_str())) {
        if !names.contains(&it.name.as_str()) {
            names.push(&it.name);
        }
    }
    // An unprivileged role is not told the file; restores that keep production's configuration write into that of ALTER SYSTEM.
    if file.is_empty() || file.ends_with("postgresql.auto.conf") {
        let resets: Vec<String> = names.iter().map(|name| format!("ALTER SYSTEM RESET {name};")).collect();
        return format!("{} SELECT pg_reload_conf();", resets.join(" "));
    }
    format!("remove the lines of {} from {file}, then SELECT pg_reload_conf();", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stated(list: &[(&str, &str, &str)]) -> Vec<Stated> {
        let made = |(name, value, file): &(&str, &str, &str)| Stated {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
            file: (*file).to_owned(),
        };
        list.iter().map(made).collect()
    }

    #[test]
    fn what_breaks_standbys_is_told_with_the_sql_that_mends_it() {
        let auto = "/d/postgresql.auto.conf";
        let found = judge(&stated(&[
            ("port", "5432", "/d/postgresql.conf"),
            ("restore_command", "everpoint archive-get c %f \"%p\" --branch 1/00000001-0", auto),
            ("work_mem", "4MB", auto),
            ("recovery_target_timeline", "1", auto),
            ("recovery_target_lsn", "0/3000148", auto),
        ]));
        let hint = found.unwrap().hint.unwrap();
        assert_eq!(
            hint,
            "ALTER SYSTEM RESET restore_command; ALTER SYSTEM RESET recovery_target_timeline; \
             ALTER SYSTEM RESET recovery_target_lsn; SELECT pg_reload_conf();"
        );
        let other = judge(&stated(&[("recovery_target", "immediate", "/d/postgresql.conf")]));
        assert!(
            other
                .unwrap()
                .hint
                .unwrap()
                .contains("remove the lines of recovery_target from /d/postgresql.conf")
        );
    }

    #[test]
    fn settings_for_standbys_are_nobodys_leftovers() {
        let fine = [
            ("restore_command", "everpoint archive-get order-db %f \"%p\"", "/d/postgresql.conf"),
            ("restore_command", "cp /archive/%f %p", "/d/postgresql.conf"),
            ("recovery_target_timeline", "latest", "/d/postgresql.conf"),
            ("recovery_target_lsn", "", "/d/postgresql.conf"),
            ("primary_conninfo", "host=a", "/d/postgresql.auto.conf"),
            ("hot_standby", "on", "/d/postgresql.conf"),
        ];
        assert_eq!(judge(&stated(&fine)), None);
    }
}
