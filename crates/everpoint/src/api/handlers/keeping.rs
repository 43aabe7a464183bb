//! What the commands `expire --dry-run` and `hold` do.

use everpoint_app::Quiet;
use everpoint_app::expire;
use everpoint_app::hold::{self, HoldRequest};
use everpoint_engine::StopFlag;

use super::clusters::of_path;
use crate::api::Api;
use crate::api::answer::{Answer, Refusal};
use crate::api::call::Call;
use crate::api::fields::Rule;
use crate::api::goal::is_time;
use crate::commands::expire as command;
use crate::target;
use crate::zone::Clock;

const MOMENT: Rule = Rule(is_time, "a time looks like 2026-01-29T14:30:00+01:00");

/// What would go, and what would stay and why; nothing does.
pub(crate) fn plan(api: &Api, call: Call) -> Result<Answer, Refusal> {
    let cluster = call.part("cluster").to_owned();
    call.finish()?;
    let session = api.daemon.session();
    let opened = of_path(&session, &cluster)?;
    let mut request = command::request(&session, &opened, StopFlag::default())?;
    request.dry_run = true;
    Answer::ok(&expire::run(&opened.context, &request, &Quiet)?)
}

pub(crate) fn hold(api: &Api, mut call: Call) -> Result<Answer, Refusal> {
    let until = call.body.text("until", &MOMENT).map(|text| target::moment(&text, &Clock::utc()));
    if let Some(Err(error)) = &until {
        call.body.refuse("until", error.message.clone());
    }
    let (cluster, label) = (call.part("cluster").to_owned(), call.part("label").to_owned());
    call.finish()?;
    let request = HoldRequest { label, until: until.transpose()?, release: false };
    Answer::ok(&hold::run(&of_path(&api.daemon.session(), &cluster)?.context, &request)?)
}

pub(crate) fn release(api: &Api, call: Call) -> Result<Answer, Refusal> {
    let (cluster, label) = (call.part("cluster").to_owned(), call.part("label").to_owned());
    call.finish()?;
    let request = HoldRequest { label, until: None, release: true };
    Answer::ok(&hold::run(&of_path(&api.daemon.session(), &cluster)?.context, &request)?)
}
