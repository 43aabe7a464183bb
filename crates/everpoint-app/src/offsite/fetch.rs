//! `offsite fetch` and `offsite list --remote`: what the provider has. A request that it counts is a call of the budget.

use std::path::PathBuf;

use everpoint_core::FailureClass;
use everpoint_engine::beside;
use everpoint_offsite::{Entry, Provider, ProviderError};
use everpoint_repo::OffsiteCall;
use serde::Serialize;

use super::CallContext;
use super::call::spend_asking;
use crate::package::Summed;
use crate::{AppError, Event, Events};

/// What to fetch.
pub struct FetchRequest {
    /// Name of the package; or the number of its call, or `latest`, if the ledger is at hand.
    pub reference: String,
    /// Where to put it; must not be there yet.
    pub file: PathBuf,
}

/// A package that was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FetchReport {
    /// Its name.
    pub name: String,
    /// Where it lies.
    pub file: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// Its SHA-256, 64 hex digits.
    pub sha256: String,
    /// It is what was sent, as the ledger knows. Without the ledger only opening it tells whether it is whole.
    pub compared: bool,
}

/// What the provider says that it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemoteList {
    /// Its files; `None`: it can't be asked.
    pub files: Option<Vec<Entry>>,
}

/// Fetches a package. `ctx`: with the ledger, if it is at hand; on an empty machine it is not.
///
/// # Errors
/// If the provider does not give it, it can't be written, or is not what was sent (class `Damaged`; nothing stays then).
pub fn fetch(
    provider: &dyn Provider,
    ctx: Option<&CallContext<'_>>,
    request: &FetchRequest,
    events: &dyn Events,
) -> Result<FetchReport, AppError> {
    let calls = ctx.map(|ctx| ctx.ledger.calls()).transpose()?.unwrap_or_default();
    let known = known(&calls, &request.reference);
    if known.is_none() && request.reference == "latest" {
        return Err(no_latest());
    }
    if known.is_none() && !request.reference.ends_with(".age") {
        return Err(unknown(&request.reference, &calls));
    }
    let name = known.map_or(request.reference.as_str(), |sent| sent.name.as_str());
    if request.file.exists() {
        let object = request.file.display().to_string();
        let error =
            AppError::new("offsite.file_exists", FailureClass::Usage, "write", object, "it is there already");
        return Err(error.hint("name a file that does not exist yet"));
    }
    let parent = request.file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.map_or_else(|| PathBuf::from("."), PathBuf::from);
    let partial = tempfile::Builder::new()
        .prefix(".everpoint-fetch-")
        .tempfile_in(&directory)
        .map_err(|error| AppError::io("make a file in", &directory, error))?;
    let mut out = Summed::new(partial.as_file());
    let counted = provider.counts().download;
    match ctx.filter(|_| counted) {
        Some(ctx) => {
            spend_asking(ctx, "download", name, events, || provider.download(name, &mut out).map(|_| ()))?;
        }
        None => {
            events.emit(Event::Step(format!("fetching {name}")));
            provider.download(name, &mut out).map_err(|error| wrap(provider, error))?;
        }
    }
    let (size, sha256) = out.into_parts().1.finish();
    if let Some(sent) = known.filter(|sent| (sent.size, &sent.sha256) != (size, &sha256)) {
        let message = format!("{size} bytes came that are not the {} that were sent", sent.size);
        let error = AppError::new("offsite.changed", FailureClass::Damaged, "fetch", name, message);
        return Err(error.hint("fetch it again, or fetch another package: everpoint offsite list"));
    }
    let io = |error| AppError::io("write", &request.file, error);
    partial.as_file().sync_all().map_err(io)?;
    beside::give(partial.as_file(), &directory).map_err(io)?;
    partial.persist_noclobber(&request.file).map_err(|error| io(error.error))?;
    beside::sync_directory(&directory).map_err(io)?;
    Ok(FetchReport {
        name: name.to_owned(),
        file: request.file.clone(),
        size,
        sha256,
        compared: known.is_some(),
    })
}

/// Asks the provider what it has.
///
/// # Errors
/// If it can't be reached, or its answer can't be understood; of the budget, if that counts.
pub fn list_remote(
    provider: &dyn Provider,
    ctx: Option<&CallContext<'_>>,
    events: &dyn Events,
) -> Result<RemoteList, AppError> {
    let Some(ctx) = ctx.filter(|_| provider.counts().list) else {
        let files = provider.list().map_err(|error| wrap(provider, error))?;
        return Ok(RemoteList { files });
    };
    let mut files = None;
    spend_asking(ctx, "list", "", events, || provider.list().map(|found| files = found))?;
    Ok(RemoteList { files })
}

/// What was sent, of a package that arrived.
fn known<'a>(
    calls: &'a [OffsiteCall],
    reference: &str,
) -> Option<&'a everpoint_format::offsite::OffsiteSending> {
    let number = reference.parse::<u32>().ok();
    let mut uploads = calls.iter().rev().filter(|call| call.is_upload());
    let found = uploads.find(|call| {
        let named = call.sending.as_ref().is_some_and(|sending| sending.name == reference);
        named || number == Some(call.number) || (reference == "latest" && call.arrived())
    });
    found?.sending.as_ref()
}

/// Neither a call of the ledger nor what a package can be called: to ask for it may spend a call, and gives nothing.
fn unknown(reference: &str, calls: &[OffsiteCall]) -> AppError {
    let message = "no call of that number or name is known, and no package is called so";
    let uploads = calls.iter().filter(|call| call.is_upload());
    let names = uploads.filter_map(|call| call.sending.as_ref()).map(|sending| sending.name.as_str());
    let there = everpoint_core::words::known(reference, "packages", names);
    AppError::new("offsite.unknown_package", FailureClass::Usage, "fetch", reference, message)
        .hint(format!("{there}; where the provider can be asked: everpoint offsite list --remote"))
}

fn no_latest() -> AppError {
    let message = "no package is known to have arrived";
    AppError::new("offsite.none_arrived", FailureClass::Failed, "fetch", "the latest package", message)
        .hint("ask the provider: everpoint offsite list --remote; then fetch it by its name")
}

pub(super) fn wrap(provider: &dyn Provider, error: ProviderError) -> AppError {
    let object = if error.object.is_empty() { provider.describe() } else { error.object.clone() };
    let class = match error.kind {
        everpoint_offsite::ProviderErrorKind::Usage => FailureClass::Usage,
        everpoint_offsite::ProviderErrorKind::NoCallLeft => FailureClass::BudgetSpent,
        _ => FailureClass::Failed,
    };
    let mut made = AppError::new(error.code(), class, error.operation, object, error.reason());
    made.hint = error.hint().map(str::to_owned);
    // Nothing was spent.
    made.retryable = error.retryable() || error.kind == everpoint_offsite::ProviderErrorKind::Stalled;
    made.cause(error)
}
