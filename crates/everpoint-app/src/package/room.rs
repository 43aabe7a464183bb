//! Whether there is room for a package, before any work is done for it.

use std::path::Path;

use everpoint_core::FailureClass;
use everpoint_core::package::{ClusterRoom, room_to_build, room_to_import};
use everpoint_core::words::size;
use everpoint_format::package::PackageManifest;

use super::build::BuildRequest;
use super::planned::Planned;
use crate::facts::Facts;
use crate::{AppError, ClusterContext};

/// Refuses what the directory can't hold.
pub(super) fn to_build(clusters: &[Planned<'_>], request: &BuildRequest) -> Result<(), AppError> {
    let sizes: Vec<ClusterRoom> = clusters.iter().map(|cluster| room(cluster, request)).collect();
    match free(&request.directory) {
        Some(free) => enough(free, room_to_build(&sizes), &request.directory.display().to_string()),
        None => Ok(()),
    }
}

/// Refuses to put in what the repository can't hold.
pub(super) fn to_import<'a>(
    context: &ClusterContext,
    manifests: impl Iterator<Item = &'a PackageManifest>,
) -> Result<(), AppError> {
    let Ok(Some(space)) = context.repository.store().space() else { return Ok(()) };
    let mut needed = 0_u64;
    for manifest in manifests {
        let Some(cluster) = manifest.cluster(&context.name) else { continue };
        let image = cluster.base.as_ref().map(|base| base.member.as_str());
        for member in &manifest.members {
            let log = cluster.log.iter().any(|log| {
                member.path.strip_prefix(&log.directory).is_some_and(|rest| rest.starts_with('/'))
            });
            if log || image == Some(member.path.as_str()) {
                needed = needed.saturating_add(room_to_import(member.size));
            }
        }
    }
    enough(space.free, needed, &context.repository.store().describe())
}

fn enough(free: u64, needed: u64, place: &str) -> Result<(), AppError> {
    if needed <= free {
        return Ok(());
    }
    let message = format!("about {} are needed, and {} are free there", size(needed), size(free));
    Err(AppError::new(
        "package.no_room",
        FailureClass::Failed,
        "make room for the package in",
        place,
        message,
    )
    .hint("free some space there, or name another place: scratch_dir of [limits], or --directory"))
}

fn room(cluster: &Planned<'_>, request: &BuildRequest) -> ClusterRoom {
    let image = cluster.plan.as_ref().and_then(|plan| {
        let found = cluster.facts.backups.iter().find(|backup| backup.label == plan.backup);
        found.map(|backup| backup.size)
    });
    let (stored, size) = compression(&cluster.facts);
    ClusterRoom { image: image.unwrap_or_default(), log: cluster.log(request).bytes(), stored, size }
}

/// Stored bytes and size of the backup that was compressed least: later ones share what is stored already.
fn compression(facts: &Facts) -> (u64, u64) {
    let records = facts.listings.iter().filter_map(|listing| listing.record.as_ref());
    let known = records.map(|record| (record.stored_bytes, record.size_bytes)).filter(|(_, size)| *size > 0);
    known
        .max_by(|a, b| (u128::from(a.0) * u128::from(b.1)).cmp(&(u128::from(b.0) * u128::from(a.1))))
        .unwrap_or((0, 1))
}

/// Bytes free for us, as `df` reckons them; `None` where it can't be told.
fn free(directory: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(directory).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}
