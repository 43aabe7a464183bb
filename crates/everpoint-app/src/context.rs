//! What every use-case works with.

use std::path::PathBuf;
use std::sync::Arc;

use everpoint_engine::Engine;
use everpoint_repo::{ClusterRepo, Repository};

use crate::belongings::Belonging;

/// A cluster of the configuration and the repository that holds it.
#[derive(Clone)]
pub struct ClusterContext {
    /// Its name in the configuration.
    pub name: String,
    /// The repository, opened.
    pub repository: Repository,
    /// The cluster's part of it.
    pub cluster: ClusterRepo,
    /// Its engine.
    pub engine: Arc<dyn Engine>,
    /// Threads for bulk work.
    pub workers: usize,
    /// Directory for scratch files (sorting, spooling); nothing in it is a source of truth.
    pub scratch: PathBuf,
    /// Everpoint's own files on this machine: they must not lie inside of a server's directories.
    pub belongings: Vec<Belonging>,
    /// Data directories of the other clusters of the configuration: nothing is restored there.
    pub neighbours: Vec<Belonging>,
}
