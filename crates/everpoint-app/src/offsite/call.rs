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

impl Parcel<'_> {
    fn step(&self) -> Step<'_> {
        Step {
            request: "",
            name: self.name,
            size: self.size,
            sha256: self.sha256,
            contents: self.contents.clone(),
        }
    }
}

/// What a call is for, as the ledger has it.
struct Step<'a> {
    /// Empty: a file is sent.
    request: &'static str,
    name: &'a str,
    size: u64,
    sha256: &'a str,
    contents: Map<String, Value>,
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
    /// When it had arrived, by this machine's clock.
    pub at: String,
    /// The time that the provider's answer gave.
    pub provider_date: Option<String>,
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
    let send = || {
        let sent = ctx.provider.upload(parcel.name, parcel.size, Box::new(file.take(parcel.size)));
        sent.or_else(|error| cleared_up(ctx.provider, parcel, error))
    };
    let step = parcel.step();
    let (number, outcome, recorded, receipt) =
        make(ctx, &step, &format!("sending {}", parcel.name), events, send)?;
    Ok(CallReport {
        provider: ctx.ledger.provider().to_owned(),
        number,
        name: parcel.name.to_owned(),
        size: parcel.size,
        sha256: parcel.sha256.to_owned(),
        at: time(Micros(outcome.clock.wall)),
        provider_date: receipt.provider_date.map(|at| time(Micros(at))),
        url: receipt.url,
        recorded,
    })
}

/// Makes a call that the provider counts although no file is sent: `request` is `download` or `list`.
///
/// # Errors
/// As [`spend`].
pub(super) fn spend_asking(
    ctx: &CallContext<'_>,
    request: &'static str,
    name: &str,
    events: &dyn Events,
    ask: impl FnOnce() -> Result<(), ProviderError>,
) -> Result<(), AppError> {
    let step = Step { request, name, size: 0, sha256: "", contents: Map::new() };
    make(ctx, &step, &format!("{request} {name}"), events, || ask().map(|()| Receipt::default()))?;
    Ok(())
}

/// Claims, marks, acts, and writes down how it ended.
fn make(
    ctx: &CallContext<'_>,
    step: &Step<'_>,
    doing: &str,
    events: &dyn Events,
    act: impl FnOnce() -> Result<Receipt, ProviderError>,
) -> Result<(u32, OffsiteOutcome, bool, Receipt), AppError> {
    let marked = mark(ctx, step)?;
    events.emit(Event::Step(format!("{doing}: call {} of {}", marked.number, ctx.ledger.provider())));
    let done = if in_time(&marked.at, &ctx.clock.read()) {
        act()
    } else {
        let object = ctx.provider.describe();
        Err(ProviderError::new("send", object, ProviderErrorKind::Failed)
            .cause("this process stood still for too long before it could begin, or the clock was changed")
            .unsent())
    };
    let outcome = outcome(step, &done, &ctx.clock.read());
    let recorded = record(ctx, marked.number, &outcome, events);
    match done {
        Ok(receipt) => Ok((marked.number, outcome, recorded, receipt)),
        Err(error) => Err(failed(ctx, marked.number, outcome.call_status(), error)),
    }
}

/// A call without an answer has arrived if the provider has the whole file; it is asked where that is free.
fn cleared_up(
    provider: &dyn Provider,
    parcel: &Parcel<'_>,
    error: ProviderError,
) -> Result<Receipt, ProviderError> {
    let nobody_knows = error.sent && error.provider_date.is_none();
    if nobody_knows && provider.asks() && super::has(provider, parcel.name, parcel.size) {
        return Ok(Receipt::default());
    }
    Err(error)
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
fn mark(ctx: &CallContext<'_>, step: &Step<'_>) -> Result<Marked, AppError> {
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
            name: step.name.to_owned(),
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
            name: step.name.to_owned(),
            size: step.size,
            sha256: step.sha256.to_owned(),
            request: step.request.to_owned(),
            contents: step.contents.clone(),
        };
        if ctx.ledger.sending(number, &sending)? {
            return Ok(Marked { number, at });
        }
    }
    let message = "others take each call before this process does";
    Err(AppError::new("offsite.busy", FailureClass::Locked, "call", ctx.provider.describe(), message))
}

/// The number that may be called now, and whether it was claimed before.
pub(super) fn allowed(ctx: &CallContext<'_>, now: &ClockReading) -> Result<(u32, bool), AppError> {
    match may_call(&ctx.ledger.entries()?, ctx.policy, now) {
        BudgetDecision::Allowed { number, resumes } => Ok((number, resumes)),
        BudgetDecision::Refused { reason, next_at } => Err(refused(ctx, &reason, next_at)),
    }
}

/// The error of a refusal: no call was made.
fn refused(ctx: &CallContext<'_>, reason: &BudgetRefusal, next_at: Option<Micros>) -> AppError {
    let message = why(reason);
    let next =
        next_at.map_or_else(String::new, |next| format!("; the next call is allowed at {}", time(next)));
    AppError::new("offsite.budget_spent", FailureClass::BudgetSpent, "call", ctx.provider.describe(), message + &next)
        .hint("nothing was sent and no call was spent; the next package covers everything since the last that arrived")
}

/// Why no call is allowed, in words.
pub(super) fn why(reason: &BudgetRefusal) -> String {
    let list = |by: &[u32]| by.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    match reason {
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
    }
}

/// Half of the time is left for making the connection.
fn in_time(marked: &ClockReading, now: &ClockReading) -> bool {
    may_send(marked, now, Micros(SEND_WITHIN.0 / 2))
}

fn outcome(step: &Step<'_>, sent: &Result<Receipt, ProviderError>, now: &ClockReading) -> OffsiteOutcome {
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
        name: step.name.to_owned(),
        size: step.size,
        sha256: step.sha256.to_owned(),
        contents: step.contents.clone(),
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
    let mut made = AppError::new(error.code(), class, error.operation, error.object.clone(), error.reason());
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
