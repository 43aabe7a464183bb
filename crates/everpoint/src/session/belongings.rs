//! Everpoint's own files on this machine, as the configuration names them.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use everpoint_app::AppError;
use everpoint_app::belongings::{self, Belonging};

use super::Session;
use crate::config::offsite::OffsitePlace;
use crate::config::{self, Config, KeySource, PasswordSource, RepositoryConfig, Source};
use crate::serve;

impl Session {
    /// All of them; `repository` need not be in the configuration.
    pub(crate) fn belongings(&self, repository: Option<&RepositoryConfig>) -> Vec<Belonging> {
        let found = config::find(self.global.config.as_deref());
        let mut all = found.and_then(|_| self.config().ok()).map(configured).unwrap_or_default();
        for more in repository.into_iter().flat_map(of_repository) {
            if !all.iter().any(|known| known.path == more.path) {
                all.push(more);
            }
        }
        all
    }

    /// Data directories of the clusters of the configuration but this one.
    pub(crate) fn neighbours(&self, name: &str) -> Vec<Belonging> {
        let found = config::find(self.global.config.as_deref());
        let config = found.and_then(|_| self.config().ok());
        let others = config.into_iter().flat_map(|it| it.clusters.values()).filter(|it| it.name != name);
        others
            .filter_map(|cluster| match &cluster.source {
                Source::Postgres(postgres) => {
                    Some(belonging(format!("the cluster {}", cluster.name), postgres.data_dir.as_ref()?))
                }
                Source::MongoDb => None,
            })
            .collect()
    }
}

/// Refuses to make a repository, or what belongs to it, inside of a server's directories.
///
/// # Errors
/// `config.inside_server`.
pub(crate) fn refuse(all: &[Belonging], config: Option<&Config>) -> Result<(), AppError> {
    let clusters = config.into_iter().flat_map(|config| config.clusters.values());
    let servers: Vec<PathBuf> = clusters
        .filter_map(|cluster| match &cluster.source {
            Source::Postgres(postgres) => postgres.data_dir.clone(),
            Source::MongoDb => None,
        })
        .collect();
    belongings::refuse(all, &servers)
}

/// A repository and its key.
pub(crate) fn of_repository(repository: &RepositoryConfig) -> Vec<Belonging> {
    let mut all = Vec::new();
    if Path::new(&repository.url).is_absolute() {
        all.push(closed(format!("the repository {}", repository.name), &repository.url));
    }
    if let KeySource::File(path) = &repository.key {
        all.push(belonging(format!("the key of the repository {}", repository.name), path));
    }
    all
}

/// One of them.
pub(crate) fn belonging(what: impl Into<String>, path: impl AsRef<Path>) -> Belonging {
    Belonging { what: what.into(), path: path.as_ref().to_owned(), closed: false }
}

/// One in which nothing else may lie.
fn closed(what: impl Into<String>, path: impl AsRef<Path>) -> Belonging {
    Belonging { closed: true, ..belonging(what, path) }
}

fn configured(config: &Config) -> Vec<Belonging> {
    let mut all = vec![belonging("the configuration", &config.path)];
    // Elsewhere it may stand in a user's home.
    let directory = config.path.parent().filter(|directory| directory.starts_with("/etc/everpoint"));
    all.extend(directory.map(|path| closed("the directory of the configuration", path)));
    all.extend(config.repositories.values().flat_map(of_repository));
    for cluster in config.clusters.values() {
        if let Source::Postgres(postgres) = &cluster.source
            && let Some(PasswordSource::File(path)) = &postgres.password
        {
            all.push(belonging(format!("the password of {}", cluster.name), path));
        }
    }
    for provider in config.offsite.values() {
        if let OffsitePlace::Filesystem { path, .. } = &provider.place {
            all.push(closed(format!("the directory of packages {}", provider.name), path));
        }
    }
    let scratch = config.limits.scratch_dir.as_ref();
    // One like /tmp is everybody's.
    let shared = |path: &PathBuf| path.metadata().is_ok_and(|found| found.mode() & 0o1000 != 0);
    all.extend(scratch.map(|path| Belonging {
        closed: !shared(path),
        ..belonging("the directory for scratch files", path)
    }));
    let restores = config.api.restore_dir.as_ref();
    all.extend(restores.map(|path| belonging("the directory of restores over HTTP", path)));
    all.push(closed("the state of the daemon", serve::state_place(config)));
    all
}
