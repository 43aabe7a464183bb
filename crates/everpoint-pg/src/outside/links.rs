//! Links inside of a data directory that lead out of it.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use everpoint_core::name::{escape, of_path, to_path};

/// Most links that are remembered: a directory full of them is not configuration.
const MAX_LINKS: usize = 256;

/// How deep directories that are not the server's own are looked into.
const MAX_DEPTH: usize = 3;

/// Whether a path, relative to the data directory, is the server's own: what it is there is not a matter of
/// configuration (`pg_wal` may be a link to another disk, `pg_tblspc` holds links).
pub(crate) fn is_own_place(path: &str) -> bool {
    let top = path.split('/').next().unwrap_or_default();
    let is_configuration = matches!(path, "pg_hba.conf" | "pg_ident.conf");
    matches!(top, "base" | "global") || top.starts_with("pg_") && !is_configuration
}

/// The links, by path relative to the data directory, and where they lead, as they say it.
pub(super) fn links(data_dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    gather(data_dir, "", 0, &mut found);
    found.sort();
    found
}

/// What the server or a restore writes itself, whatever it is: a link of such a name is no configuration.
const WRITTEN: [&str; 9] = [
    "PG_VERSION",
    "backup_label",
    "backup_manifest",
    "current_logfiles",
    "postgresql.auto.conf",
    "postmaster.opts",
    "postmaster.pid",
    "recovery.signal",
    "standby.signal",
];

/// Whether a server or a restore writes a file of this name itself.
pub(super) fn is_written(path: &str) -> bool {
    WRITTEN.contains(&path)
}

/// The links that are configuration and lead anywhere, by path relative to the data directory.
pub(crate) fn links_out(data_dir: &Path) -> Vec<PathBuf> {
    let mut found = links(data_dir);
    found.retain(|(path, _)| !is_written(path));
    found.into_iter().map(|(path, _)| to_path(&path)).collect()
}

fn gather(data_dir: &Path, below: &str, depth: usize, found: &mut Vec<(String, String)>) {
    let Ok(entries) = fs::read_dir(data_dir.join(to_path(below))) else { return };
    for entry in entries.flatten() {
        let name = escape(entry.file_name().as_bytes());
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let Ok(kind) = entry.file_type() else { continue };
        if is_own_place(&path) || found.len() >= MAX_LINKS {
            continue;
        }
        if kind.is_dir() && depth < MAX_DEPTH {
            gather(data_dir, &path, depth + 1, found);
        } else if kind.is_symlink()
            && let Ok(target) = fs::read_link(entry.path())
        {
            found.push((path, of_path(&target)));
        }
    }
}
