//! The daily package: one file that restores every cluster, by itself or with the packages before it.

mod base;
mod build;
mod envelope;
mod import;
mod instructions;
mod listing;
mod log;
mod member;
mod planned;
mod read;
mod recipients;
mod report;
mod room;
mod scratch;
mod shrink;
#[cfg(test)]
mod tests;
mod unpack;

use std::collections::BTreeMap;

use everpoint_core::FailureClass;
use everpoint_engine::StopFlag;
use serde::{Deserialize, Serialize};

use crate::AppError;
pub use build::{BuildReport, BuildRequest, build};
pub use import::{ImportReport, Imported, import};
pub use listing::{BaseInPackage, ClusterInPackage, LogInPackage, PackageListing};
pub use log::joined;
pub(crate) use member::Summed;
pub use read::Opening;
pub use recipients::{identities_of_file, identity_of_key, recipients};
pub use report::PackagedReport;
pub use scratch::{Scratch, default_place as default_scratch, prepare as prepare_scratch};

/// Up to where packages hold the log of each cluster: recorded with every call, so that the next package goes on there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Contents {
    /// By name of the cluster.
    pub clusters: BTreeMap<String, Vec<ArrivedBranch>>,
}

/// Up to where the log of one branch is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrivedBranch {
    /// Number of its identity.
    pub identity: u32,
    /// The branch.
    pub branch: String,
    /// With this position the next package goes on: what of the branch lies before it is held, or of no use to any image.
    pub to: u64,
}

/// Code of the error that says that no package is needed, as nothing was written since the last one: no failure to a user.
pub const NOTHING_NEW: &str = "package.nothing_new";

fn stopped(stop: &StopFlag) -> Result<(), AppError> {
    if stop.is_set() {
        return Err(AppError::new(
            "stopped",
            FailureClass::Failed,
            "go on with",
            "the package",
            "it was asked to stop",
        )
        .hint("run the same command again"));
    }
    Ok(())
}

/// Name of a package: it can be found, and told from others, without any local state. `call`: number of the provider's call
/// that carries it, if it is known.
#[must_use]
pub fn name(
    repository: everpoint_format::seal::RepositoryId,
    now: everpoint_core::Micros,
    call: Option<u32>,
) -> String {
    let id = repository.to_string();
    let short = id.get(..8).unwrap_or(&id);
    let stamp = jiff::Timestamp::from_microsecond(now.0).unwrap_or_default().strftime("%Y%m%dT%H%M%SZ");
    let call = call.map_or_else(String::new, |number| format!("-{number}"));
    format!("everpoint-{short}-{stamp}{call}.tar.age")
}
