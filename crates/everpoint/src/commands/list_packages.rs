//! `list --package`: what packages hold, without a repository.

use std::path::PathBuf;

use everpoint_app::AppError;
use everpoint_app::package::{ClusterInPackage, Opening, PackageListing};
use everpoint_core::FailureClass;
use everpoint_core::words::known;
use serde::Serialize;

use crate::cli::List;
use crate::render::Done;
use crate::render::number::size;
use crate::render::time::{local, local_exact};
use crate::session::Session;
use crate::signal::stop_flag;

/// The packages, the oldest first.
#[derive(Debug, Serialize)]
struct Packages {
    packages: Vec<PackageListing>,
}

pub(crate) fn run(session: &Session, arguments: &List) -> Result<Done, AppError> {
    let identities = session.package_identities(arguments.identity.as_deref())?;
    let stop = stop_flag();
    let open = |file: &PathBuf| Opening { file, identities: &identities, stop: &stop }.manifest();
    let mut manifests = arguments.package.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    manifests.sort_by_key(|manifest| manifest.made_at);
    let wanted = arguments.cluster.as_deref();
    let there =
        || manifests.iter().flat_map(|manifest| &manifest.clusters).map(|cluster| cluster.name.as_str());
    if let Some(name) = wanted.filter(|name| !there().any(|known| known == *name)) {
        let message = "none of the packages holds this cluster";
        return Err(AppError::new("package.no_cluster", FailureClass::Usage, "list", name, message)
            .hint(known(name, "clusters", there())));
    }
    let packages: Vec<_> = manifests.iter().map(|manifest| PackageListing::of(manifest, wanted)).collect();
    let text = packages.iter().map(text).collect::<Vec<_>>().join("\n");
    Ok(Done::new(&Packages { packages }, text))
}

fn text(package: &PackageListing) -> String {
    let mut out = format!("{}, made {}\n", package.name, local(&package.made_at));
    package.clusters.iter().for_each(|cluster| out.push_str(&cluster_text(cluster)));
    package.shortfalls.iter().for_each(|what| out.push_str(&format!("  not in it: {what}\n")));
    out
}

fn cluster_text(cluster: &ClusterInPackage) -> String {
    let mut out = match &cluster.base {
        Some(base) => format!(
            "  {}: backup {} of {}, {}\n",
            cluster.name,
            base.label,
            local(&base.stopped_at),
            size(base.size_bytes)
        ),
        None => format!("  {}: log only, for the packages before it\n", cluster.name),
    };
    for log in &cluster.log {
        let until = log.covered_until.as_deref().map(|at| format!(", everything up to {}", local_exact(at)));
        out.push_str(&format!(
            "    log of branch {} (timeline {}): {} to {}{}\n",
            log.branch,
            log.timeline,
            log.from_lsn,
            log.to_lsn,
            until.unwrap_or_default()
        ));
    }
    out
}
