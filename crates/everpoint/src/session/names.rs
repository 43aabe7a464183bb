//! Names that were given: whether they can be one, and what to say of one that nothing has.

use everpoint_app::AppError;
use everpoint_core::FailureClass;
use everpoint_core::words::known;
use everpoint_repo::Repository;

use crate::config::mistake::plain_or_name;
use crate::config::{self, Config, RepositoryConfig};

pub(super) fn check_cluster(name: &str) -> Result<(), AppError> {
    if config::valid_name(name) {
        return Ok(());
    }
    let message = "it is no name: names have up to 63 of a-z 0-9 . _ - and begin with a letter or digit";
    let error =
        AppError::new("config.no_cluster", FailureClass::Usage, "find the cluster", "of that name", message);
    Err(error.hint("everpoint list shows the names"))
}

pub(super) fn usage(message: String) -> AppError {
    AppError::new("config.no_repository", FailureClass::Usage, "choose", "a repository", message)
}

pub(super) fn named(config: &Config, name: &str) -> Result<RepositoryConfig, AppError> {
    config.repositories.get(name).cloned().ok_or_else(|| {
        let there = known(name, "repositories", config.repositories.keys().map(String::as_str));
        usage(format!("{} has no [repository.{}]", config.path.display(), plain_or_name(name)))
            .hint(format!("{there}; for a directory write its path, such as ./name or /backup/name"))
    })
}

/// Refuses a name that a repository with other clusters does not have.
pub(super) fn is_known(name: &str, repository: &Repository) -> Result<(), AppError> {
    let there = repository.clusters()?;
    if there.is_empty() || there.iter().any(|known| known == name) {
        return Ok(());
    }
    let message = "the repository holds no cluster of that name";
    Err(AppError::new("config.no_cluster", FailureClass::Usage, "find the cluster", name, message)
        .hint(known(name, "clusters", there.iter().map(String::as_str))))
}
