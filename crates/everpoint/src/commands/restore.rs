//! `restore`: brings a cluster back to a moment.

use std::path::Path;

use everpoint_app::AppError;
use everpoint_app::package::{self, ImportReport, Opening};
use everpoint_app::restore::{self, PlanReport, RestoreOutcome, RestoreReport, RestoreRequest, StartRequest};
use everpoint_core::FailureClass;
use everpoint_engine::{NextSteps, user_name};

use super::archive_get;
use crate::access;
use crate::cli::Restore;
use crate::config::{self, KeySource};
use crate::fetch::FetchService;
use crate::render::Done;
use crate::render::number::{seconds, size};
use crate::render::time::local;
use crate::session::{Opened, Session, Temporary, fetch_program};
use crate::signal::stop_flag;
use crate::target;
use crate::zone::Clock;

pub(crate) fn run(session: &Session, arguments: Restore) -> Result<Done, AppError> {
    let target = target::parse(&arguments.to, &Clock::machine())?;
    if arguments.package.is_empty() {
        let opened = session.stored_cluster(&arguments.cluster)?;
        return from(session, arguments, target, &opened, None);
    }
    let (temporary, imported) = from_packages(session, &arguments)?;
    from(session, arguments, target, &temporary.opened, Some(imported))
}

/// Puts the packages into a repository that lives as long as the restore: an empty one, or, with `--repo`, over that.
fn from_packages(session: &Session, arguments: &Restore) -> Result<(Temporary, ImportReport), AppError> {
    let temporary = match session.global.repo {
        Some(_) => session.layered(&arguments.cluster, &session.repository_config(None)?)?,
        None => session.temporary(&arguments.cluster)?,
    };
    let identities = session.package_identities(arguments.identity.as_deref())?;
    let stop = stop_flag();
    let openings: Vec<_> =
        arguments.package.iter().map(|file| Opening { file, identities: &identities, stop: &stop }).collect();
    let imported = package::import(&temporary.opened.context, &openings, &session.progress())?;
    Ok((temporary, imported))
}

/// `packages`: what was put into the repository, which then is gone when the restored server is started by hand: the log
/// goes beside the image.
fn from(
    session: &Session,
    arguments: Restore,
    target: target::Parsed,
    opened: &Opened,
    packages: Option<ImportReport>,
) -> Result<Done, AppError> {
    let side = if arguments.exclusive { "just before " } else { "" };
    session.say(&format!("target: {side}{}", target.shown));
    let directory = std::path::absolute(&arguments.directory)
        .map_err(|error| AppError::io("find", &arguments.directory, error))?;
    if arguments.start {
        enterable(&directory)?;
    }
    let fetches = if arguments.start { may_run(&directory) } else { may_fetch(session, opened, &directory) };
    let stage_log = packages.is_some() || arguments.stage_log || !fetches;
    if !arguments.dry_run && !arguments.start && !stage_log {
        warn_of_access(session, opened);
    }
    // A server started by root runs as the owner of the directory, who may not read what root may.
    let served = arguments.start && !arguments.dry_run && !stage_log;
    let as_root = rustix::process::geteuid().is_root() && served;
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
        server_is_stopped: arguments.server_is_stopped,
        confined: false,
        // Packages lie in a repository that only this restore knows.
        repository: packages.iter().flat_map(|it| &it.packages).map(|it| it.repository.clone()).next(),
        workers: opened.context.workers,
        fetch_program: fetch_program(session, &opened.repository, socket.as_deref())?,
        stage_log,
        packages: packages.filter(|_| session.global.repo.is_some()),
        stop: stop_flag(),
    };
    let outcome = {
        let progress = session.progress();
        let ran = restore::run(&opened.context, &request, &progress);
        told_of_future(ran, target.future.as_deref())?
    };
    if let (RestoreOutcome::Done(_), Some(future)) = (&outcome, &target.future) {
        session.warn(future);
    }
    Ok(match &outcome {
        RestoreOutcome::Done(report) => Done::new(&outcome, done_text(report, &directory)),
        RestoreOutcome::Plan(plan) => {
            let code = plan.shortfall.as_ref().map_or(0, |_| FailureClass::Shortfall.exit_code());
            Done::new(&outcome, plan_text(plan)).code(code).refused(plan.refused.as_deref())
        }
    })
}

/// A time to come can't be reached: then that is why.
fn told_of_future(
    ran: Result<RestoreOutcome, AppError>,
    future: Option<&str>,
) -> Result<RestoreOutcome, AppError> {
    let Some(future) = future else { return ran };
    match ran {
        Err(mut error) if error.class == FailureClass::Shortfall => {
            error.message = format!("{future}; {}", error.message);
            Err(error)
        }
        Ok(RestoreOutcome::Plan(mut plan)) => {
            match &mut plan.shortfall {
                Some(shortfall) => shortfall.reason = format!("{future}; {}", shortfall.reason),
                None => plan.warnings.push(future.to_owned()),
            }
            Ok(RestoreOutcome::Plan(plan))
        }
        Ok(RestoreOutcome::Done(mut report)) => {
            report.warnings.push(future.to_owned());
            Ok(RestoreOutcome::Done(report))
        }
        other => other,
    }
}

/// The server that root starts runs as another user, who must get to its directory.
fn enterable(directory: &Path) -> Result<(), AppError> {
    let Some((uid, gid)) = restore::tree::owner_for(directory)? else { return Ok(()) };
    let (uid, gid) = (uid.as_raw(), gid.as_raw());
    let closed = access::closed_above(directory, uid, gid).filter(|closed| !access::enters(closed, uid, gid));
    let Some(closed) = closed else { return Ok(()) };
    let message = format!("the server runs as user {}, who can't enter {}", user_name(uid), closed.display());
    let (code, object) = ("restore.directory", directory.display().to_string());
    Err(AppError::new(code, FailureClass::Usage, "restore into", object, message)
        .hint("name a directory elsewhere, or leave out --start and move the directory"))
}

/// Whether the user of the restored server can run this program, which fetches the log.
fn may_run(directory: &Path) -> bool {
    // An owner who can't be found is an error of the restore itself.
    let Ok(Some((uid, gid))) = restore::tree::owner_for(directory) else { return true };
    std::env::current_exe().is_ok_and(|program| access::runnable(&program, uid.as_raw(), gid.as_raw()))
}

/// Whether the user of the restored server can fetch the log: run this program, and read configuration, key and, if it is a
/// local directory, repository.
pub(super) fn may_fetch(session: &Session, opened: &Opened, directory: &Path) -> bool {
    let Ok(Some((uid, gid))) = restore::tree::owner_for(directory) else {
        return true;
    };
    let mut needed = Vec::new();
    if session.has_config() {
        needed.extend(config::find(session.global.config.as_deref()));
    }
    if let KeySource::File(path) = &opened.repository.key {
        needed.push(path.clone());
    }
    let url = Path::new(&opened.repository.url);
    if url.is_absolute() {
        needed.extend([url.to_owned(), url.join("config")]);
    }
    may_run(directory) && needed.iter().all(|path| access::readable(path, uid.as_raw(), gid.as_raw()))
}

/// The key must be at hand when the server fetches its log.
fn warn_of_access(session: &Session, opened: &Opened) {
    let encrypted = opened.context.repository.is_encrypted();
    if opened.repository.key == KeySource::Environment && encrypted {
        session.warn(
            "the key came from the environment: start the restored server with EVERPOINT_KEY set, or add --stage-log",
        );
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
    if let Some(port) = report.port {
        out.push_str(&format!("accepts connections on port {port}\n"));
    }
    out.push_str(&next_text(&report.next));
    out
}

/// What is left to do, as lines to paste.
fn next_text(next: &NextSteps) -> String {
    let mut out = String::new();
    if !next.before.is_empty() {
        out.push_str("first put back what the server reads and is not at its place:\n");
        next.before.iter().for_each(|command| out.push_str(&format!("  {command}\n")));
    }
    if !next.start.is_empty() {
        out.push_str(&format!("start it with: {}\n", next.start));
    }
    let more = [("connect with", &next.connect), ("stop it with", &next.stop)];
    for (what, command) in more.into_iter().filter_map(|(what, command)| Some((what, command.as_ref()?))) {
        out.push_str(&format!("{what}: {command}\n"));
    }
    next.notes.iter().for_each(|note| out.push_str(&format!("note: {note}\n")));
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
        out.push_str(&warnings_text(plan));
        return out;
    }
    if let Some(backup) = &plan.backup {
        out.push_str(&format!("backup      {backup}\n"));
    }
    out.push_str(&format!("log         {} segments and parts of them\n", plan.segments));
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
    for place in &plan.writes {
        out.push_str(&format!("writes to   {place}\n"));
    }
    out.push_str(&removes_text(plan));
    out.push_str(&warnings_text(plan));
    out
}

fn warnings_text(plan: &PlanReport) -> String {
    plan.warnings.iter().map(|warning| format!("warning     {warning}\n")).collect()
}

/// So many paths are shown.
const SHOWN: usize = 20;

fn removes_text(plan: &PlanReport) -> String {
    let mut out = String::new();
    for path in plan.removes.iter().take(SHOWN) {
        out.push_str(&format!("removes     {path}\n"));
    }
    let shown = plan.removes.len().min(SHOWN) as u64;
    if plan.removes_count > shown {
        out.push_str(&format!("removes     {} more\n", plan.removes_count - shown));
    }
    out
}
