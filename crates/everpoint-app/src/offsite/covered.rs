//! What the packages hold that arrived, and what has to stay because it did not.

use std::collections::BTreeMap;

use everpoint_core::{FailureClass, LogNeed, LogOffset};
use everpoint_format::offsite::OffsiteOutcome;
use everpoint_repo::OffsiteLedger;
use serde_json::{Map, Value};

use crate::package::{Contents, PackagedReport};
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

/// Under this key the ledger says of each cluster of a package whether its image is in it.
const IMAGES: &str = "images";

/// As it is written into the ledger: what all packages hold together, and which images this one holds.
pub(super) fn record(contents: &Contents, packaged: &[PackagedReport]) -> Map<String, Value> {
    let Ok(Value::Object(mut map)) = serde_json::to_value(contents) else { return Map::new() };
    let images = packaged.iter().map(|cluster| (cluster.name.clone(), Value::Bool(cluster.base.is_some())));
    map.insert(IMAGES.to_owned(), Value::Object(images.collect()));
    map
}

/// The images of a package; `None`: its record does not say.
pub(super) fn images(contents: &Map<String, Value>) -> Option<BTreeMap<String, bool>> {
    serde_json::from_value(contents.get(IMAGES)?.clone()).ok()
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
