//! `key rotate`: a repository gets a new key; no stored object is rewritten.

use std::sync::Arc;

use everpoint_core::FailureClass;
use everpoint_format::keyslot::{AgeIdentity, KeyText};
use everpoint_repo::Repository;
use serde::Serialize;

use crate::AppError;

/// What was done.
#[derive(Debug, Clone, Serialize)]
pub struct RotateReport {
    /// Where the repository is.
    pub repository: String,
    /// Number of the key slot that the new key opens.
    pub slot: u32,
    /// Numbers of the slots that were removed: their keys no longer open the repository.
    pub retired: Vec<u32>,
}

/// The age identity of a key and the recipient that belongs to it (`age1…`).
///
/// # Errors
/// If it can't be made of this key.
pub fn age_identity(key: &KeyText) -> Result<(AgeIdentity, String), AppError> {
    let failed = |message: String| {
        AppError::new("key.age", FailureClass::Failed, "make the age identity of", "the key", message)
    };
    let identity = key.age_identity().map_err(|error| failed(error.to_string()))?;
    let parsed: age::x25519::Identity =
        identity.reveal().parse().map_err(|why: &str| failed(why.to_owned()))?;
    Ok((identity, parsed.to_public().to_string()))
}

/// Adds a slot for `new` and proves that it opens the repository. `stored` is called then, to put the new key where
/// it will be found; only after it succeeded are the older slots removed, unless `keep_old`.
///
/// # Errors
/// If a step failed: the old key still opens the repository then.
pub fn rotate(
    repository: &Repository,
    old: &KeyText,
    new: &KeyText,
    keep_old: bool,
    stored: &mut dyn FnMut() -> Result<(), AppError>,
) -> Result<RotateReport, AppError> {
    let slot = repository.rotate_key(old, new)?;
    Repository::open(Arc::clone(repository.store()), Some(new))?;
    stored()?;
    let mut retired = Vec::new();
    if !keep_old {
        for older in repository.slots()?.into_iter().filter(|number| *number != slot) {
            repository.retire_slot(older)?;
            retired.push(older);
        }
    }
    Ok(RotateReport { repository: repository.store().describe(), slot, retired })
}
