//! `offsite push`: builds the package of all clusters, proves it, and spends a call on it.

use std::path::PathBuf;

use everpoint_core::{BudgetDecision, may_call};
use everpoint_engine::StopFlag;
use serde::Serialize;

use super::call::{CallContext, CallReport, Parcel, allowed, spend};
use super::thin::thin;
use super::{covered, settle};
use crate::package::{self, BuildRequest, PackagedReport, Scratch};
use crate::text::time;
use crate::{AppError, ClusterContext, Event, Events};

/// What is sent.
pub struct PushRequest {
    /// Directory in which the package is made; nothing of it stays there.
    pub directory: PathBuf,
    /// To whom it is encrypted.
    pub recipients: Vec<age::x25519::Recipient>,
    /// Opens what was made, so that all of it is read back before it is sent.
    pub identity: Option<age::x25519::Identity>,
    /// Most bytes that the provider takes.
    pub limit: Option<u64>,
    /// What is known to be missing before it begins, in words.
    pub shortfalls: Vec<String>,
    /// Asks to stop.
    pub stop: StopFlag,
}

/// A package that arrived.
#[derive(Debug, Clone, Serialize)]
pub struct PushReport {
    /// The call.
    #[serde(flatten)]
    pub call: CallReport,
    /// All of it was decrypted and compared before it was sent; else the bytes on disk were.
    pub read_back: bool,
    /// What of each cluster is in it, by priority.
    pub clusters: Vec<PackagedReport>,
    /// What should be in it and is not, in words.
    pub shortfalls: Vec<String>,
    /// When the next call is allowed.
    pub next_call_at: Option<String>,
}

/// Spends a call on the package of these clusters, which stand by priority. Nothing is built if no call is allowed.
///
/// # Errors
/// `offsite.budget_spent` (class `BudgetSpent`); what [`package::build`] says, then no call was spent; what
/// [`spend`] says, whose hint tells whether the call was.
pub fn push(
    ctx: &CallContext<'_>,
    clusters: &[ClusterContext],
    request: PushRequest,
    events: &dyn Events,
) -> Result<PushReport, AppError> {
    let Some(first) = clusters.first() else {
        let class = everpoint_core::FailureClass::Usage;
        let message = request.shortfalls.join("; ");
        return Err(AppError::new("package.no_cluster", class, "make", "a package of no cluster", message));
    };
    settle::settle(ctx, events)?;
    let (number, _) = allowed(ctx, &ctx.clock.read())?;
    // A provider that is not well now would waste the call. It is not asked where that is a call itself.
    if !ctx.provider.counts().health {
        ctx.provider.health().map_err(|error| unwell(ctx, error))?;
    }
    let arrived = covered::contents(ctx.ledger)?;
    // Killed during the call, this process leaves the package behind: the next one takes it away.
    let scratch = Scratch::new(&request.directory)?;
    let build = BuildRequest {
        name: package::name(first.repository.id(), ctx.clock.read().wall, Some(number)),
        directory: scratch.path().to_owned(),
        recipients: request.recipients,
        limit: request.limit,
        arrived: arrived.clone(),
        identity: request.identity,
        shortfalls: request.shortfalls,
        stop: request.stop,
    };
    let built = package::build(clusters, &build, events)?;
    for shortfall in &built.shortfalls {
        events.emit(Event::Warning(shortfall.clone()));
    }
    let parcel = Parcel {
        path: &built.file,
        name: &built.name,
        size: built.size,
        sha256: &built.sha256,
        contents: covered::record(&package::joined(&arrived, &built.contents), &built.clusters),
    };
    let call = spend(ctx, &parcel, events)?;
    thin(ctx, &built.name, events);
    let next = match may_call(&ctx.ledger.entries()?, ctx.policy, &ctx.clock.read()) {
        BudgetDecision::Allowed { .. } => None,
        BudgetDecision::Refused { next_at, .. } => next_at.map(time),
    };
    Ok(PushReport {
        call,
        read_back: built.read_back,
        clusters: built.clusters,
        shortfalls: built.shortfalls,
        next_call_at: next,
    })
}

fn unwell(ctx: &CallContext<'_>, error: everpoint_offsite::ProviderError) -> AppError {
    let class = everpoint_core::FailureClass::Failed;
    let mut made = AppError::new("offsite.unwell", class, "send to", ctx.provider.describe(), error.reason());
    made.retryable = true;
    let hint = "nothing was sent and no call was spent; it is tried again later";
    made.hint(error.hint().map_or_else(|| hint.to_owned(), |more| format!("{more}; {hint}"))).cause(error)
}
