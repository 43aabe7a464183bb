//! `adopt`: pg_upgrade and initdb make another cluster of what the operator still calls by the same name.

use serde::Serialize;

use crate::{AppError, ClusterContext};

/// Who the server is now.
#[derive(Debug, Clone, Serialize)]
pub struct AdoptReport {
    /// Number of its identity.
    pub identity: u32,
    /// Its system identifier.
    pub system_identifier: String,
    /// Its version in words.
    pub server_version: String,
    /// The identity is new; else the server was known already.
    pub adopted: bool,
}

/// Gives the server the next identity, unless it is known.
///
/// # Errors
/// If the server can't be asked, or the repository can't be written.
pub fn run(context: &ClusterContext) -> Result<AdoptReport, AppError> {
    let server = context.engine.identify()?;
    let known = context.cluster.identities()?;
    let (identity, record) =
        context.cluster.identity_for(server.system, server.version, server.segment_size, true)?;
    Ok(AdoptReport {
        identity,
        system_identifier: record.system_identifier,
        server_version: server.version_text,
        adopted: known.iter().all(|(number, _)| *number != identity),
    })
}
