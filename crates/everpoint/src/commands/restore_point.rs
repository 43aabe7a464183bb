//! `restore-point`: gives this moment a name.

use everpoint_app::AppError;
use everpoint_app::restore_point;

use crate::cli::RestorePoint;
use crate::render::Done;
use crate::render::time::local_exact;
use crate::session::Session;

pub(crate) fn run(session: &Session, arguments: &RestorePoint) -> Result<Done, AppError> {
    let opened = session.cluster(&arguments.cluster)?;
    let report = restore_point::run(&opened.context, &arguments.name)?;
    let text = format!(
        "restore point {} at {}\nback to it with: everpoint restore {} DIRECTORY --to 'name:{}'",
        report.name, report.lsn, arguments.cluster, report.name
    );
    if let Some(earlier) = &report.earlier {
        session.warn(&format!(
            "there is a restore point {} already, made {}: of one branch name: means the newest, which is this one now; back to \
             the one before with: --to lsn:{}",
            report.name,
            local_exact(&earlier.time),
            earlier.lsn
        ));
    }
    Ok(Done::new(&report, text))
}
