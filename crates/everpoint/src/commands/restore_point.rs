//! `restore-point`: gives this moment a name.

use everpoint_app::AppError;
use everpoint_app::restore_point;

use crate::cli::RestorePoint;
use crate::render::Done;
use crate::session::Session;

pub(crate) fn run(session: &Session, arguments: &RestorePoint) -> Result<Done, AppError> {
    let opened = session.cluster(&arguments.cluster)?;
    let report = restore_point::run(&opened.context, &arguments.name)?;
    let text = format!(
        "restore point {} at {}\nback to it with: everpoint restore {} DIRECTORY --to 'name:{}'",
        report.name, report.lsn, arguments.cluster, report.name
    );
    Ok(Done::new(&report, text))
}
