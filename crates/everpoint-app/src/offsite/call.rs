//! One call of an offsite provider around one file: claim, mark as sending, send, write down the outcome.
//!
//! The ledger decides who may send, not this process: of all that try, the one that creates the mark of the next number
//! does. A process that dies before the mark blocks nobody; one that dies after it has spent the call.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use everpoint_core::budget::{SEND_WITHIN, may_send};
use everpoint_core::{
    BudgetDecision, BudgetPolicy, BudgetRefusal, CallStatus, ClockReading, FailureClass, Micros, may_call,
};
use everpoint_format::offsite::{ClockRecord, OffsiteClaim, OffsiteOutcome, OffsiteSending};
use everpoint_offsite::{Provider, ProviderError, ProviderErrorKind, Receipt};
use everpoint_repo::OffsiteLedger;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Clock;
use crate::text::time;
use crate::{AppError, Event, Events};

/// How often it begins anew when others take the same step.
const ATTEMPTS: usize = 20;
/// How often the outcome is tried to be written.
const OUTCOME_ATTEMPTS: usize = 5;

/// With what a call is made.
pub struct CallContext<'a> {
    /// The ledger of the provider, in the one repository that holds it.
    pub ledger: &'a OffsiteLedger,
    /// The provider.
    pub provider: &'a dyn Provider,
    /// Its budget.
    pub policy: &'a BudgetPolicy,
    /// The clocks.
    pub clock: &'a dyn Clock,
    /// Who calls, in words.
    pub holder: &'a str,
}

/// A file that is to be sent, complete and verified.
#[derive(Debug, Clone)]
pub struct Parcel<'a> {
    /// Where it lies.
    pub path: &'a Path,
    /// Under which name it is sent.
    pub name: &'a str,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, 64 hex digits.
    pub sha256: &'a str,
    /// What it holds; written into the outcome.
    pub contents: Map<String, Value>,
}

/// A call whose file arrived.
#[derive(Debug, Clone, Serialize)]
pub struct CallReport {
    /// The provider's name.
    pub provider: String,
    /// Number of the call.
    pub number: u32,
    /// Name of the file.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, 64 hex digits.
    pub sha256: String,
    /// When it had arrived, by this machine's clock; microseconds since 1970 UTC.
    pub at: i64,
    /// The time that the provider's answer gave; microseconds since 1970 UTC.
    pub provider_date: Option<i64>,
    /// Where it lies, if the provider says so.
    pub url: Option<String>,
    /// Whether that was written into the ledger. If not, the next package covers the same again.
    pub recorded: bool,
}

/// What this process sends, and under which number.
struct Marked {
    number: u32,
    at: ClockReading,
}

/// Makes one call, if the budget allows it.
///
/// # Errors
/// `offsite.budget_spent` (class `BudgetSpent`) with the moment at which a call is allowed next; `offsite.busy` if others
/// take each step first; the provider's error, whose hint says whether the call was spent.
pub fn spend(
    ctx: &CallContext<'_>,
    parcel: &Parcel<'_>,
    events: &dyn Events,
) -> Result<CallReport, AppError> {
    let file = open(parcel)?;
    let marked = mark(ctx, parcel)?;
    events.emit(Event::Step(format!(
        "Sending {} as call {} of {}",
        parcel.name,
        marked.number,
        ctx.ledger.provider()
    )));
    let sent = if in_time(&marked.at, &ctx.clock.read()) {
        ctx.provider.upload(parcel.name, parcel.size, Box::new(file.take(parcel.size)))
    } else {
        let object = ctx.provider.describe();
        Err(ProviderError::new("send", object, ProviderErrorKind::Failed)
            .cause("this process stood still for too long before it could begin, or the clock was changed")
            .unsent())
    };
    let outcome = outcome(parcel, &sent, &ctx.clock.read());
    let recorded = record(ctx, marked.number, &outcome, events);
    match sent {
        Ok(receipt) => Ok(report(ctx, parcel, marked.number, &outcome, receipt, recorded)),
        Err(error) => Err(failed(ctx, marked.number, outcome.call_status(), error)),
    }
}

fn open(parcel: &Parcel<'_>) -> Result<File, AppError> {
    let wrap = |error| AppError::io("open", parcel.path, error);
    let file = File::open(parcel.path).map_err(wrap)?;
    let size = file.metadata().map_err(wrap)?.len();
    if size == parcel.size {
        return Ok(file);
    }
    let message = format!("it has {size} bytes, and not the {} that were verified", parcel.size);
    let object = parcel.path.display().to_string();
    Err(AppError::new("offsite.changed", FailureClass::Damaged, "send", object, message))
}

/// Claims the next call and marks it as about to be sent.
fn mark(ctx: &CallContext<'_>, parcel: &Parcel<'_>) -> Result<Marked, AppError> {
    let (host, process) = (host(), std::process::id());
    let token = OffsiteLedger::token()?;
    for _ in 0..ATTEMPTS {
        let now = ctx.clock.read();
        let (number, resumes) = allowed(ctx, &now)?;
        let claim = OffsiteClaim {
            clock: ClockRecord::from(&now),
            holder: ctx.holder.to_owned(),
            host: host.clone(),
            process,
            token: token.clone(),
            name: parcel.name.to_owned(),
        };
        if !resumes && !ctx.ledger.claim(number, &claim)? {
            continue;
        }
        // What was claimed before is seen by now: the decision counts all calls below this number.
        let at = ctx.clock.read();
        if allowed(ctx, &at)?.0 != number {
            continue;
        }
        let sending = OffsiteSending {
            clock: ClockRecord::from(&at),
            host: host.clone(),
            process,
            token: token.clone(),
            name: parcel.name.to_owned(),
            size: parcel.size,
            sha256: parcel.sha256.to_owned(),
        };
        if ctx.ledger.sending(number, &sending)? {
            return Ok(Marked { number, at });
        }
    }
    let message = "others take each call before this process does";
    Err(AppError::new("offsite.busy", FailureClass::Locked, "call", ctx.provider.describe(), message))
}

/// The number that may be called now, and whether it was claimed before.
fn allowed(ctx: &CallContext<'_>, now: &ClockReading) -> Result<(u32, bool), AppError> {
    match may_call(&ctx.ledger.entries()?, ctx.policy, now) {
        BudgetDecision::Allowed { number, resumes } => Ok((number, resumes)),
        BudgetDecision::Refused { reason, next_at } => Err(refused(ctx, &reason, next_at)),
    }
}

/// The error of a refusal: no call was made.
fn refused(ctx: &CallContext<'_>, reason: &BudgetRefusal, next_at: Option<Micros>) -> AppError {
    let list = |by: &[u32]| by.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let message = match reason {
        BudgetRefusal::Spent { by } if by.is_empty() => "its budget is no call at all".to_owned(),
        BudgetRefusal::Spent { by } => format!("its budget is spent (call {})", list(by)),
        BudgetRefusal::ClockSetBack { number, at } => format!(
            "call {number} was made at {}, which is later than now: this machine's clock was set back",
            time(*at)
        ),
        BudgetRefusal::ClocksDisagree { by, difference } => format!(
            "clocks disagree by {} s, and by one of them its budget is spent (call {})",
            difference / 1_000_000,
            list(by)
        ),
    };
    let next =
        next_at.map_or_else(String::new, |next| format!("; the next call is allowed at {}", time(next)));
    AppError::new("offsite.budget_spent", FailureClass::BudgetSpent, "call", ctx.provider.describe(), message + &next)
        .hint("nothing was sent and no call was spent; the next package covers everything since the last that arrived")
}

/// Half of the time is left for making the connection.
fn in_time(marked: &ClockReading, now: &ClockReading) -> bool {
    may_send(marked, now, Micros(SEND_WITHIN.0 / 2))
}

fn outcome(parcel: &Parcel<'_>, sent: &Result<Receipt, ProviderError>, now: &ClockReading) -> OffsiteOutcome {
    let (status, provider_date, message) = match sent {
        Ok(receipt) => (CallStatus::Arrived, receipt.provider_date, String::new()),
        Err(error) if !error.sent => (CallStatus::Unsent, None, explained(error)),
        // With a date there was an answer; without one it may have arrived all the same.
        Err(error) if error.provider_date.is_some() => {
            (CallStatus::Failed, error.provider_date, explained(error))
        }
        Err(error) => (CallStatus::Unknown, None, explained(error)),
    };
    OffsiteOutcome {
        status: OffsiteOutcome::word(status).to_owned(),
        clock: ClockRecord::from(now),
        provider_date,
        message,
        name: parcel.name.to_owned(),
        size: parcel.size,
        sha256: parcel.sha256.to_owned(),
        contents: parcel.contents.clone(),
    }
}

/// An error and its cause, in one sentence.
fn explained(error: &ProviderError) -> String {
    error.cause.as_ref().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// Writes the outcome down. Without it the call counts as spent, and as not arrived: safe both ways.
fn record(ctx: &CallContext<'_>, number: u32, outcome: &OffsiteOutcome, events: &dyn Events) -> bool {
    let mut tried = 0;
    loop {
        tried += 1;
        match ctx.ledger.outcome(number, outcome) {
            Ok(own) => return own,
            Err(error) if error.retryable && tried < OUTCOME_ATTEMPTS => {}
            Err(error) => {
                events.emit(Event::Warning(format!(
                    "the outcome of call {number} was not written down: {error}"
                )));
                return false;
            }
        }
    }
}

fn report(
    ctx: &CallContext<'_>,
    parcel: &Parcel<'_>,
    number: u32,
    outcome: &OffsiteOutcome,
    receipt: Receipt,
    recorded: bool,
) -> CallReport {
    CallReport {
        provider: ctx.ledger.provider().to_owned(),
        number,
        name: parcel.name.to_owned(),
        size: parcel.size,
        sha256: parcel.sha256.to_owned(),
        at: outcome.clock.wall,
        provider_date: receipt.provider_date,
        url: receipt.url,
        recorded,
    }
}

fn failed(ctx: &CallContext<'_>, number: u32, status: CallStatus, error: ProviderError) -> AppError {
    let class = match error.kind {
        ProviderErrorKind::NoCallLeft => FailureClass::BudgetSpent,
        ProviderErrorKind::Usage => FailureClass::Usage,
        _ => FailureClass::Failed,
    };
    let spent = match status {
        CallStatus::Unsent => format!("no byte was sent: call {number} counts for nothing"),
        CallStatus::Unknown => format!("nobody knows whether it arrived: call {number} counts as spent"),
        CallStatus::Arrived | CallStatus::Failed => format!("call {number} is spent"),
    };
    let mut made =
        AppError::new(error.code(), class, error.operation, error.object.clone(), explained(&error));
    made.hint = Some(error.hint().map_or_else(|| spent.clone(), |hint| format!("{hint}; {spent}")));
    made.retryable = error.retryable() && status == CallStatus::Unsent;
    if made.object.is_empty() {
        made.object = ctx.provider.describe();
    }
    made.cause(error)
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
