//! `archive-push`: stores a file of the log; for archive_command.

use everpoint_app::AppError;
use everpoint_app::archive_push::{self, ArchivePushRequest};

use crate::cli::ArchivePush;
use crate::render::Done;
use crate::session::Session;

/// Segments stored beside the one asked for, if the configuration does not say.
const PUSH_AHEAD: usize = 16;

pub(crate) fn run(session: &Session, arguments: &ArchivePush) -> Result<Done, AppError> {
    let session = &session.serverless();
    let opened = session.any_cluster(&arguments.cluster)?;
    let look_ahead = session.limits().push_ahead.unwrap_or(PUSH_AHEAD);
    let request = ArchivePushRequest { path: arguments.path.clone(), look_ahead };
    let report = archive_push::run(&opened.context, &request, &session.progress())?;
    Ok(Done::new(&report, String::new()))
}
