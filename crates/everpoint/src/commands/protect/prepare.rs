//! Makes what `protect` needs: the repository, its key, and its table in the configuration. What needs no writing is not tried,
//! what has to be written and can't be is refused before anything is made.

use std::path::{Path, PathBuf};

use everpoint_app::AppError;
use everpoint_app::check::KeyPlace;

use super::chosen::Chosen;
use super::{escrow, place};
use crate::cli::Protect;
use crate::commands::anew::{self, Newcomer, is_made};
use crate::commands::init;
use crate::config::write::append;
use crate::config::{Config, KeySource, RepositoryConfig, container};
use crate::session::{Session, by_hand, key};

/// As [`prepare`], for a cluster that the configuration has; a repository that it does not name yet is written into it, as
/// the service may not have the variable that named it. Where that can't be, the key is returned, which nothing names then.
///
/// # Errors
/// As [`prepare`].
pub(super) fn complete(
    session: &Session,
    arguments: &Protect,
    chosen: &Chosen,
    config: &Config,
) -> Result<Option<PathBuf>, AppError> {
    let path = config.path.as_path();
    let wanted =
        Wanted { repository: &chosen.config, existing: Some(config), newcomer: None, path, written: &[] };
    prepare(session, arguments, &wanted)?;
    let Some(new) = &chosen.new else { return Ok(None) };
    let written = place::takes_files(path).and_then(|()| append(path, &[new.table()]));
    let Err(error) = written else {
        session.say(&format!("wrote the repository {} into {}", new.url, path.display()));
        return Ok(None);
    };
    session.warn(&format!(
        "the repository {} can't be written into {} ({}): this goes on, but a service or command without BACKUP_DIR does not \
         find it{}",
        new.url,
        path.display(),
        error.message,
        match &new.key_file {
            Some(file) => format!(", and others need --key-file {}", file.display()),
            None => String::new(),
        }
    ));
    Ok(new.key_file.clone())
}

/// What is to be made, and for whom.
pub(super) struct Wanted<'a> {
    pub(super) repository: &'a RepositoryConfig,
    pub(super) existing: Option<&'a Config>,
    pub(super) newcomer: Option<Newcomer<'a>>,
    /// The configuration file.
    pub(super) path: &'a Path,
    /// The files that are written afterwards.
    pub(super) written: &'a [&'a Path],
}

/// Makes the repository if it is missing and was not there before, and sees to a second copy of a new key.
///
/// # Errors
/// If something can't be written: then nothing is. `repo.was_there`.
pub(super) fn prepare(session: &Session, arguments: &Protect, wanted: &Wanted<'_>) -> Result<(), AppError> {
    let config = wanted.repository;
    for file in wanted.written {
        place::takes_files(file)?;
    }
    if !is_made(&config.url) {
        anew::refuse(&session.global, wanted.existing, config, true, false)?;
        let told = anew::told_of_slots(&session.global, None, config, wanted.newcomer);
        told.iter().for_each(|told| session.warn(told));
        if let KeySource::File(key) = &config.key
            && !key.exists()
        {
            place::takes_key(key)?;
        }
        place::own(&config.url, wanted.path)?;
    }
    let (_, report) = init::create(session, config)?;
    if report.created {
        let state = if report.encrypted { "encrypted" } else { "NOT ENCRYPTED" };
        session.say(&format!("created the repository {} ({state})", report.repository));
    }
    if let KeySource::File(file) = &config.key
        && key::place(config, report.encrypted) == KeyPlace::OnlyHere(file.clone())
    {
        escrow::ask_for(session, arguments, file)?;
    }
    if report.created
        && let KeySource::File(file) = &config.key
        && let Some(directory) = container::directory(&|name| std::env::var(name).ok())
        && config.url == by_hand(&container::repository_below(&directory)).url
    {
        escrow::tell_of_container(session, file, &directory);
    }
    if report.created && report.encrypted {
        session.say(escrow::AGE_TOO);
    }
    Ok(())
}
