//! A slot by which somebody else receives: what it keeps, it keeps for another repository.

use std::time::Duration;

use everpoint_core::{FailureClass, LogFacts, LogKeeping, current_identity, held_by, taken};
use everpoint_engine::{Engine, ServerIdentity};
use everpoint_repo::ClusterRepo;

use crate::captured::Captured;
use crate::lineage::branch_id;
use crate::log_writer::LogWriter;
use crate::{AppError, ClusterContext, coverage, text};

/// The error of a repository that would have to take a slot from another one.
pub const CODE: &str = "capture.slot_held";

/// A capture that streams says more often up to when its log is whole.
const SILENT: f64 = 2.5;
/// What a capture that begins has received meanwhile, it has stored.
const AGAIN: Duration = Duration::from_millis(1500);

/// Refuses a cluster of which nothing is stored where somebody receives by its slot: to wait until that one restarts would be to
/// take the slot from the repository that it is kept for, and leave that one a gap. A server that can't be asked says nothing.
///
/// # Errors
/// [`CODE`].
pub fn refuse(
    name: &str,
    slot: &str,
    (engine, server): (&dyn Engine, &ServerIdentity),
    stored: Option<&ClusterRepo>,
) -> Result<(), AppError> {
    let Some(by) = engine.log_keeping().and_then(|keeping| held_by(&keeping.slots, slot)) else {
        return Ok(());
    };
    // What can't be read has errors of its own.
    if stored.is_some_and(|cluster| stores(cluster, server).unwrap_or(true)) {
        return Ok(());
    }
    let (message, hint) = told(name, slot, &by);
    let hint = format!("nothing was written; {hint}");
    Err(AppError::new(CODE, FailureClass::Usage, "protect", name, message).hint(hint))
}

fn stores(cluster: &ClusterRepo, server: &ServerIdentity) -> Result<bool, AppError> {
    let system = server.system.to_string();
    for (number, _) in cluster.identities()?.iter().filter(|(_, known)| known.system_identifier == system) {
        if LogWriter::resume_point(cluster, *number, server.segment_size)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is said of such a slot, and what to do.
pub(crate) fn told(name: &str, slot: &str, by: &str) -> (String, String) {
    let message = format!(
        "nothing of its server is stored here, and its slot {slot} is held by {by}: another Everpoint stores the log of {name}, \
         in another repository, which would get a gap"
    );
    let hint = "if that is the service: name its configuration with --config, or type this in its directory. To store the server \
                here as well, give it another name (--name), and with it a slot of its own. To take the place of the other one, \
                stop that first; after a crash the server lets go of the slot within a minute (wal_sender_timeout)";
    (message, hint.to_owned())
}

/// What is said, and what to do, where the slot of a cluster is held by somebody who has more of its log than is stored here.
/// Looked at twice, as what a capture of ours acknowledges is stored before.
pub(crate) fn elsewhere(
    context: &ClusterContext,
    log: &LogFacts,
    server: &ServerIdentity,
    captured: &Captured,
    slot: &str,
    keeping: &LogKeeping,
) -> Option<(String, String)> {
    let silent = |until: i64| (text::now().0 - until) as f64 / 1e6 > SILENT;
    let same = branch_id(server.timeline, &server.history) == captured.branch;
    if !same || !captured.covered_until.is_none_or(|until| silent(until.0)) {
        return None;
    }
    taken(&keeping.slots, slot, captured.position)?;
    std::thread::sleep(AGAIN);
    let slots = context.engine.log_keeping()?.slots;
    let branch = context.cluster.log(current_identity(log)?, captured.branch.clone(), server.segment_size);
    let stored = coverage::resume_position(&branch).ok()??.max(captured.position);
    let kept = taken(&slots, slot, stored)?.kept_from?;
    let by = held_by(&slots, slot)?;
    let message = format!(
        "the slot {slot} is held by {by}, which is no capture into this repository: it has the log up to {}, here it is stored \
         to {}",
        text::lsn(kept),
        text::lsn(stored)
    );
    let name = &context.name;
    let hint = format!(
        "what it has taken is a gap here: find the other everpoint of this server (another repository, or another machine) and \
         stop it, then: everpoint backup {name}"
    );
    Some((message, hint))
}
