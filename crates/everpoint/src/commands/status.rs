//! `status`: health now.

use everpoint_app::AppError;
use everpoint_app::offsite::OffsiteStatus;
use everpoint_app::status::{self, Health, StatusReport};
use everpoint_core::FailureClass;

use serde::Serialize;

use super::offsite::{status_of, status_text};
use crate::cli::MaybeCluster;
use crate::render::Done;
use crate::render::number::{seconds, size};
use crate::render::time::{local, local_exact};
use crate::session::Session;

#[derive(Serialize)]
struct Report {
    clusters: Vec<StatusReport>,
    /// Clusters of which nothing could be said, among others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<Unread>,
    offsite: Vec<OffsiteStatus>,
}

/// A cluster whose repository can't be read.
#[derive(Serialize)]
struct Unread {
    name: String,
    error: String,
}

pub(crate) fn run(session: &Session, arguments: &MaybeCluster) -> Result<Done, AppError> {
    let each = super::each(session, arguments, |opened| status::run(&opened.context, &opened.slot))?;
    let (mut clusters, mut failed, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    for (name, report) in each {
        match report {
            Ok(report) => {
                parts.push(text(&report));
                clusters.push(report);
            }
            Err(error) => {
                parts.push(format!("{name}: ERROR\n  {:<9}{error}\n", "!"));
                failed.push(Unread { name, error: error.to_string() });
            }
        }
    }
    let offsite = budgets(session);
    parts.extend(offsite.iter().map(status_text));
    let well = failed.is_empty() && clusters.iter().all(StatusReport::is_well);
    let code = if well { 0 } else { FailureClass::Failed.exit_code() };
    Ok(Done::new(&Report { clusters, failed, offsite }, parts.join("\n")).code(code))
}

/// How providers stand. A ledger that can't be read is told, and hides nothing of the clusters.
fn budgets(session: &Session) -> Vec<OffsiteStatus> {
    let Ok(config) = session.config() else { return Vec::new() };
    let enabled = config.offsite.values().filter(|provider| provider.enabled);
    let found = enabled.filter_map(|provider| match status_of(session, provider) {
        Ok(status) => Some(status),
        Err(error) => {
            session.warn(&format!("offsite {}: {error}", provider.name));
            None
        }
    });
    found.collect()
}

fn text(report: &StatusReport) -> String {
    let health = match report.health {
        Health::Ok => "ok",
        Health::Warning => "WARNING",
        Health::Error => "ERROR",
    };
    let mut out = format!("{}: {health}\n", report.name);
    let mut field = |name: &str, value: String| out.push_str(&format!("  {name:<9}{value}\n"));
    match &report.server {
        Some(server) => {
            let role = if server.in_recovery { "standby" } else { "primary" };
            field(
                "server",
                format!("{role}, {}, at {} on timeline {}", server.version, server.lsn, server.timeline),
            );
        }
        None => field("server", "does not answer".to_owned()),
    }
    match &report.capture {
        Some(capture) => {
            let behind =
                capture.lag_bytes.map(|bytes| format!(", {} behind", size(bytes))).unwrap_or_default();
            let until =
                capture.covered_until.as_deref().map(|at| format!(", everything up to {}", local(at)));
            field("capture", format!("stored to {}{behind}{}", capture.lsn, until.unwrap_or_default()));
        }
        None => field("capture", "nothing stored".to_owned()),
    }
    match (&report.last_backup, report.last_backup_age_seconds) {
        (Some(backup), Some(age)) => field("backup", format!("{}, {} ago", backup.label, seconds(age))),
        _ => field("backup", "none".to_owned()),
    }
    if let Some(window) = report.windows.last() {
        field("window", format!("{} to {}", local_exact(&window.from), local_exact(&window.to)));
    }
    for problem in &report.problems {
        field("!", problem.clone());
    }
    out
}
