//! `expire`: lets go what the policy does not keep.

use std::time::Duration;

use everpoint_app::AppError;
use everpoint_app::drop_branch::{self, DropBranchReport};
use everpoint_app::expire::{self, ExpireReport, ExpireRequest};
use everpoint_app::list::WindowLine;
use everpoint_engine::StopFlag;

use super::Clusters;
use crate::cli::Expire;
use crate::render::Done;
use crate::render::number::size;
use crate::render::time::{local, local_exact};
use crate::session::{Opened, Session};
use crate::signal::stop_flag;

pub(crate) fn run(session: &Session, arguments: &Expire) -> Result<Done, AppError> {
    if let (Some(name), Some(branch)) = (&arguments.cluster, &arguments.branch) {
        let report = drop_branch::run(&session.cluster(name)?.context, branch, arguments.dry_run)?;
        return Ok(Done::new(&report, branch_text(&report)));
    }
    let mut clusters = Vec::new();
    for name in session.cluster_names(arguments.cluster.as_deref())? {
        let opened = session.cluster(&name)?;
        clusters.push(one(session, &opened, arguments)?);
    }
    let result = if arguments.dry_run { plan_text } else { done_text };
    let text = clusters.iter().map(result).collect::<Vec<_>>().join("\n");
    Ok(Done::new(&Clusters { clusters }, text))
}

fn branch_text(report: &DropBranchReport) -> String {
    let verb = if report.dry_run { "would go" } else { "is gone" };
    let mut out = format!(
        "{}: branch {} (timeline {}) {verb}: {} of log in {} objects",
        report.cluster,
        report.branch,
        report.timeline,
        size(report.log_bytes),
        report.log_objects
    );
    report.backups.iter().for_each(|label| out.push_str(&format!("\n  and backup {label}")));
    out
}

fn one(session: &Session, opened: &Opened, arguments: &Expire) -> Result<ExpireReport, AppError> {
    let mut request = request(session, opened, stop_flag())?;
    if arguments.now {
        request.grace = Duration::ZERO;
    }
    let progress = session.progress();
    request.dry_run = true;
    let plan = expire::run(&opened.context, &request, &progress)?;
    if arguments.dry_run {
        return Ok(plan);
    }
    // What goes is shown before it does.
    if !session.global.json {
        session.say(plan_text(&plan).trim_end());
    }
    request.dry_run = false;
    expire::run(&opened.context, &request, &progress)
}

/// A request as the configuration wants it; what no package holds yet stays.
///
/// # Errors
/// If the ledger of a provider can't be read.
pub(crate) fn request(session: &Session, opened: &Opened, stop: StopFlag) -> Result<ExpireRequest, AppError> {
    Ok(ExpireRequest {
        policy: opened.retention.policy(),
        dry_run: false,
        grace: opened.retention.grace(),
        needs: session.offsite_needs(opened)?,
        stop,
    })
}

fn plan_text(report: &ExpireReport) -> String {
    let mut out = format!("{}: every second since {} is kept\n", report.cluster, local(&report.window_from));
    for line in &report.kept {
        out.push_str(&format!("  stays {}: {}\n", line.label, line.reasons.join(", ")));
    }
    for line in &report.dropped {
        let ended = line.stopped_at.as_deref().map(|at| format!(" of {}", local(at))).unwrap_or_default();
        out.push_str(&format!("  goes  {}{ended}: {}\n", line.label, line.reason));
    }
    for point in &report.restore_points {
        out.push_str(&format!("  restore point {} of {} disappears\n", point.name, local(&point.time)));
    }
    if report.windows_before != report.windows_after {
        windows(&mut out, "can be restored now", &report.windows_before);
        windows(&mut out, "and after it", &report.windows_after);
    }
    if report.dry_run {
        out.push_str(&freed(report, "would be freed"));
    }
    out
}

fn windows(out: &mut String, what: &str, windows: &[WindowLine]) {
    for window in windows {
        out.push_str(&format!(
            "  {what}: {} to {} (timeline {})\n",
            local_exact(&window.from),
            local_exact(&window.to),
            window.timeline
        ));
    }
}

fn done_text(report: &ExpireReport) -> String {
    format!("{}: {} backups removed\n{}", report.cluster, report.dropped.len(), freed(report, "freed"))
}

fn freed(report: &ExpireReport, verb: &str) -> String {
    let mut out = format!(
        "  {} {verb}: {} of log in {} objects, {} packs\n",
        size(report.freed_bytes),
        size(report.log_bytes),
        report.log_objects,
        report.packs_removed
    );
    if report.packs_waiting_bytes > 0 {
        out.push_str(&format!(
            "  {} more when their tombstones are old enough\n",
            size(report.packs_waiting_bytes)
        ));
    }
    if let Some(waits) = &report.waits {
        out.push_str(&format!("  {waits}\n"));
    }
    out
}
