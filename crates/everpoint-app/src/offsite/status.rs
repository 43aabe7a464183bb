//! `offsite status`: the budget, the calls, and what arrived.

use everpoint_core::budget::calls_left;
use everpoint_core::{BudgetDecision, BudgetPeriod, BudgetPolicy, CallStatus, LogOffset, Micros, may_call};
use everpoint_format::offsite::OffsiteOutcome;
use everpoint_repo::{OffsiteCall, OffsiteLedger};
use serde::Serialize;

use super::call::why;
use super::{Clock, contents};
use crate::AppError;
use crate::text::{lsn, time};

/// How a provider stands, as far as its ledger knows: it is not asked.
#[derive(Debug, Clone, Serialize)]
pub struct OffsiteStatus {
    /// Its name.
    pub provider: String,
    /// What and where it is.
    pub place: String,
    /// Calls that it takes in a period.
    pub calls: u32,
    /// The period, in words.
    pub period: String,
    /// Calls that may be made now.
    pub left: u32,
    /// Why none may be made now, in words.
    pub refused: Option<String>,
    /// When the next call is allowed, if none is now.
    pub next_call_at: Option<String>,
    /// The last package that arrived.
    pub last_arrived: Option<CallLine>,
    /// Calls since then that did not arrive.
    pub failed_since: u32,
    /// Up to where packages that arrived hold the log of each cluster.
    pub covered: Vec<CoveredLine>,
    /// All calls, the newest first.
    pub history: Vec<CallLine>,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallLine {
    /// Its number.
    pub number: u32,
    /// `upload`, `download` or `list`.
    pub request: String,
    /// Name of the file.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, 64 hex digits; empty if nothing was sent.
    pub sha256: String,
    /// When it began.
    pub started_at: String,
    /// When its end was known.
    pub ended_at: Option<String>,
    /// `claimed` (no byte was sent yet), `open` (it runs, or its process died), `arrived`, `failed`, `unknown`, `unsent`.
    pub state: String,
    /// Why it failed.
    pub message: String,
}

/// Up to where packages hold the log of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CoveredLine {
    /// Name of the cluster.
    pub cluster: String,
    /// Number of the identity.
    pub identity: u32,
    /// The branch.
    pub branch: String,
    /// First position that no package holds.
    pub to_lsn: String,
}

/// Reads the ledger. `place`: what and where the provider is, without anything secret.
///
/// # Errors
/// If it can't be read.
pub fn status(
    ledger: &OffsiteLedger,
    policy: &BudgetPolicy,
    clock: &dyn Clock,
    place: &str,
) -> Result<OffsiteStatus, AppError> {
    let calls = ledger.calls()?;
    let entries: Vec<_> = calls.iter().filter_map(OffsiteCall::entry).collect();
    let now = clock.read();
    let (refused, next) = match may_call(&entries, policy, &now) {
        BudgetDecision::Allowed { .. } => (None, None),
        BudgetDecision::Refused { reason, next_at } => (Some(why(&reason)), next_at.map(time)),
    };
    let last = calls.iter().rev().find(|call| call.arrived());
    let since = last.map_or(0, |call| call.number);
    let lost = |call: &&OffsiteCall| {
        let state = call.entry().map(|entry| entry.is_spent());
        call.number > since && call.is_upload() && state == Some(true)
    };
    Ok(OffsiteStatus {
        provider: ledger.provider().to_owned(),
        place: place.to_owned(),
        calls: policy.calls,
        period: period(&policy.period),
        left: calls_left(&entries, policy, &now),
        refused,
        next_call_at: next,
        last_arrived: last.map(CallLine::of),
        failed_since: u32::try_from(calls.iter().filter(lost).count()).unwrap_or(u32::MAX),
        covered: covered(&contents(ledger)?),
        history: calls.iter().rev().map(CallLine::of).collect(),
    })
}

/// A period in words.
#[must_use]
pub fn period(period: &BudgetPeriod) -> String {
    match period {
        BudgetPeriod::CalendarDay(zone) => {
            format!("a calendar day of {}", zone.iana_name().unwrap_or("its zone"))
        }
        BudgetPeriod::Rolling24h => "any 24 hours".to_owned(),
    }
}

fn covered(contents: &crate::package::Contents) -> Vec<CoveredLine> {
    let line = |cluster: &String, held: &crate::package::ArrivedBranch| CoveredLine {
        cluster: cluster.clone(),
        identity: held.identity,
        branch: held.branch.clone(),
        to_lsn: lsn(LogOffset(held.to)),
    };
    let clusters = contents.clusters.iter();
    clusters.flat_map(|(name, held)| held.iter().map(move |held| line(name, held))).collect()
}

impl CallLine {
    /// What the ledger knows of a call.
    #[must_use]
    pub fn of(call: &OffsiteCall) -> Self {
        let claim = call.claim.as_ref();
        let sending = call.sending.as_ref();
        let outcome = call.outcome.as_ref();
        let begun = sending.map(|sending| &sending.clock).or(claim.map(|claim| &claim.clock));
        let request = sending.map(|sending| sending.request.as_str()).filter(|word| !word.is_empty());
        let name = sending.map(|sending| &sending.name).or(claim.map(|claim| &claim.name));
        let state = match (outcome, sending) {
            (Some(outcome), _) => OffsiteOutcome::word(outcome.call_status()),
            (None, Some(_)) => "open",
            (None, None) => "claimed",
        };
        // What was asked for was answered; no file of ours arrived anywhere.
        let answered = request.is_some() && outcome.is_some_and(|o| o.call_status() == CallStatus::Arrived);
        Self {
            number: call.number,
            request: request.unwrap_or("upload").to_owned(),
            name: name.cloned().unwrap_or_default(),
            size: sending.map_or(0, |sending| sending.size),
            sha256: sending.map(|sending| sending.sha256.clone()).unwrap_or_default(),
            started_at: begun.map(|clock| time(Micros(clock.wall))).unwrap_or_default(),
            ended_at: outcome.map(|outcome| time(Micros(outcome.clock.wall))),
            state: if answered { "answered" } else { state }.to_owned(),
            message: outcome.map(|outcome| outcome.message.clone()).unwrap_or_default(),
        }
    }
}
