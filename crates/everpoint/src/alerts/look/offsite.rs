//! Offsite providers: what arrived, what failed, whether the day's call was made.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use everpoint_app::offsite::{self, OffsiteStatus, SystemClock};
use everpoint_core::alert::{self, AlertKey, AlertKind, LastCall, LastRun, Observation};
use everpoint_core::words::size;
use everpoint_core::{Due, Micros, due};

use super::{Look, seconds_of};
use crate::alerts::message::now;
use crate::api::Job;
use crate::config::Config;
use crate::config::offsite::OffsiteConfig;
use crate::metrics::Measure;
use crate::session::Session;

/// A ledger is read so often, and whenever a run has ended.
const READ_EVERY: Duration = Duration::from_secs(60);
/// A package may come so much later than its schedule says: the backup before it takes its time. Microseconds.
const PATIENCE: i64 = 3 * 3600 * 1_000_000;
/// Codes of errors that say that no call was left.
const REFUSED: [&str; 2] = ["offsite.budget_spent", "offsite.no_call_left"];

/// What was seen of each provider when it was looked at last.
#[derive(Debug, Default)]
pub(super) struct Seen {
    providers: BTreeMap<String, SeenProvider>,
}

#[derive(Debug, Clone)]
struct SeenProvider {
    read: Instant,
    /// The newest run that had ended.
    run: Option<i64>,
    /// The newest package that had arrived.
    arrived: Option<u32>,
}

impl Look {
    pub(super) fn look_at_providers(&mut self, session: &Session) {
        let Ok(config) = session.config() else { return };
        for provider in config.offsite.values().filter(|provider| provider.enabled) {
            let runs = self.latest(Some("package"), None);
            let of_provider = |job: &&Job| job.provider.as_deref() == Some(&provider.name);
            let run =
                runs.iter().filter(of_provider).find(|job| job.ended_at.is_some() && job.state != "skipped");
            let before = self.offsite.providers.get(&provider.name).cloned();
            let id = run.map(|job| job.id);
            if before.as_ref().is_some_and(|before| before.run == id && before.read.elapsed() < READ_EVERY) {
                continue;
            }
            let Some(status) = self.provider_status(session, provider) else { continue };
            let arrived = status.last_arrived.as_ref().map(|call| call.number);
            self.measure_provider(&status);
            self.judge_provider(config, &status, run);
            if let (Some(before), Some(last)) = (&before, &status.last_arrived)
                && before.arrived != arrived
            {
                let key = AlertKey::new(AlertKind::PackageDone, provider.name.as_str());
                let message = format!("{} arrived: {}", last.name, size(last.size));
                self.outbox.tell([Observation::Happened(key, message)]);
            }
            let seen = SeenProvider { read: Instant::now(), run: id, arrived };
            self.offsite.providers.insert(provider.name.clone(), seen);
        }
    }

    /// Read from a repository that is open already; `None` if none is, which has alerts of its own.
    fn provider_status(&self, session: &Session, provider: &OffsiteConfig) -> Option<OffsiteStatus> {
        let wanted = provider.repository.as_ref().map(|name| name.value.as_str());
        let url = session.repository_config(wanted).ok()?.url;
        let opened = self.opened.values().find(|opened| opened.repository.url == url)?;
        let ledger = opened.context.repository.offsite(&provider.name).ok()?;
        let status = offsite::status(&ledger, &provider.budget, &SystemClock, "");
        status
            .inspect_err(|error| tracing::warn!("the ledger of {} can't be read: {error}", provider.name))
            .ok()
    }

    fn measure_provider(&self, status: &OffsiteStatus) {
        let label = [status.provider.as_str()];
        self.metrics.set(Measure::OffsiteCallsLeft, &label, f64::from(status.left));
        self.metrics.set(Measure::OffsiteFailed, &label, f64::from(status.failed_since));
        let Some(last) = &status.last_arrived else { return };
        let end = last.ended_at.as_deref().and_then(seconds_of);
        self.metrics.set_known(Measure::OffsiteLastArrived, &label, end);
        self.metrics.set(Measure::OffsiteLastSize, &label, last.size as f64);
        let took = end.zip(seconds_of(&last.started_at)).map(|(end, begun)| (end - begun).max(0.0));
        self.metrics.set_known(Measure::OffsiteUploadSeconds, &label, took);
    }

    fn judge_provider(&self, config: &Config, status: &OffsiteStatus, run: Option<&Job>) {
        let name = status.provider.as_str();
        let call = last_call(status);
        let last = run.map(last_run);
        if let Some(health) = alert::delivery(call.as_ref(), last.as_ref()) {
            self.outbox.tell([alert::upload(name, &health)]);
        }
        let state = alert::budget_state(call.as_ref(), last.as_ref(), self.overdue(config, status, run));
        self.outbox.tell(alert::budget(name, &state));
        if let Some(report) = run.filter(|run| run.state == "ok").and_then(|run| run.report.as_ref()) {
            let missing =
                report.get("shortfalls").and_then(|found| found.as_array()).cloned().unwrap_or_default();
            let missing: Vec<&str> = missing.iter().filter_map(|text| text.as_str()).collect();
            if missing.is_empty() {
                self.right(AlertKind::PackageShort, name);
            } else {
                self.wrong(AlertKind::PackageShort, name, missing.join("; "));
            }
        }
    }

    /// Since when the day's package should have been on its way, in words.
    fn overdue(&self, config: &Config, status: &OffsiteStatus, run: Option<&Job>) -> Option<String> {
        let schedule = config.schedules.package.as_ref()?;
        let moment = |text: &str| seconds_of(text).map(|seconds| Micros((seconds * 1e6) as i64));
        let called = status.history.first().and_then(|call| moment(&call.started_at));
        let ran = run.and_then(|run| moment(&run.started_at));
        let begun =
            now().0.saturating_sub(i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX));
        let anchor = called.max(ran).unwrap_or(Micros(begun));
        let Due::Now { scheduled } = due(schedule, anchor, now()) else { return None };
        let late = now().0.saturating_sub(scheduled.0) > PATIENCE;
        late.then(|| {
            format!("a package was due at {} and is not on its way", everpoint_app::text::time(scheduled))
        })
    }
}

fn last_call(status: &OffsiteStatus) -> Option<LastCall> {
    let ended = |call: &&offsite::CallLine| {
        call.request == "upload" && matches!(call.state.as_str(), "arrived" | "failed" | "unknown")
    };
    let call = status.history.iter().find(ended)?;
    let at = Micros((seconds_of(call.ended_at.as_deref()?)? * 1e6) as i64);
    let failed = (call.state != "arrived").then(|| format!("call {}: {}", call.number, call.message));
    Some(LastCall { at, failed })
}

fn last_run(job: &Job) -> LastRun {
    let error = job.error.as_ref().map(|error| error.get("error").unwrap_or(error));
    let text = |field: &str| error.and_then(|error| error.get(field)?.as_str());
    let at = job.ended_at.as_deref().and_then(seconds_of).unwrap_or_default();
    LastRun {
        at: Micros((at * 1e6) as i64),
        failed: (job.state == "failed").then(|| text("message").unwrap_or("it does not say why").to_owned()),
        refused: text("code").is_some_and(|code| REFUSED.contains(&code)),
    }
}
