//! `offsite status`, `push`, `list` and `fetch`: what goes through a provider.

use std::io::{BufRead as _, IsTerminal as _};

use everpoint_app::offsite::{
    self, CallContext, CallLine, FetchRequest, OffsiteStatus, PushReport, PushRequest, SystemClock,
};
use everpoint_app::package::NOTHING_NEW;
use everpoint_app::{AppError, Events};
use everpoint_core::FailureClass;
use everpoint_engine::StopFlag;
use everpoint_offsite::{Entry, Provider};
use serde::Serialize;

use crate::cli::{OffsiteFetch, OffsiteList, OffsitePush, OffsiteStatus as StatusArguments};
use crate::config::offsite::OffsiteConfig;
use crate::render::number::size;
use crate::render::time::local;
use crate::render::{Done, note};
use crate::session::{Ledger, Session};
use crate::signal::stop_flag;

#[derive(Serialize)]
struct Providers<T> {
    providers: Vec<T>,
}

#[derive(Serialize)]
struct Listed {
    provider: String,
    calls: Vec<CallLine>,
    /// `None`: it was not asked, or can't be.
    remote: Option<Vec<Entry>>,
}

/// What a call is made with.
fn context<'a>(
    config: &'a OffsiteConfig,
    ledger: &'a Ledger,
    provider: &'a dyn Provider,
    holder: &'a str,
) -> CallContext<'a> {
    CallContext { ledger: &ledger.ledger, provider, policy: &config.budget, clock: &SystemClock, holder }
}

/// How a provider stands.
///
/// # Errors
/// If its ledger can't be read.
pub(crate) fn status_of(session: &Session, config: &OffsiteConfig) -> Result<OffsiteStatus, AppError> {
    let ledger = session.ledger(config)?;
    let disabled = if config.enabled { "" } else { "; not enabled: nothing is sent" };
    let place = format!("{}{disabled}", session.describe(config));
    offsite::status(&ledger.ledger, &config.budget, &SystemClock, &place)
}

/// The report where no package was needed.
pub(crate) fn nothing_sent(error: &AppError) -> serde_json::Value {
    serde_json::json!({ "sent": false, "reason": error.message })
}

/// Makes the package and spends a call on it.
///
/// # Errors
/// As [`offsite::push`].
pub(crate) fn push_to(
    session: &Session,
    config: &OffsiteConfig,
    holder: &str,
    stop: StopFlag,
    events: &dyn Events,
) -> Result<PushReport, AppError> {
    let provider = session.provider(config)?;
    let ledger = session.ledger(config)?;
    let parcels = session.parcels(config, &ledger)?;
    let request = PushRequest {
        directory: session.package_scratch(),
        recipients: parcels.recipients,
        identity: parcels.identity,
        limit: config.limit,
        shortfalls: parcels.left_out,
        stop,
    };
    let ctx = context(config, &ledger, provider.as_ref(), holder);
    offsite::push(&ctx, &parcels.clusters, request, events)
}

pub(super) fn status(session: &Session, arguments: &StatusArguments) -> Result<Done, AppError> {
    let mut providers = Vec::new();
    for config in chosen(session, arguments.provider.as_deref())? {
        providers.push(status_of(session, config)?);
    }
    let text = providers.iter().map(status_text).collect::<Vec<_>>().join("\n");
    Ok(Done::new(&Providers { providers }, text))
}

pub(super) fn push(session: &Session, arguments: &OffsitePush) -> Result<Done, AppError> {
    let config = session.offsite_enabled(arguments.provider.as_deref())?;
    if !arguments.yes {
        let before = status_of(session, config)?;
        // Who can't spend a call need not be asked whether to.
        if before.refused.is_none() {
            let left = before.left;
            let what = format!("This spends a call of {}; it has {left} left in this period.", before.place);
            confirm(&what, "push")?;
        }
    }
    let report = match push_to(session, config, "offsite push", stop_flag(), &session.progress()) {
        Err(error) if error.code == NOTHING_NEW => {
            return Ok(Done::new(&nothing_sent(&error), format!("{}; no call was spent\n", error.message)));
        }
        pushed => pushed?,
    };
    Ok(Done::new(&report, push_text(&report)))
}

pub(super) fn list(session: &Session, arguments: &OffsiteList) -> Result<Done, AppError> {
    let (mut providers, mut text) = (Vec::new(), String::new());
    let chosen = chosen(session, arguments.provider.as_deref())?;
    for config in &chosen {
        let ledger = ledger_at_hand(session, config, arguments.remote)?;
        let calls = ledger.as_ref().map(|ledger| ledger.ledger.calls()).transpose()?.unwrap_or_default();
        let remote = match remote(session, config, ledger.as_ref(), arguments) {
            // One of several that does not answer hides nothing of the others.
            Err(error) if chosen.len() > 1 => {
                session.warn(&error.to_string());
                None
            }
            found => found?,
        };
        let calls: Vec<CallLine> = calls.iter().rev().map(CallLine::of).collect();
        let listed = Listed { provider: config.name.clone(), calls, remote };
        text.push_str(&list_text(&listed));
        providers.push(listed);
    }
    Ok(Done::new(&Providers { providers }, text))
}

/// What the provider says that it has, if it is to be asked and can be.
fn remote(
    session: &Session,
    config: &OffsiteConfig,
    ledger: Option<&Ledger>,
    arguments: &OffsiteList,
) -> Result<Option<Vec<Entry>>, AppError> {
    if !arguments.remote {
        return Ok(None);
    }
    if !config.place.lists() {
        session.warn(&format!("{} can't be asked what it has: nothing in its table says how", config.name));
        return Ok(None);
    }
    if config.counts.list && !arguments.yes {
        confirm(&format!("{} counts this request: it spends a call.", config.name), "list --remote")?;
    }
    let provider = session.provider(config)?;
    let ctx = ledger.map(|ledger| context(config, ledger, provider.as_ref(), "list"));
    let found = offsite::list_remote(provider.as_ref(), ctx.as_ref(), &session.progress())?.files;
    if found.is_none() {
        session.warn(&format!("{} can't be asked what it has", config.name));
    }
    Ok(found)
}

pub(super) fn fetch(session: &Session, arguments: &OffsiteFetch) -> Result<Done, AppError> {
    let config = session.offsite(arguments.provider.as_deref())?;
    let provider = session.provider(config)?;
    let ledger = ledger_at_hand(session, config, true)?;
    if config.counts.download && !arguments.yes {
        confirm(&format!("{} counts downloads: this spends a call.", config.name), "fetch")?;
    }
    let request = FetchRequest { reference: arguments.reference.clone(), file: arguments.file.clone() };
    let ctx = ledger.as_ref().map(|ledger| context(config, ledger, provider.as_ref(), "fetch"));
    let report = offsite::fetch(provider.as_ref(), ctx.as_ref(), &request, &session.progress())?;
    let compared = if report.compared { "it is what was sent" } else { "not compared: no ledger knows it" };
    let text = format!("{}: {}, {compared}\n", report.file.display(), size(report.size));
    Ok(Done::new(&report, text))
}

/// The provider of this name, or all.
fn chosen<'a>(session: &'a Session, name: Option<&str>) -> Result<Vec<&'a OffsiteConfig>, AppError> {
    if name.is_none() && session.config()?.offsite.len() > 1 {
        return Ok(session.config()?.offsite.values().collect());
    }
    session.offsite(name).map(|one| vec![one])
}

/// After a disaster there may be no repository: then the provider alone has to do, if that is `enough`.
fn ledger_at_hand(
    session: &Session,
    config: &OffsiteConfig,
    enough: bool,
) -> Result<Option<Ledger>, AppError> {
    match session.ledger(config) {
        Ok(ledger) => Ok(Some(ledger)),
        Err(error) if enough => {
            session.warn(&format!("without the ledger: {error}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Asks on a terminal.
fn confirm(what: &str, command: &str) -> Result<(), AppError> {
    let refused = |message: &str| {
        let error = AppError::new("offsite.not_confirmed", FailureClass::Usage, "spend", "a call", message);
        Err(error.hint(format!(
            "to do it without a question, give `everpoint offsite {command}` the option --yes"
        )))
    };
    if !std::io::stdin().is_terminal() {
        return refused("nobody is there to confirm it");
    }
    note(&format!("{what} Go on? [y/N]"));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match (read, answer.trim().to_ascii_lowercase().as_str()) {
        (Ok(_), "y" | "yes") => Ok(()),
        _ => refused("it was not confirmed"),
    }
}

fn push_text(report: &PushReport) -> String {
    let call = &report.call;
    let mut out =
        format!("{} arrived: {}, call {} of {}\n", call.name, size(call.size), call.number, call.provider);
    for cluster in &report.clusters {
        let base =
            cluster.base.as_ref().map_or_else(|| "no image".to_owned(), |label| format!("image {label}"));
        let to =
            cluster.to_time.as_ref().map_or_else(String::new, |at| format!(", restores to {}", local(at)));
        out.push_str(&format!("  {}: {base}, {} segments of log{to}\n", cluster.name, cluster.segments));
    }
    for shortfall in &report.shortfalls {
        out.push_str(&format!("  missing: {shortfall}\n"));
    }
    if let Some(next) = &report.next_call_at {
        out.push_str(&format!("the next call is allowed at {}\n", local(next)));
    }
    out
}

/// A paragraph of how a provider stands.
pub(crate) fn status_text(status: &OffsiteStatus) -> String {
    let mut out = format!("{} ({}): ", status.provider, status.place);
    match (&status.refused, &status.next_call_at) {
        (None, _) => {
            out.push_str(&format!("{} of {} calls left in {}\n", status.left, status.calls, status.period))
        }
        (Some(why), None) => out.push_str(&format!("no call now: {why}\n")),
        (Some(why), Some(next)) => {
            out.push_str(&format!("no call now: {why}; the next is allowed at {}\n", local(next)));
        }
    }
    match &status.last_arrived {
        None => out.push_str("  no package has arrived yet\n"),
        Some(last) => {
            let at = last.ended_at.as_deref().map(local).unwrap_or_default();
            out.push_str(&format!("  last arrived: {} of {}, {at}\n", last.name, size(last.size)));
        }
    }
    if status.failed_since > 0 {
        out.push_str(&format!("  calls since then that did not arrive: {}\n", status.failed_since));
    }
    for line in &status.covered {
        let several = status.covered.iter().filter(|it| it.cluster == line.cluster).count() > 1;
        let branch = if several { format!(" of branch {}", line.branch) } else { String::new() };
        out.push_str(&format!("  {}: packages hold the log{branch} up to {}\n", line.cluster, line.to_lsn));
    }
    out
}

fn list_text(listed: &Listed) -> String {
    let mut out = format!("{}\n", listed.provider);
    for call in &listed.calls {
        let why = if call.message.is_empty() { String::new() } else { format!(": {}", call.message) };
        let (number, at) = (call.number, local(&call.started_at));
        out.push_str(&format!(
            "  {number:>4}  {at}  {:<8}  {:>9}  {}{why}\n",
            call.state,
            size(call.size),
            call.name
        ));
    }
    for entry in listed.remote.iter().flatten() {
        let bytes = entry.size.map(size).unwrap_or_default();
        out.push_str(&format!("  there: {}  {bytes}\n", entry.name));
    }
    out
}
