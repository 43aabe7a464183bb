//! `check`: what must be right, and what to do where it is not.

use everpoint_app::AppError;
use everpoint_app::advice::Promise;
use everpoint_app::check::{self, CheckReport, CheckRequest};
use everpoint_core::FailureClass;
use everpoint_engine::{CheckLine, CheckState};

use super::{Clusters, check_offsite};
use crate::cli::MaybeCluster;
use crate::render::Done;
use crate::render::table::Table;
use crate::session::{Opened, Session, key};

pub(crate) fn run(session: &Session, arguments: &MaybeCluster) -> Result<Done, AppError> {
    if session.global.repo.is_none() {
        session.try_secrets()?;
    }
    let each = super::each(session, arguments, |opened| Ok(report(opened)))?;
    let reports: Vec<CheckReport> = each
        .into_iter()
        .map(|(name, report)| report.unwrap_or_else(|error| unopened(name, &error)))
        .collect();
    let text = reports.iter().map(text).collect::<Vec<_>>().join("\n");
    let code = if reports.iter().all(|report| report.ok) { 0 } else { FailureClass::Failed.exit_code() };
    Ok(Done::new(&Clusters { clusters: reports }, text).code(code))
}

/// A cluster that could not be looked at, among others that could.
fn unopened(name: String, error: &AppError) -> CheckReport {
    let (message, hint) = (error.to_string(), error.hint.clone());
    let line = CheckLine { name: "cluster".to_owned(), state: CheckState::Error, message, hint };
    CheckReport { name, ok: false, lines: vec![line] }
}

/// Checks one cluster.
pub(crate) fn report(opened: &Opened) -> CheckReport {
    let place = key::place(&opened.repository, opened.context.repository.is_encrypted());
    let promise = Promise { policy: opened.retention.policy(), schedule: opened.schedule.clone() };
    let more = opened.offsite.iter().flat_map(check_offsite::lines).collect();
    let slot = opened.slot.clone();
    let request = CheckRequest { slot, key: place, promise, more, others: opened.others() };
    check::run(&opened.context, &request)
}

/// A check's report for people.
pub(crate) fn text(report: &CheckReport) -> String {
    let mut table = Table::new(&[], &[]);
    let mut hints = Vec::new();
    for line in &report.lines {
        let state = match line.state {
            CheckState::Ok => "ok",
            CheckState::Warning => "WARNING",
            CheckState::Error => "ERROR",
        };
        let hint = line.hint.as_ref().filter(|_| line.state != CheckState::Ok);
        hints.extend(hint.map(|hint| format!("  {}: {hint}\n", line.name)));
        table.row(vec![state.to_owned(), line.name.clone(), line.message.clone()]);
    }
    let mut out = format!("{}\n{}", report.name, table.render(2).trim_start_matches('\n'));
    if !hints.is_empty() {
        out.push_str("what to do:\n");
        out.push_str(&hints.concat());
    }
    out
}
