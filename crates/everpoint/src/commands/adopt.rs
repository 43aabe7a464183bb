//! `adopt`: another server is production now.

use everpoint_app::adopt::{self, AdoptReport, AdoptRequest};
use everpoint_app::backup::{self, BackupMode, BackupReport};
use everpoint_app::{AppError, health};
use everpoint_core::FailureClass;
use serde::Serialize;

use super::backup::{request, text};
use crate::cli::Adopt;
use crate::render::Done;
use crate::serve;
use crate::session::{Opened, Session};
use crate::signal::stop_flag;

/// What was done, in the shape of `--json`.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    adopted: AdoptReport,
    /// The backup that was taken of a copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<BackupReport>,
}

pub(crate) fn run(session: &Session, arguments: &Adopt) -> Result<Done, AppError> {
    let opened = session.cluster(&arguments.cluster)?;
    let served = serve::is_running(session.config()?);
    let wanted = AdoptRequest { directory: arguments.directory.clone(), served };
    let adopted = adopt::run(&opened.context, &wanted)?;
    adopted.warnings.iter().for_each(|warning| session.warn(warning));
    let copy = arguments.directory.is_some();
    let mut out = if copy {
        format!("{} is on timeline {} now", arguments.cluster, adopted.timeline)
    } else {
        server_text(&arguments.cluster, &adopted)
    };
    let backup = if copy && adopted.running { take_backup(session, &opened)? } else { None };
    if let Some(report) = &backup {
        out = format!("{out}\n{}", text(report));
    }
    Ok(Done::new(&Report { adopted, backup }, out))
}

/// What was protected until now lies on another branch: the copy needs an image of its own to begin with.
/// Another process may be at it already.
fn take_backup(session: &Session, opened: &Opened) -> Result<Option<BackupReport>, AppError> {
    health::run(&opened.context)?;
    let request = request(session, opened, BackupMode::Auto, stop_flag());
    let progress = session.progress();
    match backup::run(&opened.context, &request, &progress) {
        Err(error) if error.class == FailureClass::Locked => {
            session.warn(&format!("a backup of it is being taken already: {error}"));
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn server_text(cluster: &str, report: &AdoptReport) -> String {
    if !report.adopted {
        return format!("{cluster} is known already, as identity {}", report.identity);
    }
    format!(
        "{cluster} has identity {} now: system identifier {}, PostgreSQL {}\n{}",
        report.identity,
        report.system_identifier,
        report.server_version,
        report.next.as_deref().unwrap_or_default()
    )
}
