//! What the commands `status`, `list`, `check` and `restore-point` do.

use everpoint_app::{list, restore_point as point, status as health};

use crate::api::Api;
use crate::api::answer::{Answer, Refusal};
use crate::api::call::Call;
use crate::api::fields::Rule;
use crate::api::handlers::NAME;
use crate::commands::{Clusters, check as check_command};
use crate::session::{Opened, Session};

/// As PostgreSQL keeps them; printable ASCII, so that every client can show them.
const POINT: Rule = Rule(
    |text| (1..=63).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b)),
    "a name has 1 to 63 printable ASCII characters",
);

/// The clusters that a call is about: the one that it names, or all.
pub(crate) fn asked(session: &Session, cluster: Option<String>) -> Result<Vec<Opened>, Refusal> {
    let names = match cluster {
        Some(name) => vec![session.config()?.cluster(&name)?.name.clone()],
        None => session.cluster_names(None)?,
    };
    Ok(names.iter().map(|name| session.cluster(name)).collect::<Result<_, _>>()?)
}

fn each<T: serde::Serialize>(
    api: &Api,
    mut call: Call,
    report: impl Fn(&Opened) -> Result<T, Refusal>,
) -> Result<Answer, Refusal> {
    let cluster = call.query.text("cluster", &NAME);
    call.finish()?;
    let opened = asked(&api.daemon.session(), cluster)?;
    let clusters = opened.iter().map(report).collect::<Result<Vec<_>, _>>()?;
    Answer::ok(&Clusters { clusters })
}

pub(crate) fn status(api: &Api, call: Call) -> Result<Answer, Refusal> {
    each(api, call, |opened| Ok(health::run(&opened.context, &opened.slot)?))
}

pub(crate) fn list(api: &Api, call: Call) -> Result<Answer, Refusal> {
    each(api, call, |opened| Ok(list::run(&opened.context)?))
}

pub(crate) fn check(api: &Api, call: Call) -> Result<Answer, Refusal> {
    each(api, call, |opened| Ok(check_command::report(opened)))
}

/// The cluster that the path names.
pub(super) fn of_path(session: &Session, name: &str) -> Result<Opened, Refusal> {
    session.config()?.cluster(name)?;
    Ok(session.cluster(name)?)
}

pub(crate) fn restore_point(api: &Api, mut call: Call) -> Result<Answer, Refusal> {
    let name = call.body.required("name", &POINT);
    let cluster = call.part("cluster").to_owned();
    call.finish()?;
    let opened = of_path(&api.daemon.session(), &cluster)?;
    Answer::with(201, &point::run(&opened.context, &name.unwrap_or_default())?)
}
