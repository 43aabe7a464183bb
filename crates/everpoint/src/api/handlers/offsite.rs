//! Daily packages: how providers stand, and a call that is spent by hand.

use everpoint_app::AppError;
use everpoint_app::offsite::OffsiteStatus;
use everpoint_core::FailureClass;
use serde::Serialize;

use crate::api::Api;
use crate::api::answer::{Answer, Refusal};
use crate::api::call::Call;
use crate::api::daemon::Ask;
use crate::api::handlers::NAME;
use crate::api::handlers::jobs::Jobs;
use crate::commands::offsite as command;

#[derive(Debug, Serialize)]
struct Providers {
    providers: Vec<OffsiteStatus>,
}

pub(crate) fn status(api: &Api, call: Call) -> Result<Answer, Refusal> {
    call.finish()?;
    let session = api.daemon.session();
    let all = session.config()?.offsite.values();
    let providers = all.map(|config| command::status_of(&session, config)).collect::<Result<_, _>>()?;
    Answer::ok(&Providers { providers })
}

/// Spends the call of a provider. Who asks says that this is meant.
pub(crate) fn trigger(api: &Api, mut call: Call) -> Result<Answer, Refusal> {
    let provider = call.body.text("provider", &NAME);
    let confirmed = call.body.flag("confirm");
    if confirmed.is_none() {
        call.body.refuse("confirm", "this spends a call of the provider: set it to true if that is meant");
    }
    let session = api.daemon.session();
    let enabled = session.config()?.offsite.values().filter(|provider| provider.enabled);
    let names: Vec<&str> = enabled.map(|provider| provider.name.as_str()).collect();
    if provider.is_none() && names.len() > 1 {
        call.body.refuse("provider", format!("there are several, name one: {}", names.join(", ")));
    }
    call.finish()?;
    if confirmed == Some(false) {
        let message = "it spends a call of the provider, and that was not confirmed";
        let error =
            AppError::new("offsite.not_confirmed", FailureClass::Usage, "send", "the package", message);
        return Err(Refusal::new(409, error.hint("set \"confirm\" to true")));
    }
    let config = session.offsite_enabled(provider.as_deref())?;
    let status = command::status_of(&session, config)?;
    if let Some(why) = status.refused {
        let next =
            status.next_call_at.map_or_else(String::new, |at| format!("; the next call is allowed at {at}"));
        let message = format!("{why}{next}");
        let error =
            AppError::new("offsite.budget_spent", FailureClass::BudgetSpent, "call", status.place, message);
        return Err(error.hint("nothing was sent").into());
    }
    let job = api.daemon.ask(Ask::Package { provider: config.name.clone() })?;
    Answer::with(202, &Jobs { jobs: vec![job] })
}
