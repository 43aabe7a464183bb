//! One server under two names is captured under one of them only.

use everpoint_core::{FailureClass, Named, SeenBy, twin};
use everpoint_engine::ServerIdentity;
use everpoint_repo::ClusterRepo;

use crate::lineage::branch_id;
use crate::{AppError, ClusterContext, production};

/// The error of a cluster whose server has another name already.
pub const CODE: &str = "cluster.same_server";

/// Refuses a server that is protected under another name; `others`: those names, with what is stored of them. A server that
/// does not answer is nobody's yet.
///
/// # Errors
/// [`CODE`] if it is; if the repository can't be read.
pub fn refuse(context: &ClusterContext, others: &[ClusterRepo]) -> Result<(), AppError> {
    if others.is_empty() {
        return Ok(());
    }
    let Ok(server) = context.engine.identify() else { return Ok(()) };
    found(context, &server, others)?.map_or(Ok(()), Err)
}

/// As [`refuse`], and notes whose it is from now on, so that of two names that are new one comes first.
///
/// # Errors
/// As [`refuse`].
pub fn claim(context: &ClusterContext, others: &[ClusterRepo]) -> Result<(), AppError> {
    if others.is_empty() {
        return Ok(());
    }
    let Ok(server) = context.engine.identify() else { return Ok(()) };
    if let Some(error) = found(context, &server, others)? {
        return Err(error);
    }
    let (identity, _) =
        context.cluster.identity_for(server.system, server.version, server.segment_size, false)?;
    production::seen(context, &server, identity).map(drop)
}

pub(crate) fn found(
    context: &ClusterContext,
    server: &ServerIdentity,
    others: &[ClusterRepo],
) -> Result<Option<AppError>, AppError> {
    let ours = Named {
        system: Some(server.system.to_string()),
        branch: Some(branch_id(server.timeline, &server.history)),
        ..named(&context.cluster)?
    };
    // What of another name can't be read says nothing.
    let others: Vec<Named> = others.iter().filter_map(|other| named(other).ok()).collect();
    Ok(twin(&ours, &others).map(|other| {
        let message = format!(
            "its server is that of {} already: system identifier {}, timeline {}",
            other.name, server.system, server.timeline
        );
        let hint = format!(
            "one server has one name: take [cluster.{}] or [cluster.{}] out of the configuration",
            context.name, other.name
        );
        AppError::new(CODE, FailureClass::Usage, "protect", &context.name, message).hint(hint)
    }))
}

fn named(cluster: &ClusterRepo) -> Result<Named, AppError> {
    let identities = cluster.identities()?;
    let newest = identities.last();
    let seen = cluster.sightings()?;
    let mut by_server = seen.iter().filter(|seen| {
        seen.by == SeenBy::Server && newest.is_some_and(|(number, _)| *number == seen.identity)
    });
    let first = by_server.next();
    Ok(Named {
        name: cluster.name().to_owned(),
        system: newest.map(|(_, known)| known.system_identifier.clone()),
        branch: by_server.next_back().or(first).map(|seen| seen.branch.clone()),
        since: first.map(|seen| seen.at),
    })
}
