//! The files of a data directory: which are pages of relations, which are taken as they are, which are left out.

mod links;
mod needed;
mod notes;
mod queue;
mod reader;
mod session;
mod settled;
mod source;
mod survey;
mod throttle;
mod walk;

use std::collections::BTreeSet;

pub use needed::Live;
pub(crate) use needed::{is_needed, is_of_live};
pub(crate) use notes::{Notes, ODD};
pub(crate) use reader::beyond;
pub use session::{BackupSession, SessionStart, SessionStop};
pub use source::{backup_files, label_start};
pub(crate) use survey::{Surveyed, survey, survey_for_server};
pub(crate) use walk::tablespaces;

/// Blocks of a relation in one of its files that PostgreSQL is compiled with unless somebody chose otherwise: 1 GiB.
pub const BLOCKS_PER_FILE: u32 = 131_072;

/// The forks of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fork {
    /// The rows, or the index.
    Main,
    /// Free space map.
    FreeSpace,
    /// Visibility map.
    Visibility,
    /// What an unlogged relation becomes after a crash.
    Init,
}

/// A file of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pages {
    /// Number that all files of the relation share.
    pub relation: u32,
    /// Its fork.
    pub fork: Fork,
    /// Number of the file within the fork, from 0.
    pub segment: u32,
}

impl Pages {
    /// Number, within the fork, of the file's first block, if a file has `blocks_per_file` ([`BLOCKS_PER_FILE`],
    /// or what `pg_control` says).
    #[must_use]
    pub const fn first_block(&self, blocks_per_file: u32) -> u32 {
        self.segment.wrapping_mul(blocks_per_file)
    }
}

/// What a backup does with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Pages of a relation: checked, and compared page by page.
    Pages(Pages),
    /// Taken as it is.
    Plain,
    /// Left out, for this reason.
    Skip(&'static str),
}

/// Directories whose contents mean nothing to another server, or would harm it; they themselves are kept, empty.
const EMPTIED: [&str; 8] = [
    "pg_wal",
    "pg_replslot",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "pg_subtrans",
    "pg_stat_tmp",
    "pg_dynshmem",
];

/// Files of the data directory's top that belong to the running server, or to a backup or recovery of the past.
const SKIPPED_AT_TOP: [(&str, &str); 14] = [
    ("postmaster.pid", "belongs to the running server"),
    ("postmaster.opts", "belongs to the running server"),
    ("current_logfiles", "belongs to the running server"),
    ("current_logfiles.tmp", "belongs to the running server"),
    ("postgresql.auto.conf.tmp", "is being written"),
    ("everpoint.copy", "says that this directory is a copy, which no other is"),
    ("everpoint.restore-incomplete", "belongs to a restore into this directory"),
    ("backup_label", "comes from the end of the backup"),
    ("tablespace_map", "comes from the end of the backup"),
    ("backup_label.old", "belongs to an older restore"),
    ("tablespace_map.old", "belongs to an older restore"),
    ("backup_manifest", "belongs to an older backup"),
    ("recovery.signal", "belongs to an older restore"),
    ("standby.signal", "belongs to this standby"),
];

/// Where a restore puts configuration from outside of the data directory. It is taken from its own place again.
pub(crate) const PUT_ASIDE: &str = "everpoint-external";

/// A restore in place puts the backup's files of configuration beside production's own, under their names and this.
pub(crate) const BESIDE: &str = ".everpoint-backup";

/// A server's socket, and the lock beside it with the number of its process (`pqcomm.h`).
pub(crate) const SOCKET: &str = ".s.PGSQL.";

/// Whether a backup keeps this directory but none of its contents. `path` is relative to the data directory.
#[must_use]
pub fn is_emptied(path: &str) -> bool {
    EMPTIED.contains(&path) || name_of(path).starts_with("pgsql_tmp")
}

/// Says what a backup does with a file. `path` is relative to the data directory, `/`-separated, files of tablespaces
/// under `pg_tblspc/<oid>/`.
///
/// Which relations are unlogged only their directory tells: see [`unlogged`].
#[must_use]
pub fn classify(path: &str) -> Class {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    if directory.is_empty()
        && let Some((_, reason)) = SKIPPED_AT_TOP.iter().find(|(skipped, _)| *skipped == name)
    {
        return Class::Skip(reason);
    }
    if name.starts_with(SOCKET) {
        return Class::Skip("belongs to the running server");
    }
    let top = path.split('/').next().unwrap_or_default();
    if top == PUT_ASIDE || name.ends_with(BESIDE) {
        return Class::Skip("belongs to an older restore");
    }
    if !directory.is_empty() && EMPTIED.contains(&top) {
        return Class::Skip("its directory's contents belong to the running server");
    }
    if path.split('/').any(|part| part.starts_with("pgsql_tmp")) {
        return Class::Skip("is temporary");
    }
    if name.starts_with("pg_internal.init") {
        return Class::Skip("is a cache");
    }
    if !holds_relations(directory) {
        return Class::Plain;
    }
    match relation_file(name) {
        Some((_, true)) => Class::Skip("belongs to a temporary relation"),
        Some((pages, false)) => Class::Pages(pages),
        None => Class::Plain,
    }
}

/// Numbers of the relations that are unlogged, given the names of all files of their directory: those with an init
/// fork. Of them a backup takes the init fork only.
pub fn unlogged<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<u32> {
    names
        .into_iter()
        .filter_map(relation_file)
        .filter(|(pages, temporary)| pages.fork == Fork::Init && !temporary)
        .map(|(pages, _)| pages.relation)
        .collect()
}

fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Whether a directory holds relations: `global`, `base/<database>`, `pg_tblspc/<oid>/PG_<version>/<database>`.
#[must_use]
pub fn holds_relations(directory: &str) -> bool {
    let parts: Vec<&str> = directory.split('/').collect();
    match parts.as_slice() {
        ["global"] => true,
        ["base", database] => number(database).is_some(),
        ["pg_tblspc", space, version, database] => {
            number(space).is_some() && version.starts_with("PG_") && number(database).is_some()
        }
        _ => false,
    }
}

/// Decimal digits and nothing else.
pub(crate) fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Reads `<number>[_fork][.segment]`, for a temporary relation with `t<backend>_` before it.
fn relation_file(name: &str) -> Option<(Pages, bool)> {
    let (temporary, rest) = match name.strip_prefix('t') {
        Some(rest) => {
            let (backend, rest) = rest.split_once('_')?;
            number(backend)?;
            (true, rest)
        }
        None => (false, name),
    };
    let (stem, segment) = match rest.split_once('.') {
        Some((stem, segment)) => (stem, number(segment)?),
        None => (rest, 0),
    };
    let (relation, fork) = match stem.split_once('_') {
        None => (stem, Fork::Main),
        Some((relation, "fsm")) => (relation, Fork::FreeSpace),
        Some((relation, "vm")) => (relation, Fork::Visibility),
        Some((relation, "init")) => (relation, Fork::Init),
        Some(_) => return None,
    };
    Some((Pages { relation: number(relation)?, fork, segment }, temporary))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_are_told_by_place_and_name() {
        let pages = |path: &str| match classify(path) {
            Class::Pages(pages) => Some((pages.relation, pages.fork, pages.segment)),
            _ => None,
        };
        assert_eq!(pages("base/5/1259"), Some((1259, Fork::Main, 0)));
        assert_eq!(pages("base/5/1259_fsm.2"), Some((1259, Fork::FreeSpace, 2)));
        assert_eq!(pages("global/1262_vm"), Some((1262, Fork::Visibility, 0)));
        assert_eq!(pages("pg_tblspc/16390/PG_15_202209061/5/777_init"), Some((777, Fork::Init, 0)));
        let plain = [
            "base/5/PG_VERSION",
            "base/5/pg_filenode.map",
            "base/5/1259_x",
            "base/x/1259",
            "1259",
            "pg_xact/0000",
            "pg_multixact/members/0000",
            "global/pg_control",
            "postgresql.conf",
            "pg_tblspc/16390/1259",
            "base/5/12a",
            "base/5/backup_label",
        ];
        for path in plain {
            assert_eq!(classify(path), Class::Plain, "{path}");
        }
    }

    #[test]
    fn what_belongs_to_the_running_server_is_left_out() {
        let skipped = [
            "base/5/t3_16384",
            "base/5/t3_16384_fsm.1",
            "base/pgsql_tmp/pgsql_tmp12.0",
            "pg_tblspc/1/PG_15_202209061/pgsql_tmp/x",
            "base/5/pg_internal.init",
            "global/pg_internal.init.123",
            "postmaster.pid",
            "everpoint.copy",
            "everpoint.restore-incomplete",
            "backup_label.old",
            "pg_wal/000000010000000000000001",
            "pg_wal/archive_status/x",
            ".s.PGSQL.5432.lock",
            "run/.s.PGSQL.5432.lock",
            "pg_replslot/a/state",
            "pg_stat_tmp/db_0.stat",
            "everpoint-external/etc/postgresql/15/main/postgresql.conf",
            "postgresql.conf.everpoint-backup",
            "conf.d/x.conf.everpoint-backup",
        ];
        for path in skipped {
            assert!(matches!(classify(path), Class::Skip(_)), "{path}");
        }
        assert!(is_emptied("pg_wal") && is_emptied("base/pgsql_tmp") && !is_emptied("base"));
    }

    #[test]
    fn a_relation_with_an_init_fork_is_unlogged() {
        let names = ["1", "2", "2_init", "2_fsm", "3.1", "t3_4_init", "x_init"];
        assert_eq!(unlogged(names), BTreeSet::from([2]));
    }

    #[test]
    fn blocks_are_counted_through_the_files_of_a_fork() {
        let pages = Pages { relation: 1, fork: Fork::Main, segment: 3 };
        assert_eq!(pages.first_block(BLOCKS_PER_FILE), 393_216);
    }
}
