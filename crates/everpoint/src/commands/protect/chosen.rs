//! Which repository `protect` uses, and where its key is.

use std::path::Path;

use everpoint_app::AppError;
use everpoint_core::FailureClass;

use super::setup::absolute;
use crate::cli::Protect;
use crate::config::write::NewRepository;
use crate::config::{Config, KeySource, RepositoryConfig, Retention, container};
use crate::session::{Session, by_hand, key};

/// A repository for the cluster.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) config: RepositoryConfig,
    /// Not in the configuration yet.
    pub(super) new: Option<NewRepository>,
}

/// Chooses it: what the configuration says comes first.
///
/// # Errors
/// Class `Usage`: the configuration has several.
pub(super) fn choose_repository(
    session: &Session,
    arguments: &Protect,
    existing: Option<&Config>,
    path: &Path,
) -> Result<Chosen, AppError> {
    let asked = session.global.repo.as_deref();
    let implied = existing.filter(|config| config.implied);
    if let Some(config) = existing.filter(|config| !config.implied && !config.repositories.is_empty()) {
        return configured_repository(session, config, asked);
    }
    let default = default_repository();
    // Clusters that are in the file stay where they are kept.
    let used = implied.filter(|config| !config.clusters.is_empty());
    let url = by_hand(asked.filter(|_| used.is_none()).unwrap_or(&default)).url;
    if let (Some(config), Some(asked)) = (implied, asked)
        && by_hand(asked).url != by_hand(&default).url
    {
        let place = config.path.display();
        session.warn(&match used {
            Some(_) => {
                format!("--repo is ignored: the clusters of {place} are kept below BACKUP_DIR, in {url}")
            }
            None => format!("BACKUP_DIR is not used: --repo says another place, and that goes into {place}"),
        });
    }
    let name = "local".to_owned();
    let key_file = match &session.global.key_file {
        _ if arguments.no_encryption => None,
        Some(file) => Some(absolute(file)?),
        None if std::env::var_os(key::VARIABLE).is_some_and(|key| !key.is_empty()) => None,
        // What is there already and has no key goes on as it is.
        None if used.is_some() && encryption(&url) == Some(false) => None,
        None => Some(path.with_file_name(format!("everpoint-{name}.key"))),
    };
    let key = key_file.clone().map_or(KeySource::Environment, KeySource::File);
    let config =
        RepositoryConfig { name: name.clone(), url: url.clone(), key, retention: Retention::default() };
    Ok(Chosen { config, new: Some(NewRepository { name, url, key_file }) })
}

/// The repository of a configuration that has some. Another one beside it would have to be named by every command from then
/// on, so that adding it is left to the administrator.
fn configured_repository(
    session: &Session,
    config: &Config,
    asked: Option<&str>,
) -> Result<Chosen, AppError> {
    let place = config.path.display();
    let wanted = |known: &&RepositoryConfig| {
        asked.is_some_and(|asked| known.name == asked || known.url == by_hand(asked).url)
    };
    if let Some(known) = config.repositories.values().find(wanted) {
        return Ok(Chosen { config: known.clone(), new: None });
    }
    let names: Vec<&str> = config.repositories.keys().map(String::as_str).collect();
    match config.repositories.values().next().filter(|_| names.len() == 1) {
        Some(only) => {
            if asked.is_some() {
                session.warn(&format!("--repo is ignored: {place} has the repository {}", only.name));
            }
            Ok(Chosen { config: only.clone(), new: None })
        }
        None => {
            let message = format!("{place} has several: {}", names.join(", "));
            let error =
                AppError::new("config.no_repository", FailureClass::Usage, "choose", "a repository", message);
            Err(error.hint("name one with --repo NAME"))
        }
    }
}

/// Whether the repository that is there is encrypted; `None`: there is none that can be read.
fn encryption(url: &str) -> Option<bool> {
    let store = everpoint_store::open_url(url).ok()?;
    everpoint_repo::Repository::encryption(&*store).ok().flatten()
}

/// Below `$BACKUP_DIR`, or in a usual place.
fn default_repository() -> String {
    let usual = if rustix::process::geteuid().is_root() { "/var/lib/everpoint" } else { "./everpoint-repo" };
    let named = container::directory(&|name| std::env::var(name).ok());
    named.map_or_else(|| usual.to_owned(), |directory| container::repository_below(&directory))
}
