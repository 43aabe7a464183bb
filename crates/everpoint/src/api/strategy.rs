//! What is configured and promised, in words and as data.

use serde::Serialize;

use crate::config::{Config, Source};

/// The whole of it.
#[derive(Debug, Serialize)]
pub(crate) struct Strategy {
    /// In words, one sentence each.
    pub(crate) words: Vec<String>,
    pub(crate) clusters: Vec<ClusterStrategy>,
    pub(crate) repositories: Vec<RepositoryStrategy>,
}

/// For one cluster.
#[derive(Debug, Serialize)]
pub(crate) struct ClusterStrategy {
    pub(crate) name: String,
    pub(crate) engine: &'static str,
    pub(crate) repository: Option<String>,
    /// How its log is taken.
    pub(crate) capture: &'static str,
    /// A commit that is older than so many seconds is stored.
    pub(crate) commit_stored_within_seconds: u32,
}

/// For one repository.
#[derive(Debug, Serialize)]
pub(crate) struct RepositoryStrategy {
    pub(crate) name: String,
    pub(crate) url: String,
}

/// Reads it off the configuration.
pub(crate) fn strategy(config: &Config) -> Strategy {
    let protected = config.clusters.values().filter(|cluster| matches!(cluster.source, Source::Postgres(_)));
    let clusters: Vec<ClusterStrategy> = protected
        .map(|cluster| ClusterStrategy {
            name: cluster.name.clone(),
            engine: "postgresql",
            repository: config.repository_of(cluster).ok().map(|repository| repository.name.clone()),
            capture: "streaming",
            commit_stored_within_seconds: 1,
        })
        .collect();
    let repositories: Vec<RepositoryStrategy> = config
        .repositories
        .values()
        .map(|repository| RepositoryStrategy {
            name: repository.name.clone(),
            url: crate::config::mistake::hide_secrets(&repository.url),
        })
        .collect();
    let words = clusters
        .iter()
        .map(|cluster| {
            format!(
                "{}: every committed change is in the repository {} within {} s; any moment of a recovery window \
                 can be brought back.",
                cluster.name,
                cluster.repository.as_deref().unwrap_or("of the configuration"),
                cluster.commit_stored_within_seconds
            )
        })
        .collect();
    Strategy { words, clusters, repositories }
}
