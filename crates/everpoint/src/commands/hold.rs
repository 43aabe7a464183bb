//! `hold`: a backup that must not expire.

use everpoint_app::AppError;
use everpoint_app::hold::{self, HoldRequest};

use crate::cli::Hold;
use crate::render::Done;
use crate::render::time::local;
use crate::session::Session;
use crate::target;
use crate::zone::Clock;

pub(crate) fn run(session: &Session, arguments: &Hold) -> Result<Done, AppError> {
    let until = arguments.until.as_deref().map(|text| target::moment(text, &Clock::machine())).transpose()?;
    let opened = session.cluster(&arguments.cluster)?;
    let request = HoldRequest { label: arguments.label.clone(), until, release: arguments.release };
    let report = hold::run(&opened.context, &request)?;
    let text = match (report.held, &report.until) {
        (false, _) => format!("{} is no longer on hold", report.label),
        (true, None) => format!("{} is on hold until it is released", report.label),
        (true, Some(until)) => format!("{} is on hold until {}", report.label, local(until)),
    };
    Ok(Done::new(&report, text))
}
