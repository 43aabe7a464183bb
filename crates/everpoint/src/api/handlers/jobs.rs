//! Jobs: what runs and what ran.

use everpoint_app::AppError;
use everpoint_core::FailureClass;
use serde::Serialize;

use crate::api::Api;
use crate::api::answer::{Answer, Refusal};
use crate::api::call::Call;
use crate::api::daemon::{FiringAlert, Job, JobFilter};
use crate::api::handlers::{NAME, WORD};

/// Jobs that are shown unless the caller says how many.
const SHOWN: u32 = 50;
/// Jobs that are shown at most.
const MOST: u64 = 1000;

/// Several jobs.
#[derive(Debug, Serialize)]
pub(crate) struct Jobs {
    pub(crate) jobs: Vec<Job>,
}

pub(crate) fn list(api: &Api, mut call: Call) -> Result<Answer, Refusal> {
    let filter = JobFilter {
        cluster: call.query.text("cluster", &NAME),
        kind: call.query.text("kind", &WORD),
        state: call.query.text("state", &WORD),
        limit: call.query.number("limit", 1..=MOST).and_then(|n| n.try_into().ok()).unwrap_or(SHOWN),
    };
    call.finish()?;
    Answer::ok(&Jobs { jobs: api.daemon.jobs(&filter)? })
}

/// Alerts that fire.
#[derive(Debug, Serialize)]
struct Alerts {
    alerts: Vec<FiringAlert>,
}

pub(crate) fn alerts(api: &Api, call: Call) -> Result<Answer, Refusal> {
    call.finish()?;
    Answer::ok(&Alerts { alerts: api.daemon.alerts() })
}

pub(crate) fn one(api: &Api, call: Call) -> Result<Answer, Refusal> {
    let id = call.part("id").to_owned();
    call.finish()?;
    let found = match id.parse() {
        Ok(number) => api.daemon.job(number)?,
        Err(_) => None,
    };
    let job = found.ok_or_else(|| {
        AppError::new("api.no_job", FailureClass::Usage, "find the job", id, "there is no such job")
            .hint("the history keeps what ran lately: see /api/v1/jobs")
    })?;
    Answer::ok(&job)
}
