//! `init`: makes the repositories of the configuration.

use std::path::Path;

use everpoint_app::AppError;
use everpoint_app::init::{self, InitReport, store_error};
use everpoint_core::{FailureClass, shell};
use everpoint_engine::beside;
use everpoint_format::keyslot::KeyText;
use everpoint_repo::Repository;
use serde::Serialize;

use super::anew;
use crate::cli::Init;
use crate::config::{KeySource, RepositoryConfig};
use crate::render::Done;
use crate::render::number::size;
use crate::session::{Session, belongings, key};

#[derive(Serialize)]
struct Repositories {
    repositories: Vec<InitReport>,
}

pub(crate) fn run(session: &Session, arguments: &Init) -> Result<Done, AppError> {
    let wanted = match &arguments.repository {
        Some(name) => vec![session.repository_config(Some(name))?],
        None => session.repository_configs()?,
    };
    belongings::refuse(&session.belongings(None), session.config().ok())?;
    let mut repositories = Vec::new();
    let mut text = String::new();
    for config in &wanted {
        anew::refuse_mistyped(session.global.repo.as_deref(), config)?;
        anew::refuse(&session.global, session.config().ok(), config, false, arguments.new)?;
        if !arguments.new {
            let told = anew::told_of_slots(&session.global, session.config().ok(), config, None);
            told.iter().for_each(|told| session.warn(told));
        }
        let (_, report) = create(session, config)?;
        text.push_str(&line(config, &report));
        repositories.push(report);
    }
    Ok(Done::new(&Repositories { repositories }, text))
}

/// Makes one repository. If its key file is missing and so is the repository, the key is made first.
pub(crate) fn create(
    session: &Session,
    config: &RepositoryConfig,
) -> Result<(Repository, InitReport), AppError> {
    belongings::refuse(&belongings::of_repository(config), session.config().ok())?;
    let shown = everpoint_store::shown_url(&config.url);
    let store = everpoint_store::create_url(&config.url)
        .map_err(|error| store_error("create the repository", &shown, error))?;
    let exists = store.head("config").map_err(|error| store_error("look into", &shown, error))?.is_some();
    if let KeySource::File(path) = &config.key
        && !path.exists()
    {
        if exists {
            return Err(key_elsewhere(config, path, &anew::word(session.config().ok(), config)));
        }
        key::write_new(path, &key::generate()?.reveal(), key::service(config))?;
    }
    let key = key::read(config, &mut |warning| session.warn(&warning))?;
    if !exists && key.as_ref().is_some_and(KeyText::is_age_identity) {
        return Err(no_key(config));
    }
    init::run(store, key.as_ref())
}

/// As a passphrase it would go, and nobody would know.
fn no_key(config: &RepositoryConfig) -> AppError {
    let message = "what was given as its key is an age identity, which opens packages";
    AppError::new("key.invalid", FailureClass::Usage, "use the key of", config.name.clone(), message)
        .hint("give the repository's key, or a file that is not there yet: then the key is made")
}

/// A new key would not open what is there. `word`: what makes another repository.
fn key_elsewhere(config: &RepositoryConfig, path: &Path, word: &str) -> AppError {
    let message = format!("the repository is there already, but its key is not in {}", path.display());
    let place = Path::new(&config.url);
    let aside = if place.is_absolute() {
        let lost = format!("{}.lost", config.url.trim_end_matches('/'));
        format!(": mv {} {}, then {word}", shell::path(place), shell::path(Path::new(&lost)))
    } else {
        String::new()
    };
    AppError::new(
        "config.secret",
        FailureClass::Usage,
        "open the repository",
        everpoint_store::shown_url(&config.url),
        message,
    )
    .hint(format!(
        "give the key it was made with: --key-file FILE, or EVERPOINT_KEY, or copy it there. Where the container is a new one, \
         the key went with the old one's {}, unless there is a second copy. {}Without it nothing in there can be opened: then \
         keep it aside in case the key is found, and begin anew{aside}",
        beside::directory_of(path).display(),
        key::others_beside(path).map(|others| format!("{others}. ")).unwrap_or_default()
    ))
}

fn line(config: &RepositoryConfig, report: &InitReport) -> String {
    let state = if report.created { "created" } else { "exists already" };
    let encryption = if report.encrypted {
        "encrypted"
    } else {
        "NOT ENCRYPTED (give it a key_file before init to have it encrypted)"
    };
    let free = report.free_bytes.map(|bytes| format!(", {} free", size(bytes))).unwrap_or_default();
    let mut out = format!("{} at {}: {state}, {encryption}{free}\n", config.name, report.repository);
    if let (KeySource::File(path), true) = (&config.key, report.created) {
        out.push_str(&format!(
            "its key is in {}; store it in a second place, then run: everpoint key confirm\n",
            path.display()
        ));
    }
    out
}
