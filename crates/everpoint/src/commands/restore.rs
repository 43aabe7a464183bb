//! `restore`: brings a cluster back to a moment.

use std::path::Path;

use everpoint_app::AppError;
use everpoint_app::restore::{self, PlanReport, RestoreOutcome, RestoreReport, RestoreRequest, StartRequest};
use everpoint_core::FailureClass;
use jiff::tz::TimeZone;

use super::archive_get;
use crate::cli::Restore;
use crate::config::KeySource;
use crate::fetch::FetchService;
use crate::render::Done;
use crate::render::number::{seconds, size};
use crate::render::time::local;
use crate::session::{Opened, Session, fetch_program};
use crate::signal::stop_flag;
use crate::target;

pub(crate) fn run(session: &Session, arguments: Restore) -> Result<Done, AppError> {
    let target = target::parse(&arguments.to, &TimeZone::system())?;
    let opened = session.cluster(&arguments.cluster)?;
    let side = if arguments.exclusive { "just before " } else { "" };
    session.say(&format!("target: {side}{}", target.shown));
    let directory = std::path::absolute(&arguments.directory)
        .map_err(|error| AppError::io("find", &arguments.directory, error))?;
    if !arguments.dry_run && !arguments.start {
        warn_of_access(session, &opened, &directory);
    }
    // A server started by root runs as the owner of the directory, who may not read what root may.
    let as_root = rustix::process::geteuid().is_root() && arguments.start;
    let ahead = session.limits().fetch_ahead.unwrap_or(archive_get::FETCH_AHEAD);
    let service =
        as_root.then(|| FetchService::begin(opened.context.clone(), directory.clone(), ahead)).transpose()?;
    let socket = service.as_ref().map(FetchService::socket);
    let request = RestoreRequest {
        directory: directory.clone(),
        target: target.target,
        exclusive: arguments.exclusive,
        timeline: arguments.timeline,
        delta: arguments.delta,
        map: arguments.map,
        dry_run: arguments.dry_run,
        start: arguments
            .start
            .then(|| StartRequest { port: arguments.port, programs: opened.pg_bin.clone() }),
        replace_production: arguments.replace_production,
        workers: opened.context.workers,
        fetch_program: fetch_program(session, &opened.repository, socket.as_deref())?,
        stop: stop_flag(),
    };
    let outcome = {
        let progress = session.progress();
        restore::run(&opened.context, &request, &progress)?
    };
    Ok(match &outcome {
        RestoreOutcome::Done(report) => Done::new(&outcome, done_text(report, &directory)),
        RestoreOutcome::Plan(plan) => {
            let code = plan.shortfall.as_ref().map_or(0, |_| FailureClass::Shortfall.exit_code());
            Done::new(&outcome, plan_text(plan)).code(code)
        }
    })
}

/// A server that somebody else starts asks for the log as its own user, who needs the key and the repository for it.
fn warn_of_access(session: &Session, opened: &Opened, directory: &Path) {
    let encrypted = opened.context.repository.is_encrypted();
    if opened.repository.key == KeySource::Environment && encrypted {
        session
            .warn("the key came from the environment: start the restored server with EVERPOINT_KEY set, too");
    }
    if rustix::process::geteuid().is_root() {
        let mut needed = vec![opened.repository.url.clone()];
        if let KeySource::File(path) = &opened.repository.key {
            needed.push(path.display().to_string());
        }
        session.warn(&format!(
            "the server in {} will fetch its log as its own user, who must be able to read {}; with --start it need not",
            directory.display(),
            needed.join(" and ")
        ));
    }
}

fn done_text(report: &RestoreReport, directory: &Path) -> String {
    let mut out = format!(
        "restored from backup {} into {}: {} in {}\n",
        report.backup,
        directory.display(),
        size(report.bytes),
        seconds(report.seconds)
    );
    let commit = match (&report.reached.time, report.reached.xid) {
        (Some(time), Some(xid)) => format!(", last commit {} (transaction {xid})", local(time)),
        (Some(time), None) => format!(", last commit {}", local(time)),
        _ => String::new(),
    };
    let will = if report.port.is_some() { "reached" } else { "will reach" };
    out.push_str(&format!("{will} {}{commit}, timeline {}\n", report.reached.lsn, report.timeline));
    match report.port {
        Some(port) => out.push_str(&format!("accepts connections on port {port}\n")),
        None => out.push_str(&format!("start it with: pg_ctl -D {} start\n", directory.display())),
    }
    out
}

fn plan_text(plan: &PlanReport) -> String {
    let mut out = String::new();
    if let Some(shortfall) = &plan.shortfall {
        out.push_str(&format!("can't be reached: {}\n", shortfall.reason));
        let near = [("before", &shortfall.nearest_before), ("after", &shortfall.nearest_after)];
        for (side, place) in near {
            if let Some(place) = place {
                out.push_str(&format!("nearest {side}: --to '{place}'\n"));
            }
        }
        return out;
    }
    if let Some(backup) = &plan.backup {
        out.push_str(&format!("backup      {backup}\n"));
    }
    out.push_str(&format!("log         {} pieces\n", plan.segments));
    out.push_str(&format!("bytes       {}\n", size(plan.bytes)));
    out.push_str(&format!("about       {}\n", seconds(plan.estimate_seconds)));
    if let Some(reached) = &plan.reached {
        let time =
            reached.time.as_deref().map(|time| format!(", last commit {}", local(time))).unwrap_or_default();
        out.push_str(&format!("would reach {}{time}\n", reached.lsn));
    }
    for reason in &plan.reasons {
        out.push_str(&format!("because     {reason}\n"));
    }
    for warning in &plan.warnings {
        out.push_str(&format!("warning     {warning}\n"));
    }
    out
}
