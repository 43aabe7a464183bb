//! `capture`: receives the log until stopped.

use everpoint_app::capture::{self, CaptureReport, CaptureRequest};
use everpoint_app::{AppError, twin};

use crate::cli::Capture;
use crate::render::Done;
use crate::render::number::size;
use crate::session::Session;
use crate::signal::stop_flag;

pub(crate) fn run(session: &Session, arguments: &Capture) -> Result<Done, AppError> {
    let opened = session.cluster(&arguments.cluster)?;
    twin::refuse(&opened.context, &opened.others())?;
    let request = CaptureRequest {
        once: arguments.once,
        slot: opened.slot.clone(),
        create_slot: true,
        stop: stop_flag(),
    };
    let report = {
        let progress = session.progress();
        capture::run(&opened.context, &request, &progress)?
    };
    Ok(Done::new(&report, text(&report)))
}

/// A capture's report for people.
pub(crate) fn text(report: &CaptureReport) -> String {
    format!("stored to {} on timeline {}: {} received", report.position, report.timeline, size(report.bytes))
}
