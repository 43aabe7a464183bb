//! `adopt`: the server of a cluster has a new system identifier.

use everpoint_app::{AppError, adopt};

use crate::cli::Adopt;
use crate::render::Done;
use crate::session::Session;

pub(crate) fn run(session: &Session, arguments: &Adopt) -> Result<Done, AppError> {
    let opened = session.cluster(&arguments.cluster)?;
    let report = adopt::run(&opened.context)?;
    let text = if report.adopted {
        format!(
            "{} has identity {} now: system identifier {}, PostgreSQL {}\ntake a backup: everpoint backup {}",
            arguments.cluster,
            report.identity,
            report.system_identifier,
            report.server_version,
            arguments.cluster
        )
    } else {
        format!("{} is known already, as identity {}", arguments.cluster, report.identity)
    };
    Ok(Done::new(&report, text))
}
