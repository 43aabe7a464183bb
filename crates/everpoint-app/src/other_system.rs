//! A server whose system identifier is none of those that are stored: after pg_upgrade, or another one at the address. Its
//! positions say nothing about the stored log.

use everpoint_engine::ServerIdentity;

use crate::ClusterContext;
use crate::facts::Facts;

/// What is said of it, and what to do; `None`: it is known, or nothing is stored yet.
pub(crate) fn told(
    context: &ClusterContext,
    facts: &Facts,
    server: &ServerIdentity,
) -> Option<(String, String)> {
    let (_, known) = facts.identity.as_ref()?;
    let all = context.cluster.identities().unwrap_or_default();
    let system = server.system.to_string();
    // After pg_upgrade and back the server has an older identity again.
    if known.system_identifier == system || all.iter().any(|(_, it)| it.system_identifier == system) {
        return None;
    }
    let message = format!(
        "the repository holds another system under the name {}: system identifier {}, this server has {}; of this one nothing is \
         stored",
        context.name, known.system_identifier, server.system
    );
    let hint = format!(
        "after pg_upgrade, or if this server is to take the place of the old: everpoint adopt {}; another cluster needs a name of \
         its own in the configuration",
        context.name
    );
    Some((message, hint))
}
