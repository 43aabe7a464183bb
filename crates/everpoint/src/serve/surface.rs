//! What others see of the daemon: HTTP API, metrics, alerts, traces.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use everpoint_app::{AppError, text};
use everpoint_core::FailureClass;
use everpoint_core::alert::{Observation, Severity};

use super::history::{Filter, JobRow};
use super::job::{Kind, Order};
use super::runner::Runner;
use super::watch::GIVEN_UP;
use crate::alerts::{Looker, Outbox, Senders};
use crate::api::{self, Ask, Daemon, Job, JobFilter, Server};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::session::Session;

/// What fires, and what waits to be sent.
const ALERTS_FILE: &str = "alerting.json";

/// All of it, running. Ends when dropped, in the order of its fields.
pub(super) struct Surface {
    _server: Option<Server>,
    _looker: Looker,
    _senders: Senders,
    outbox: Arc<Outbox>,
}

impl Surface {
    /// Starts it.
    ///
    /// # Errors
    /// Class `Usage`: the configuration of the API or of a sink can't be used.
    pub(super) fn start(config: &Config, runner: &Arc<Runner>, state: &Path) -> Result<Self, AppError> {
        let metrics = Arc::new(Metrics::default());
        let outbox = Outbox::new(config.alerts.clone(), state.join(ALERTS_FILE), Arc::clone(&metrics));
        let outbox = Arc::new(outbox);
        let view: Arc<dyn Daemon> =
            Arc::new(View { runner: Arc::clone(runner), outbox: Arc::clone(&outbox) });
        let server = api::start(&config.api, Arc::clone(&view), Arc::clone(&metrics))?;
        if let Some(server) = &server {
            tracing::info!("the API listens on {}", server.address());
        }
        let senders = Senders::start(&outbox, &runner.traces)?;
        let looker = Looker::start(view, Arc::clone(&outbox), metrics)?;
        Ok(Self { _server: server, _looker: looker, _senders: senders, outbox })
    }

    /// Looks whether it could be started, but for the address.
    ///
    /// # Errors
    /// As [`Surface::start`].
    pub(super) fn try_out(config: &Config, runner: &Runner) -> Result<(), AppError> {
        api::try_out(&config.api)?;
        Senders::try_out(&config.alerts, &runner.traces)
    }

    /// Something was seen that none of its own threads looks at.
    pub(super) fn tell(&self, observation: Observation) {
        self.outbox.tell([observation]);
    }
}

struct View {
    runner: Arc<Runner>,
    outbox: Arc<Outbox>,
}

impl Daemon for View {
    fn session(&self) -> Session {
        self.runner.quiet_session()
    }

    fn generation(&self) -> u64 {
        self.runner.current().generation
    }

    fn ask(&self, ask: Ask) -> Result<Job, AppError> {
        let order = match ask {
            Ask::Backup { cluster, mode, labels } => {
                Order { mode, labels, ..Order::new(Kind::Backup, &cluster) }
            }
            Ask::Bundle { cluster } => Order::new(Kind::Bundle, &cluster),
            Ask::Expire { cluster } => Order::new(Kind::Expire, &cluster),
            Ask::Restore { cluster, wanted } => {
                Order { restore: Some(wanted), ..Order::new(Kind::Restore, &cluster) }
            }
            Ask::Package { provider } => Order::new(Kind::Package, &provider),
        };
        let id = self.runner.start(order, text::now())?;
        let gone =
            || AppError::new("internal", FailureClass::Failed, "find", "the job", "it is not in the history");
        self.runner.history.job(id)?.map(shown).ok_or_else(gone)
    }

    fn job(&self, id: i64) -> Result<Option<Job>, AppError> {
        Ok(self.runner.history.job(id)?.map(shown))
    }

    fn jobs(&self, filter: &JobFilter) -> Result<Vec<Job>, AppError> {
        let filter = Filter {
            kind: filter.kind.as_deref(),
            cluster: filter.cluster.as_deref(),
            state: filter.state.as_deref(),
            limit: i64::from(filter.limit),
        };
        Ok(self.runner.history.list(&filter)?.into_iter().map(shown).collect())
    }

    fn capture_error(&self, cluster: &str) -> Option<String> {
        self.runner.current().watched.iter().find(|watched| watched.cluster == cluster)?.error()
    }

    fn slot_given_up(&self, cluster: &str) -> Option<String> {
        self.runner.history.noted(cluster, GIVEN_UP).unwrap_or_else(|error| {
            tracing::warn!("{error}");
            None
        })
    }

    fn needs_backup(&self, cluster: &str, why: &str) {
        // One that runs now may be what was missing.
        if !self.runner.is_running(Kind::Backup, cluster) {
            self.runner.want_backup(cluster, why);
        }
    }

    fn not_ready(&self) -> Vec<String> {
        let current = self.runner.current();
        if current.watched.is_empty() {
            // Nothing is captured yet, whatever is configured.
            return current.config.clusters.keys().cloned().collect();
        }
        let ill = current.watched.iter().filter(|watched| !watched.is_well()).map(|bad| bad.cluster.clone());
        // What alerts call critical is not ready: they have waited until it is more than noise.
        let firing = self.outbox.firing().into_iter().map(|(key, ..)| key);
        let critical = firing.filter(|key| key.kind.severity() == Severity::Critical).map(|key| key.subject);
        ill.chain(critical).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn alerts(&self) -> Vec<api::FiringAlert> {
        let shown = |(key, since, message): (everpoint_core::alert::AlertKey, _, _)| api::FiringAlert {
            kind: key.kind.word(),
            subject: key.subject,
            severity: key.kind.severity().word(),
            since: text::time(since),
            message,
        };
        self.outbox.firing().into_iter().map(shown).collect()
    }
}

fn shown(row: JobRow) -> Job {
    let of = Some(row.cluster).filter(|name| !name.is_empty());
    let (provider, cluster) = if row.kind == Kind::Package.word() { (of, None) } else { (None, of) };
    Job {
        id: row.id,
        kind: row.kind,
        cluster,
        provider,
        tried: row.tried,
        state: row.state,
        started_at: text::time(row.started),
        ended_at: row.ended.map(text::time),
        report: row.report,
        error: row.error,
    }
}
