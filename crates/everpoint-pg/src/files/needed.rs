//! What of a data directory the server needs: what of it can't be read ends a backup. All else is somebody's own, and is
//! named as lacking.

use std::collections::BTreeSet;

use super::{number, relation_file};

/// Databases and tablespaces that the server knows. A directory of another number is an orphan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// Numbers of the databases, without those of which a DROP was interrupted.
    pub databases: BTreeSet<u32>,
    /// Numbers of the tablespaces.
    pub tablespaces: BTreeSet<u32>,
}

/// At the top of a data directory.
const AT_TOP: [&str; 17] = [
    "PG_VERSION",
    "postgresql.auto.conf",
    "base",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_multixact",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_xact",
];

/// The files of a database that are no relations.
const OF_DATABASE: [&str; 2] = ["PG_VERSION", "pg_filenode.map"];

/// Whether the server needs a file or directory; the path is relative to the data directory. `live`: what the server knows;
/// without it every number counts.
pub(crate) fn is_needed(path: &str, live: Option<&Live>) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [top] => AT_TOP.contains(top),
        ["global", name] => *name == "pg_control" || is_of_database(name),
        ["base", database] => is_database(database, live),
        ["base", database, name] => is_database(database, live) && is_of_database(name),
        ["pg_tblspc", space] => is_space(space, live),
        ["pg_tblspc", space, version] => is_space(space, live) && version.starts_with("PG_"),
        ["pg_tblspc", space, _, database] => is_space(space, live) && is_database(database, live),
        ["pg_tblspc", space, _, database, name] => {
            is_space(space, live) && is_database(database, live) && is_of_database(name)
        }
        ["pg_multixact", "members" | "offsets"] | ["pg_logical", "replorigin_checkpoint"] => true,
        ["pg_xact" | "pg_commit_ts" | "pg_twophase", name]
        | ["pg_multixact", "members" | "offsets", name] => is_numbered(name),
        _ => false,
    }
}

/// Whether the directory holds relations of a database that the server knows, or those of all databases: what is wrong in
/// another does no harm.
pub(crate) fn is_of_live(directory: &str, live: Option<&Live>) -> bool {
    let parts: Vec<&str> = directory.split('/').collect();
    match parts.as_slice() {
        ["global"] => true,
        ["base", database] => is_database(database, live),
        ["pg_tblspc", space, _, database] => is_space(space, live) && is_database(database, live),
        _ => false,
    }
}

fn is_database(name: &str, live: Option<&Live>) -> bool {
    number(name).is_some_and(|oid| live.is_none_or(|live| live.databases.contains(&oid)))
}

fn is_space(name: &str, live: Option<&Live>) -> bool {
    number(name).is_some_and(|oid| live.is_none_or(|live| live.tablespaces.contains(&oid)))
}

fn is_of_database(name: &str) -> bool {
    OF_DATABASE.contains(&name) || relation_file(name).is_some()
}

/// Segments of pg_xact and its like, and prepared transactions: hexadecimal digits.
fn is_numbered(name: &str) -> bool {
    name.len() >= 4 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_needs_is_told_from_what_lies_beside_it() {
        let live = Live { databases: BTreeSet::from([1, 5]), tablespaces: BTreeSet::from([16400]) };
        for needed in [
            "PG_VERSION",
            "base",
            "base/5",
            "base/5/1259",
            "base/5/1259_vm.2",
            "base/5/pg_filenode.map",
            "global/pg_control",
            "global/1262",
            "pg_xact",
            "pg_xact/0000",
            "pg_multixact/members/0000",
            "pg_tblspc/16400",
            "pg_tblspc/16400/PG_15_1/5/777",
        ] {
            assert!(is_needed(needed, Some(&live)) && is_needed(needed, None), "{needed}");
        }
        for stray in [
            "lost+found",
            "log",
            "base/5/notes.txt",
            "base/5/1259.bak",
            "base/lost+found",
            "global/pg_control.old",
            "pg_xact/lost+found",
            "pg_xact/x",
            "pg_tblspc/notes",
            "pg_tblspc/16400/notes",
            "somewhere/pg_filenode.map",
        ] {
            assert!(!is_needed(stray, Some(&live)) && !is_needed(stray, None), "{stray}");
        }
        for orphan in
            ["base/99999", "base/99999/1259", "base/99999/pg_filenode.map", "pg_tblspc/9/PG_15_1/5/1"]
        {
            assert!(!is_needed(orphan, Some(&live)) && is_needed(orphan, None), "{orphan}");
        }
    }

    #[test]
    fn relations_of_no_database_are_told_by_their_directory() {
        let live = Live { databases: BTreeSet::from([5]), tablespaces: BTreeSet::from([16400]) };
        for directory in ["global", "base/5", "pg_tblspc/16400/PG_15_1/5"] {
            assert!(is_of_live(directory, Some(&live)), "{directory}");
        }
        for directory in ["base/6", "pg_tblspc/16400/PG_15_1/6", "pg_tblspc/7/PG_15_1/5", "x/5", "base"] {
            assert!(!is_of_live(directory, Some(&live)), "{directory}");
        }
    }
}
