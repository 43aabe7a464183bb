//! What the packages hold that arrived, and what has to stay because it did not.

use everpoint_core::{FailureClass, LogNeed, LogOffset};
use everpoint_format::offsite::OffsiteOutcome;
use everpoint_repo::OffsiteLedger;
use serde_json::{Map, Value};

use crate::package::Contents;
use crate::{AppError, ClusterContext, upkeep};

/// What the packages of a provider that arrived hold together.
///
/// # Errors
/// If the ledger can't be read; class `Damaged` if it does not say what the last package that arrived holds.
pub fn contents(ledger: &OffsiteLedger) -> Result<Contents, AppError> {
    let last = ledger.last_arrived()?;
    last.and_then(|call| call.outcome)
        .map_or_else(|| Ok(Contents::default()), |outcome| read(ledger, &outcome))
}

fn read(ledger: &OffsiteLedger, outcome: &OffsiteOutcome) -> Result<Contents, AppError> {
    if outcome.contents.is_empty() {
        return Ok(Contents::default());
    }
    serde_json::from_value(Value::Object(outcome.contents.clone())).map_err(|error| {
        let object = format!("the ledger of {}", ledger.provider());
        let message = format!("what {} holds is not readable", outcome.name);
        AppError::new("offsite.contents", FailureClass::Damaged, "read", object, message).cause(error)
    })
}

/// As it is written into the ledger.
pub(super) fn record(contents: &Contents) -> Map<String, Value> {
    match serde_json::to_value(contents) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// The log of a cluster that no package which arrived holds: it has to stay. Before the first package has arrived nothing
/// is needed for its sake: it begins with the newest image, which always stays.
///
/// # Errors
/// If the repository can't be read.
pub fn needs(context: &ClusterContext, arrived: &Contents) -> Result<Vec<LogNeed>, AppError> {
    let Some(known) = arrived.clusters.get(&context.name) else { return Ok(Vec::new()) };
    let need = |branch: upkeep::Branch| {
        let id = branch.id.to_string();
        let held = known.iter().find(|held| held.identity == branch.identity && held.branch == id);
        let from = LogOffset(held.map_or(0, |held| held.to));
        LogNeed { identity: branch.identity, branch: branch.id, from }
    };
    Ok(upkeep::branches(context)?.into_iter().map(need).collect())
}
