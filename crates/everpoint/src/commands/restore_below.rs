//! A restore that is asked for over HTTP: into one directory below the one that the configuration names, and nowhere else.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use everpoint_app::restore::{self, RestoreOutcome, RestoreRequest};
use everpoint_app::{AppError, Events};
use everpoint_core::{BranchChoice, FailureClass, Target};
use everpoint_engine::StopFlag;

use super::restore::may_fetch;
use crate::config::KeySource;
use crate::session::{Opened, Session, fetch_program};

/// What to restore to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Goal {
    pub(crate) target: Target,
    /// Stop just before it.
    pub(crate) exclusive: bool,
    /// Timeline to follow; `None`: that of production.
    pub(crate) timeline: Option<u32>,
}

/// A goal and the name of the directory.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RestoreBelow {
    pub(crate) goal: Goal,
    /// A plain name, see [`is_plain_name`].
    pub(crate) directory: String,
}

/// Whether a name stays in the directory that it is joined to, and is not hidden there.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(plain)
}

/// A request that does nothing but what every restore does.
pub(crate) fn request(opened: &Opened, directory: PathBuf, goal: &Goal) -> RestoreRequest {
    RestoreRequest {
        directory,
        target: goal.target.clone(),
        exclusive: goal.exclusive,
        timeline: goal.timeline.map(BranchChoice::Timeline),
        delta: false,
        map: Vec::new(),
        dry_run: false,
        start: None,
        replace_production: false,
        server_is_stopped: false,
        confined: true,
        repository: None,
        stage_log: false,
        workers: opened.context.workers,
        fetch_program: String::new(),
        packages: None,
        stop: StopFlag::default(),
    }
}

/// The directory that is to be filled.
///
/// # Errors
/// `api.no_restore_dir` if none are to be filled, `restore.directory` if this one can't be.
pub(crate) fn place(session: &Session, name: &str) -> Result<PathBuf, AppError> {
    let off = |object: &str, message: &str| {
        let (code, class) = ("api.no_restore_dir", FailureClass::Usage);
        AppError::new(code, class, "restore into", object, message)
    };
    let hint = "say below which directory with restore_dir = \"/path\" in [api]";
    let base = session.config()?.api.restore_dir.clone();
    let base = base.ok_or_else(|| off(name, "restores over HTTP are not configured").hint(hint))?;
    let shown = base.display().to_string();
    if !is_plain_name(name) {
        return Err(taken(&base.join(name), "it is no plain name of a directory"));
    }
    // Not made: what is to be mounted there may not be there yet.
    if !base.is_dir() {
        let error = off(&shown, "the restore_dir of [api] is no directory");
        return Err(error.hint("make it, or mount what belongs there; the user of the daemon writes into it"));
    }
    let directory = base.join(name);
    match fs::symlink_metadata(&directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(directory),
        Err(error) => return Err(AppError::io("look at", &directory, error)),
        Ok(found) if !found.is_dir() => return Err(taken(&directory, "it is there and no directory")),
        Ok(_) => {}
    }
    let mut entries = fs::read_dir(&directory).map_err(|error| AppError::io("list", &directory, error))?;
    if entries.next().is_some() {
        return Err(taken(&directory, "the directory is not empty"));
    }
    Ok(directory)
}

fn taken(directory: &Path, message: &str) -> AppError {
    let object = directory.display().to_string();
    AppError::new("restore.directory", FailureClass::Usage, "restore into", object, message)
        .hint("name another one; one that a restore left unfinished can be removed")
}

/// Does it.
///
/// # Errors
/// As [`place`] and the restore itself.
pub(crate) fn run(
    session: &Session,
    opened: &Opened,
    wanted: &RestoreBelow,
    stop: &StopFlag,
    events: &dyn Events,
) -> Result<RestoreOutcome, AppError> {
    let directory = place(session, &wanted.directory)?;
    let request = RestoreRequest {
        stage_log: !fetches_later(session, opened, &directory),
        fetch_program: fetch_program(session, &opened.repository, None)?,
        stop: stop.clone(),
        ..request(opened, directory.clone(), &wanted.goal)
    };
    restore::run(&opened.context, &request, events).map_err(|error| unfinished(error, &directory))
}

/// Whether the server of the copy can fetch its log when somebody starts it: not with a key that only the daemon has, nor
/// with a program that was replaced while the daemon ran.
fn fetches_later(session: &Session, opened: &Opened, directory: &Path) -> bool {
    let has_key =
        opened.repository.key != KeySource::Environment || !opened.context.repository.is_encrypted();
    let has_program = std::env::current_exe().is_ok_and(|program| program.exists());
    has_key && has_program && may_fetch(session, opened, directory)
}

/// What is to be done with a directory that holds a part.
fn unfinished(mut error: AppError, directory: &Path) -> AppError {
    if directory.join(restore::mark::MARKER).exists() {
        let todo = format!("{} is unfinished and marked as such: remove it", directory.display());
        error.hint = Some(match error.hint.filter(|_| error.code != "stopped") {
            Some(hint) => format!("{hint}; {todo}"),
            None => format!("{todo} and ask again"),
        });
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_stay_below_are_plain() {
        for good in ["shop", "2026-01-29_before", "A.b", "a..b", &"x".repeat(63)] {
            assert!(is_plain_name(good), "{good}");
        }
        let long = "x".repeat(64);
        for bad in ["", ".", "..", ".hidden", "a/b", "/etc", "a\\b", "-x", "a b", "a\n", "a\0", "é", &long] {
            assert!(!is_plain_name(bad), "{bad:?}");
        }
    }
}
