//! One file a command: arguments in, use-case called, result rendered.

pub(crate) mod adopt;
pub(crate) mod anew;
pub(crate) mod archive_get;
pub(crate) mod archive_prefetch;
pub(crate) mod archive_push;
pub(crate) mod backup;
pub(crate) mod bundle;
pub(crate) mod capture;
pub(crate) mod check;
mod check_offsite;
pub(crate) mod completion;
pub(crate) mod expire;
pub(crate) mod forget;
pub(crate) mod help;
pub(crate) mod hold;
pub(crate) mod init;
pub(crate) mod key;
pub(crate) mod list;
mod list_packages;
pub(crate) mod man;
pub(crate) mod mock_offsite;
pub(crate) mod offsite;
pub(crate) mod protect;
pub(crate) mod restore;
pub(crate) mod restore_below;
pub(crate) mod restore_point;
pub(crate) mod status;

use everpoint_app::AppError;
use serde::Serialize;

use crate::cli::MaybeCluster;
use crate::session::{Opened, Session};

/// Answers about several clusters.
#[derive(Debug, Serialize)]
pub(crate) struct Clusters<T> {
    pub(crate) clusters: Vec<T>,
}

/// What is found of a cluster, by its name.
type Found<T> = (String, Result<T, AppError>);

/// Looks at the cluster that is named, or at all: one of several that can't be opened hides nothing of the others.
///
/// # Errors
/// If the clusters are not known, or the only one can't be looked at.
fn each<T>(
    session: &Session,
    arguments: &MaybeCluster,
    look: impl Fn(&Opened) -> Result<T, AppError>,
) -> Result<Vec<Found<T>>, AppError> {
    let names = session.cluster_names(arguments.cluster.as_deref())?;
    let only = names.len() == 1;
    let mut found = Vec::new();
    for name in names {
        match session.cluster(&name).and_then(|opened| look(&opened)) {
            Err(error) if only => return Err(error),
            result => found.push((name, result)),
        }
    }
    Ok(found)
}
