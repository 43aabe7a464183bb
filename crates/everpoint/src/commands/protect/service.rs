//! `protect` beside a service of the same configuration: that takes the cluster up by itself.

use std::time::{Duration, Instant};

use everpoint_app::backup::BackupReport;
use everpoint_app::capture::CaptureReport;
use everpoint_app::{AppError, captured};
use everpoint_core::{FailureClass, held_by};
use everpoint_engine::StopFlag;

use super::CaptureEvents;
use crate::session::{Opened, Session};

/// The service looks at its configuration twice a second, and waits until nobody writes it.
const TAKES_UP: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(200);
/// A connection of ours that has just ended is seen no longer than one look.
const SURE: u32 = 2;

/// Takes the first backup, unless the service does. Where the service captures nothing (it may lack a password that this call
/// has), the backup brings its own log.
///
/// # Errors
/// `protect.not_captured` if the service does not capture the cluster; if the backup fails.
pub(super) fn protect(
    session: &Session,
    opened: &Opened,
    stop: &StopFlag,
) -> Result<(Option<BackupReport>, Option<CaptureReport>), AppError> {
    session.say("a service of this configuration runs: waiting until it captures the new cluster");
    if is_taken_up(opened, stop) {
        return first_backup(session, opened, stop).map(|backup| (backup, None));
    }
    let (backup, capture) = super::protect(session, opened, stop)?;
    if is_taken_up(opened, stop) { Ok((backup, Some(capture))) } else { Err(not_captured(opened)) }
}

fn is_taken_up(opened: &Opened, stop: &StopFlag) -> bool {
    let (begun, mut seen) = (Instant::now(), 0);
    while seen < SURE {
        if stop.is_set() || begun.elapsed() > TAKES_UP {
            return false;
        }
        std::thread::sleep(LOOK);
        seen = if is_captured(opened) { seen + 1 } else { 0 };
    }
    true
}

/// A service that the server does not let in has the lock as well, for a moment: who captures also receives by the slot.
fn is_captured(opened: &Opened) -> bool {
    let receives =
        || opened.context.engine.log_keeping().is_some_and(|it| held_by(&it.slots, &opened.slot).is_some());
    captured::is_running(&opened.context) && receives()
}

fn first_backup(
    session: &Session,
    opened: &Opened,
    stop: &StopFlag,
) -> Result<Option<BackupReport>, AppError> {
    let events = CaptureEvents::new(session);
    match super::first_backup(session, opened, stop, &events) {
        Err(error) if error.class == FailureClass::Locked => {
            session.say(&format!(
                "the service takes the first backup: everpoint status {}",
                opened.context.name
            ));
            Ok(None)
        }
        other => other,
    }
}

fn not_captured(opened: &Opened) -> AppError {
    let name = &opened.context.name;
    let message = "it is in the configuration, but the service that runs does not capture it: what is written from now on is \
                   kept by the server alone";
    AppError::new("protect.not_captured", FailureClass::Failed, "protect", name, message).hint(format!(
        "its log says why. It has no PGPASSWORD: where the server asks for a password, write it into a file of its own (mode \
         600, the service's) and password_file = \"FILE\" into [cluster.{name}]; a service of another configuration does not \
         take it up at all"
    ))
}
