//! One server under two names is captured under one of them only.

use everpoint_core::{FailureClass, Named, SeenBy, holder, twin};
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

/// Refuses a server that is to be protected under a new name and has one already; `others`: what is stored of those, `asked`:
/// what their servers say where nothing is stored.
///
/// # Errors
/// [`CODE`] if it has.
pub fn refuse_new(
    name: &str,
    server: &ServerIdentity,
    others: &[ClusterRepo],
    asked: &[(String, ServerIdentity)],
) -> Result<(), AppError> {
    let stored = others.iter().filter_map(|other| named(other).ok()).filter(|other| other.system.is_some());
    let all: Vec<Named> = stored.chain(asked.iter().map(|(name, server)| of_server(name, server))).collect();
    match holder(&of_server(name, server), &all) {
        None => Ok(()),
        Some(other) => {
            let hint = format!(
                "nothing was written; one server has one name: everpoint status {0}, or everpoint forget {0} before it gets \
                 another; if only its address is another one now: the line `postgres =` of [cluster.{0}] in the configuration; \
                 if that one is lost, and only the repository knows {0}: the same command with --name {0}",
                other.name
            );
            Err(AppError::new(CODE, FailureClass::Usage, "protect", name, message(other, server)).hint(hint))
        }
    }
}

fn of_server(name: &str, server: &ServerIdentity) -> Named {
    Named {
        name: name.to_owned(),
        system: Some(server.system.to_string()),
        branch: Some(branch_id(server.timeline, &server.history)),
        since: None,
    }
}

fn message(other: &Named, server: &ServerIdentity) -> String {
    format!(
        "its server is that of {} already: system identifier {}, timeline {}",
        other.name, server.system, server.timeline
    )
}

pub(crate) fn found(
    context: &ClusterContext,
    server: &ServerIdentity,
    others: &[ClusterRepo],
) -> Result<Option<AppError>, AppError> {
    let ours = Named { since: named(&context.cluster)?.since, ..of_server(&context.name, server) };
    // What of another name can't be read says nothing.
    let others: Vec<Named> = others.iter().filter_map(|other| named(other).ok()).collect();
    Ok(twin(&ours, &others).map(|other| {
        let hint = format!(
            "one server has one name: take [cluster.{}] or [cluster.{}] out of the configuration. A clone of it is told from it \
             once it has a timeline of its own: stop the clone, create standby.signal in its data directory, start it, pg_ctl \
             promote",
            context.name, other.name
        );
        AppError::new(CODE, FailureClass::Usage, "protect", &context.name, message(other, server)).hint(hint)
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
