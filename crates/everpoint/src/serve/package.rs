//! When the package of a provider is sent: by schedule, as far as the budget allows.

use std::sync::Mutex;

use everpoint_app::offsite::{self, SystemClock};
use everpoint_app::{AppError, text};
use everpoint_core::budget::PackageTurn;
use everpoint_core::{Again, Due, Micros, RetryPolicy, again, due};

use super::due::last_try;
use super::job::{Kind, Order};
use super::runner::{Runner, lock};
use crate::config::Schedules;
use crate::config::offsite::OffsiteConfig;

/// A package that could not be made or sent is tried again so soon: as long as the call is not spent, or when the next one
/// is allowed.
const RETRY: RetryPolicy = RetryPolicy { pause: 15 * 60 * 1_000_000, times: u32::MAX };
/// The ledger is looked at again after so long, even where it allows nothing before: others write into it, and clocks are
/// set. In microseconds.
const LOOK_AGAIN: i64 = 600_000_000;

/// A package waits for its budget.
struct Wait {
    /// From when to when there is no need to look.
    from: Micros,
    to: Micros,
    /// When a call is allowed.
    next: Option<Micros>,
}

/// A provider to which packages go.
pub(crate) struct Destination {
    pub(crate) name: String,
    waits: Mutex<Option<Wait>>,
}

impl Destination {
    /// Of the configuration; `None` if it is not enabled.
    pub(crate) fn of(config: &OffsiteConfig) -> Option<Self> {
        config.enabled.then(|| Self { name: config.name.clone(), waits: Mutex::default() })
    }

    fn waits(&self, now: Micros) -> bool {
        lock(&self.waits).as_ref().is_some_and(|wait| (wait.from..wait.to).contains(&now))
    }

    /// Returns whether that is news.
    fn wait(&self, now: Micros, next: Option<Micros>) -> bool {
        let again = Micros(now.0.saturating_add(LOOK_AGAIN));
        let to = next.map_or(again, |next| next.min(again));
        let before = lock(&self.waits).replace(Wait { from: now, to, next });
        before.is_none_or(|before| before.next != next)
    }
}

impl Runner {
    /// The run that is due for a provider.
    pub(super) fn due_package(
        &self,
        to: &Destination,
        schedules: &Schedules,
        now: Micros,
    ) -> Result<Option<Order>, AppError> {
        if !schedules.enabled || self.works_hard() || to.waits(now) {
            return Ok(None);
        }
        let Some((wanted, tried)) = self.wanted_package(to, schedules, now)? else { return Ok(None) };
        let order = Order { tried, ..Order::new(Kind::Package, &to.name) };
        match self.package_turn(to, wanted) {
            // A ledger that can't be read: the run tells why.
            Ok(PackageTurn::Go) | Err(_) => return Ok(Some(order)),
            Ok(PackageTurn::Done(at)) => self.skip_package(to, tried, at, now)?,
            Ok(PackageTurn::Wait(next)) => {
                if to.wait(now, next) {
                    let until = next.map_or_else(|| "some later day".to_owned(), text::time);
                    tracing::info!(provider = to.name, "the package waits for a call until {until}");
                }
            }
        }
        Ok(None)
    }

    /// Since when a package is wanted, and as which try.
    fn wanted_package(
        &self,
        to: &Destination,
        schedules: &Schedules,
        now: Micros,
    ) -> Result<Option<(Micros, u32)>, AppError> {
        let last = self.history.last(Kind::Package, &to.name)?;
        if let Some(last) = &last
            && let Again::At(at, tried) = again(RETRY, &last_try(last))
        {
            return Ok((at <= now).then_some((last.started, tried)));
        }
        let Some(schedule) = &schedules.package else { return Ok(None) };
        let anchor = match &last {
            Some(last) => last.started,
            None if self.history.knows(Kind::Package, &to.name)? => {
                self.history.known_since(Kind::Package, &to.name, now)?
            }
            // A history that is new, or was lost, knows of no run: the ledger tells what there was.
            None => {
                let called = self.last_upload(to).unwrap_or(now).min(now);
                self.history.known_since(Kind::Package, &to.name, called)?
            }
        };
        Ok(match due(schedule, anchor, now) {
            Due::Now { scheduled } => Some((scheduled, 0)),
            Due::At(_) | Due::Never => None,
        })
    }

    /// When a call was made last to send a package, if that can be told.
    fn last_upload(&self, to: &Destination) -> Option<Micros> {
        let session = self.quiet_session();
        let ledger = session.ledger(session.offsite(Some(&to.name)).ok()?).ok()?;
        let calls = ledger.ledger.calls().ok()?;
        let last = calls.iter().rev().find(|call| call.is_upload())?;
        Some(last.entry()?.claimed.wall)
    }

    fn package_turn(&self, to: &Destination, wanted: Micros) -> Result<PackageTurn, AppError> {
        let session = self.quiet_session();
        let config = session.offsite(Some(&to.name))?;
        let ledger = session.ledger(config)?;
        offsite::turn(&ledger.ledger, &config.budget, wanted, &SystemClock)
    }

    /// Another package serves: that is remembered, and the schedule goes on.
    fn skip_package(&self, to: &Destination, tried: u32, at: Micros, now: Micros) -> Result<(), AppError> {
        let id = self.history.begin(Kind::Package, &to.name, tried, "running", now)?;
        let at = text::time(at);
        let report = serde_json::json!({ "served_by_call_at": at });
        self.history.end(id, "skipped", Some(&report), None, now)?;
        tracing::info!(provider = to.name, "no package is needed: that of {at} arrived");
        Ok(())
    }
}
