//! Links out of production's directory that a restore in place leaves as they are: configuration and keys that are kept
//! elsewhere. A base backup over the network tells nothing of them; one of files records where they lead.

use std::fs;
use std::path::{Path, PathBuf};

use everpoint_core::name::of_path;
use everpoint_engine::Engine;
use everpoint_format::manifest::BackupRecord;

use super::tree::Tree;

/// How a backup that has seen the links was made.
const SEES_LINKS: &str = "files";

/// The links that are kept, relative to the directory: those that lead to something outside of it.
pub(super) fn links(engine: &dyn Engine, root: &Path, record: &BackupRecord) -> Vec<PathBuf> {
    let Some(real) = fs::canonicalize(root).ok().filter(|_| record.method != SEES_LINKS) else {
        return Vec::new();
    };
    let mut links = engine.links_out(root);
    links.retain(|link| fs::canonicalize(root.join(link)).is_ok_and(|target| !target.starts_with(&real)));
    links
}

/// What the operator should know of them.
pub(super) fn told(tree: &Tree) -> Option<String> {
    let named = tree.kept().iter().map(|link| {
        let target = fs::read_link(tree.root().join(link)).unwrap_or_default();
        format!("{} -> {}", of_path(link), of_path(&target))
    });
    let named: Vec<String> = named.collect();
    (!named.is_empty()).then(|| {
        format!(
            "{} stay links in {}, and what they lead to is not changed: the backup came over the network, which tells \
             nothing of links",
            named.join(", "),
            tree.root().display()
        )
    })
}
