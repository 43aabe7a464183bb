//! Backups that are asked for, and what is promised.

use std::collections::BTreeMap;

use everpoint_app::backup::BackupMode;

use crate::api::answer::{Answer, Refusal};
use crate::api::call::Call;
use crate::api::daemon::Ask;
use crate::api::handlers::NAME;
use crate::api::{Api, strategy as words};

const MODES: [(&str, BackupMode); 3] =
    [("auto", BackupMode::Auto), ("full", BackupMode::Full), ("incremental", BackupMode::Incremental)];

pub(crate) fn snapshot(api: &Api, mut call: Call) -> Result<Answer, Refusal> {
    let cluster = call.body.text("cluster", &NAME);
    let mode = call.body.choice("mode", &MODES).unwrap_or(BackupMode::Auto);
    let labels: BTreeMap<String, String> = call.body.texts("labels");
    call.finish()?;
    let session = api.daemon.session();
    let names = match cluster {
        Some(name) => vec![session.config()?.cluster(&name)?.name.clone()],
        None => session.cluster_names(None)?,
    };
    let jobs = names
        .into_iter()
        .map(|cluster| api.daemon.ask(Ask::Backup { cluster, mode, labels: labels.clone() }))
        .collect::<Result<Vec<_>, _>>()?;
    Answer::with(202, &super::jobs::Jobs { jobs })
}

/// Starts a job for the cluster that the path names.
fn start(api: &Api, call: Call, ask: impl FnOnce(String) -> Ask) -> Result<Answer, Refusal> {
    let cluster = call.part("cluster").to_owned();
    call.finish()?;
    let cluster = api.daemon.session().config()?.cluster(&cluster)?.name.clone();
    Answer::with(202, &super::jobs::Jobs { jobs: vec![api.daemon.ask(ask(cluster))?] })
}

pub(crate) fn bundle(api: &Api, call: Call) -> Result<Answer, Refusal> {
    start(api, call, |cluster| Ask::Bundle { cluster })
}

pub(crate) fn expire(api: &Api, call: Call) -> Result<Answer, Refusal> {
    start(api, call, |cluster| Ask::Expire { cluster })
}

pub(crate) fn strategy(api: &Api, call: Call) -> Result<Answer, Refusal> {
    call.finish()?;
    let session = api.daemon.session();
    Answer::ok(&words::strategy(session.config()?))
}
