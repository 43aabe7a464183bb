//! Whose a directory is, and which of the things in it are a server's.

use std::fs;
use std::path::Path;

use everpoint_engine::DirectoryProof;

use super::configuration::takes_in_place;
use crate::control::{CONTROL_FILE, Control};

/// Major versions and the version of their catalogs, which no minor version changes.
const CATALOGS: [(u32, u32); 6] = [
    (13, 202_007_201),
    (14, 202_107_181),
    (15, 202_209_061),
    (16, 202_307_071),
    (17, 202_406_281),
    (18, 202_506_291),
];

/// Whose data directory this is: `PG_VERSION` makes it one, `pg_control` says whose.
#[must_use]
pub fn directory_proof(directory: &Path) -> DirectoryProof {
    let control = directory.join(CONTROL_FILE);
    let there = |path: &Path| fs::symlink_metadata(path).is_ok();
    match (there(&directory.join("PG_VERSION")), there(&control)) {
        (false, false) => DirectoryProof::Nothing,
        (true, true) => {
            let known = fs::read(&control).ok().and_then(|bytes| Control::parse(&bytes).ok());
            known.map_or(DirectoryProof::Unreadable, |control| DirectoryProof::Cluster(control.system))
        }
        _ => DirectoryProof::Unreadable,
    }
}

/// Name of a server's part of a tablespace, e.g. `PG_15_202209061`.
#[must_use]
pub fn tablespace_directory(version: u32) -> Option<String> {
    let known = CATALOGS.iter().find(|(major, _)| *major == version / 10_000);
    known.map(|(major, catalog)| format!("PG_{major}_{catalog}"))
}

/// Whether a server of this version recovers with a tablespace that is a directory instead of a link.
#[must_use]
pub fn takes_tablespaces_inside(version: u32) -> bool {
    takes_in_place(version)
}

/// Whether an entry of `pg_wal` is the server's or ours. A `pg_wal` that is a link may lead to where other things are.
#[must_use]
pub fn is_log_name(name: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let segment = |length: usize| name.get(..length).is_some_and(hex);
    let rest = name.get(24..).unwrap_or_default();
    let is_segment = name.len() >= 24
        && segment(24)
        && (rest.is_empty() || rest == ".partial" || (rest.starts_with('.') && rest.ends_with(".backup")));
    is_segment
        || (name.ends_with(".history") && name.len() == 16 && segment(8))
        || ["archive_status", "summaries", "RECOVERYXLOG", "RECOVERYHISTORY"].contains(&name)
        || name.ends_with(".everpoint")
        || ["xlogtemp.", "everpoint"].iter().any(|own| name.starts_with(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_a_tablespace_is_named_by_version_and_catalogs() {
        assert_eq!(tablespace_directory(150_018).as_deref(), Some("PG_15_202209061"));
        assert_eq!(tablespace_directory(190_000), None);
        assert!(takes_tablespaces_inside(150_000) && takes_tablespaces_inside(140_005));
        assert!(!takes_tablespaces_inside(140_004) && !takes_tablespaces_inside(130_007));
    }

    #[test]
    fn of_a_log_directory_only_what_servers_and_we_write_is_known() {
        for own in [
            "0000000100000000000000A1",
            "0000000100000000000000A1.partial",
            "0000000100000000000000A1.00000028.backup",
            "00000002.history",
            "archive_status",
            "summaries",
            "xlogtemp.17",
            "everpoint-fetch-error.json",
        ] {
            assert!(is_log_name(own), "{own}");
        }
        for other in
            ["notes.txt", "lost+found", "0000000100000000000000A1.bak", "base", "PG_VERSION", "x.history"]
        {
            assert!(!is_log_name(other), "{other}");
        }
    }

    #[test]
    fn a_directory_is_a_clusters_only_if_it_says_so() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(directory_proof(place.path()), DirectoryProof::Nothing);
        fs::write(place.path().join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(directory_proof(place.path()), DirectoryProof::Unreadable);
        fs::create_dir(place.path().join("global")).unwrap();
        fs::write(place.path().join(CONTROL_FILE), [0; 8192]).unwrap();
        assert_eq!(directory_proof(place.path()), DirectoryProof::Unreadable);
    }
}
