//! What a restore would do, and the restore.

use everpoint_app::restore::{self, RestoreRequest};
use everpoint_app::{AppError, Quiet};
use everpoint_core::FailureClass;

use crate::api::Api;
use crate::api::answer::{Answer, Refusal};
use crate::api::call::Call;
use crate::api::daemon::Ask;
use crate::api::fields::{Fields, Rule};
use crate::api::goal::is_documented;
use crate::api::handlers::clusters::of_path;
use crate::api::handlers::jobs::Jobs;
use crate::commands::restore_below::{self as below, Goal, RestoreBelow, is_plain_name};
use crate::target;
use crate::zone::Clock;

const TARGET: Rule = Rule(
    is_documented,
    "one of: latest, 2026-01-29T14:30:00+01:00, lsn:0/3000148, xid:731, before-xid:731, name:LABEL, backup:LABEL",
);
const DIRECTORY: Rule =
    Rule(is_plain_name, "a plain name has up to 63 of A-Z a-z 0-9 . _ - and begins with a letter or digit");

/// Reads the goal of a restore; `None` if a field is wrong, which is noted there.
fn goal(fields: &mut Fields) -> Option<Goal> {
    let to = fields.text("to", &TARGET).unwrap_or_else(|| "latest".to_owned());
    let exclusive = fields.flag("exclusive").unwrap_or_default();
    let timeline = fields.number("timeline", 1..=u64::from(u32::MAX));
    let timeline = timeline.and_then(|timeline| timeline.try_into().ok());
    match target::parse(&to, &Clock::utc()) {
        Ok(parsed) => Some(Goal { target: parsed.target, exclusive, timeline }),
        Err(error) => {
            fields.refuse("to", error.message);
            None
        }
    }
}

fn internal() -> AppError {
    AppError::new("internal", FailureClass::Failed, "read", "the request", "a field was not read")
}

pub(crate) fn plan(api: &Api, mut call: Call) -> Result<Answer, Refusal> {
    let goal = goal(&mut call.query);
    let cluster = call.part("cluster").to_owned();
    call.finish()?;
    let opened = of_path(&api.daemon.session(), &cluster)?;
    let request = below::request(&opened, std::path::PathBuf::new(), &goal.ok_or_else(internal)?);
    let request = RestoreRequest { dry_run: true, confined: false, ..request };
    Answer::ok(&restore::run(&opened.context, &request, &Quiet)?)
}

/// Starts the job, unless it is known already that it would fail.
pub(crate) fn restore(api: &Api, mut call: Call) -> Result<Answer, Refusal> {
    let goal = goal(&mut call.body);
    let directory = call.body.required("directory", &DIRECTORY);
    let cluster = call.part("cluster").to_owned();
    call.finish()?;
    let (Some(goal), Some(directory)) = (goal, directory) else { return Err(internal().into()) };
    let session = api.daemon.session();
    let opened = of_path(&session, &cluster)?;
    let place = below::place(&session, &directory)?;
    let checked = restore::check(&opened.context, &below::request(&opened, place, &goal));
    checked.map_err(|error| match error.class {
        // The request names what is not there; asking again does not help.
        FailureClass::Shortfall => Refusal::new(422, error),
        _ => error.into(),
    })?;
    let wanted = RestoreBelow { goal, directory };
    let job = api.daemon.ask(Ask::Restore { cluster: opened.context.name.clone(), wanted })?;
    Answer::with(202, &Jobs { jobs: vec![job] })
}
