//! `protect`: from nothing to a database whose every change is kept.

mod address;
mod chosen;
mod escrow;
mod place;
mod prepare;
mod reach;
mod service;
mod setup;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use everpoint_app::backup::{self, BackupMode, BackupReport};
use everpoint_app::capture::{self, CaptureReport, CaptureRequest};
use everpoint_app::{AppError, Event, Events, facts, list};
use everpoint_core::{FailureClass, Present};
use everpoint_engine::{CheckState, StopFlag};
use serde::Serialize;

use super::backup as backup_command;
use super::check as check_command;
use crate::cli::{Global, Protect};
use crate::render::Done;
use crate::render::progress::Progress;
use crate::serve::{self, ServeReport};
use crate::session::{Opened, Session};
use crate::signal::stop_flag;

/// How long the backup waits for capture to begin: it brings its own log in any case.
const CAPTURE_HEAD_START: Duration = Duration::from_secs(15);
/// What is shown as an error, and does not keep a cluster that is configured from being protected.
const GOES_ON: [&str; 2] = ["space", "database"];
/// What a new cluster can't have yet.
const NOT_YET: [&str; 3] = ["last_backup", "capture", "slot"];

#[derive(Serialize)]
struct ProtectReport {
    cluster: String,
    config: PathBuf,
    backup: Option<BackupReport>,
    /// Absent where the service that runs captures it.
    capture: Option<CaptureReport>,
    /// Absent where another process serves.
    served: Option<ServeReport>,
}

pub(crate) fn run(session: &Session, arguments: &Protect) -> Result<Done, AppError> {
    let setup = setup::run(session, arguments)?;
    // From here on the file that was written counts, as it will the next time.
    let global = Global {
        config: Some(setup.config.clone()),
        repo: None,
        key_file: setup.key_file,
        ..session.global.clone()
    };
    let session = Session::new(global);
    let opened = session.cluster(&setup.cluster)?;
    look(&session, &opened)?;
    // Said before the first backup, which may take hours, and not after it.
    serve::state_dir(&session)?;
    let stop = stop_flag();
    if serve::is_running(session.config()?) {
        let (backup, capture) = service::protect(&session, &opened, &stop)?;
        let text = said(&setup.cluster, "the service that runs captures it, and runs its jobs");
        let (cluster, config) = (setup.cluster, setup.config);
        let report = ProtectReport { cluster, config, backup, capture, served: None };
        return Ok(Done::new(&report, text));
    }
    let (backup, capture) = protect(&session, &opened, &stop)?;
    // Closed before the daemon opens its own.
    drop(opened);
    let said = said(&setup.cluster, "capture and scheduled jobs go on until you stop it");
    let (served, text) = serve::serve(&session, &stop, Some(&said))?;
    let (capture, served) = (Some(capture), Some(served));
    let report = ProtectReport { cluster: setup.cluster, config: setup.config, backup, capture, served };
    Ok(Done::new(&report, text))
}

fn said(cluster: &str, how: &str) -> String {
    format!(
        "{cluster} is protected; {how}\n\
         bring it back with: everpoint restore {cluster} DIRECTORY --to TARGET --start"
    )
}

/// Shows what `check` finds; errors of the server end it here, before anything is copied.
fn look(session: &Session, opened: &Opened) -> Result<(), AppError> {
    let mut report = check_command::report(opened);
    report.lines.retain(|line| line.state != CheckState::Ok && !NOT_YET.contains(&line.name.as_str()));
    if report.lines.is_empty() {
        return Ok(());
    }
    session.say(check_command::text(&report).trim_end());
    let mut errors = report.lines.iter().filter(|line| line.state == CheckState::Error);
    let fatal = errors.find(|line| !GOES_ON.contains(&line.name.as_str()));
    fatal.map_or(Ok(()), |line| {
        let error = AppError::new(
            "protect.check",
            FailureClass::Failed,
            "protect",
            opened.context.name.clone(),
            format!("{}: {}", line.name, line.message),
        );
        let hint = line.hint.clone().unwrap_or_else(|| "mend what is marked ERROR above".to_owned());
        Err(error.hint(format!("{hint}; then run the same command again")))
    })
}

/// Takes the first backup while the log is captured, so that nothing between the two is missed. The slot holds what comes
/// until the daemon goes on.
fn protect(
    session: &Session,
    opened: &Opened,
    stop: &StopFlag,
) -> Result<(Option<BackupReport>, CaptureReport), AppError> {
    let enough = StopFlag::default();
    let slot = opened.slot.clone();
    let request = CaptureRequest { once: false, slot, create_slot: true, stop: enough.clone() };
    let events = CaptureEvents::new(session);
    std::thread::scope(|scope| {
        let capture = scope.spawn(|| capture::run(&opened.context, &request, &events));
        let begun = Instant::now();
        while !events.begun.load(Ordering::SeqCst)
            && !capture.is_finished()
            && !stop.is_set()
            && begun.elapsed() < CAPTURE_HEAD_START
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        let backup = if capture.is_finished() || stop.is_set() {
            Ok(None)
        } else {
            first_backup(session, opened, stop, &events)
        };
        enough.stop();
        let captured = capture.join().unwrap_or_else(|_| Err(died(&opened.context.name)));
        let backup = backup?;
        Ok((backup, captured?))
    })
}

fn died(cluster: &str) -> AppError {
    AppError::new("internal", FailureClass::Failed, "capture", cluster, "the capturing thread died")
        .hint("run the same command again: it goes on where it stopped")
}

/// Takes a backup unless there is a good one already.
fn first_backup(
    session: &Session,
    opened: &Opened,
    stop: &StopFlag,
    captured: &CaptureEvents,
) -> Result<Option<BackupReport>, AppError> {
    let listing = list::run(&opened.context)?;
    let lost = matches!(facts::load(&opened.context)?.present(), Present::Lost(_));
    if let Some(good) = listing.backups.iter().rev().find(|backup| backup.status == "ok" && !lost) {
        // Behind log that may be lost it is good for nothing that comes: then the daemon takes one.
        if !captured.warned.load(Ordering::SeqCst) {
            session.say(&format!("there is a good backup already: {}", good.label));
        }
        return Ok(None);
    }
    let request = backup_command::request(session, opened, BackupMode::Auto, stop.clone());
    let report = {
        let progress = session.progress();
        backup::run(&opened.context, &request, &progress)?
    };
    session.say(&backup_command::text(&report));
    Ok(Some(report))
}

/// Capture's events: only warnings, as the backup shows its own progress.
struct CaptureEvents {
    begun: AtomicBool,
    /// Something is wrong with the log.
    warned: AtomicBool,
    progress: Progress,
}

impl CaptureEvents {
    fn new(session: &Session) -> Self {
        let progress = Progress::named(session.style(), "capture");
        Self { begun: AtomicBool::new(false), warned: AtomicBool::new(false), progress }
    }
}

impl Events for CaptureEvents {
    fn emit(&self, event: Event) {
        if matches!(event, Event::Captured { .. }) {
            self.begun.store(true, Ordering::SeqCst);
        }
        if event.warning().is_some() {
            self.warned.store(true, Ordering::SeqCst);
            self.progress.emit(event);
        }
    }
}
