//! Whose a directory is, and which one is production's own.

use std::path::{Path, PathBuf};

use everpoint_core::place::ClusterProof;
use everpoint_engine::{DirectoryProof, Engine};
use everpoint_repo::BackupListing;

use super::mark::same_place;

/// What the files of a directory prove. `known`: whether a system is this cluster's.
pub(super) fn cluster_proof(
    engine: &dyn Engine,
    directory: &Path,
    known: &dyn Fn(u64) -> bool,
) -> ClusterProof {
    match engine.directory_proof(directory) {
        DirectoryProof::Nothing => ClusterProof::None,
        DirectoryProof::Cluster(system) if known(system) => ClusterProof::Ours,
        DirectoryProof::Cluster(system) => ClusterProof::Other(system),
        DirectoryProof::Unreadable => ClusterProof::Unreadable,
    }
}

/// The data directory of production as the newest backup that knows it has recorded it: it may have moved since the one that is
/// restored.
pub(super) fn recorded_directory(listings: &[BackupListing]) -> Option<&str> {
    let records = listings.iter().filter_map(|listing| listing.record.as_ref());
    let known = records.filter_map(|record| {
        let (_, directory) = record.facts.iter().find(|(name, _)| name == "data_directory")?;
        Some((record.stopped_at, directory.as_str()))
    });
    known.max_by_key(|(stopped_at, _)| *stopped_at).map(|(_, directory)| directory)
}

/// The data directory of production. Where it has moved, the configuration says so: what a backup has recorded counts no more.
pub(super) fn productions(engine: &dyn Engine, recorded: Option<&str>) -> Option<PathBuf> {
    let configured = engine.data_directory().filter(|configured| configured.is_dir());
    configured.or_else(|| recorded.map(PathBuf::from))
}

/// Whether what the links of this directory lead to is its own: it is production's, or is to replace it and nothing is known
/// of another one. The links of a copied directory lead to production's live tablespaces.
pub(super) fn links_are_its_own(
    engine: &dyn Engine,
    root: &Path,
    recorded: Option<&str>,
    replaces: bool,
) -> bool {
    match productions(engine, recorded) {
        Some(known) => same_place(root, &known) || (replaces && !known.is_dir()),
        None => replaces,
    }
}
