//! After a package has arrived, a provider that keeps the newest few lets go of those that are too many.

use everpoint_core::thinning::{KeptPackage, repository_of, surplus};
use everpoint_offsite::Entry;
use everpoint_repo::OffsiteCall;

use super::{CallContext, covered};
use crate::{AppError, Event, Events};

/// Removes what is too many, of the packages of the repository of `newest` that this ledger has sent: other files are
/// somebody else's. That one is left over must not make the package look lost: it is a warning.
pub(super) fn thin(ctx: &CallContext<'_>, newest: &str, events: &dyn Events) {
    if let Some(keep) = ctx.provider.keeps()
        && let Err(error) = remove_surplus(ctx, newest, keep, events)
    {
        events.emit(Event::Warning(format!("old packages are not removed: {error}")));
    }
}

fn remove_surplus(
    ctx: &CallContext<'_>,
    newest: &str,
    keep: usize,
    events: &dyn Events,
) -> Result<(), AppError> {
    let entries = ctx.provider.list().map_err(|error| super::fetch::wrap(ctx.provider, error))?;
    let entries = entries.unwrap_or_default();
    let calls = ctx.ledger.calls()?;
    let packages: Vec<KeptPackage> = calls.iter().filter_map(|call| kept(call, newest, &entries)).collect();
    for name in surplus(&packages, keep) {
        ctx.provider.remove(name).map_err(|error| super::fetch::wrap(ctx.provider, error))?;
        events.emit(Event::Info(format!("removed {name}: newer packages hold what a restore needs")));
    }
    Ok(())
}

/// The package of a call, if the provider has it and the ledger says what is in it: nothing else is touched.
fn kept(call: &OffsiteCall, newest: &str, entries: &[Entry]) -> Option<KeptPackage> {
    let sending = call.sending.as_ref().filter(|_| call.is_upload())?;
    let repository = repository_of(&sending.name)?;
    let entry = entries.iter().find(|entry| entry.name == sending.name)?;
    let images = covered::images(&sending.contents)?;
    (repository_of(newest) == Some(repository)).then(|| KeptPackage {
        name: sending.name.clone(),
        whole: call.arrived() && entry.size == Some(sending.size),
        images,
    })
}
