//! When the package of a provider is sent: by schedule, and again where that can still help.

use everpoint_app::AppError;
use everpoint_core::{BudgetPeriod, Due, Micros, Retry, RetryPolicy, due, retry};

use super::history::JobRow;
use super::job::{Kind, Order};
use super::runner::Runner;
use crate::commands::offsite as offsite_command;
use crate::config::offsite::OffsiteConfig;
use crate::session::Session;

/// A package that could not be made or sent is tried again so soon, as long as the call is not spent.
const RETRY: RetryPolicy = RetryPolicy { pause: 15 * 60 * 1_000_000, times: u32::MAX };
/// Word of the note that says when the next call is allowed.
const NEXT_CALL: &str = "next call";

/// A provider to which packages go.
pub(crate) struct Destination {
    pub(crate) name: String,
    /// Its budget counts any 24 hours: then the schedule slides.
    slides: bool,
}

impl Destination {
    /// Of the configuration; `None` if it is not enabled.
    pub(crate) fn of(config: &OffsiteConfig) -> Option<Self> {
        let slides = config.budget.period == BudgetPeriod::Rolling24h;
        config.enabled.then(|| Self { name: config.name.clone(), slides })
    }
}

impl Runner {
    /// The run that is due for a provider.
    pub(super) fn due_package(&self, to: &Destination, now: Micros) -> Result<Option<Order>, AppError> {
        if self.is_running(Kind::Package, &to.name) {
            return Ok(None);
        }
        let last = self.history.last(Kind::Package, &to.name)?;
        if let Some((at, tried)) =
            last.as_ref().map(|last| self.package_again(to, last)).transpose()?.flatten()
        {
            return Ok((at <= now).then(|| Order { tried, ..Order::new(Kind::Package, &to.name) }));
        }
        let Some(schedule) = &self.schedules.package else { return Ok(None) };
        let anchor = match &last {
            Some(last) => last.started,
            None => self.history.known_since(Kind::Package, &to.name, now)?,
        };
        let is_due = matches!(due(schedule, anchor, now), Due::Now { .. });
        Ok(is_due.then(|| Order::new(Kind::Package, &to.name)))
    }

    /// When it is tried again, and as which try. Where the call is spent that is refused, and waits for the next day.
    fn package_again(&self, to: &Destination, last: &JobRow) -> Result<Option<(Micros, u32)>, AppError> {
        Ok(match last.state.as_str() {
            "failed" => match retry(RETRY, last.tried, last.ended.unwrap_or(last.started)) {
                Retry::At(at, tried) => Some((at, tried)),
                Retry::No => None,
            },
            "interrupted" => Some((last.started, last.tried)),
            "skipped" if to.slides => {
                let next = self.history.noted(&to.name, NEXT_CALL)?;
                next.and_then(|at| at.parse().ok()).map(|at| (Micros(at), last.tried))
            }
            _ => None,
        })
    }

    /// Remembers when the next call is allowed.
    pub(super) fn note_next_call(
        &self,
        session: &Session,
        provider: &str,
        now: Micros,
    ) -> Result<(), AppError> {
        let status = offsite_command::status_of(session, session.offsite(Some(provider))?)?;
        let next = status.next_call_at.and_then(|at| at.parse::<jiff::Timestamp>().ok());
        let next = next.map(|at| at.as_microsecond().to_string());
        self.history.note(provider, NEXT_CALL, next.as_deref(), now)
    }
}
