//! Packages at the edge: what opens them, and a repository that lives as long as a restore from them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use everpoint_app::package::{self, Scratch};
use everpoint_app::{AppError, ClusterContext};
use everpoint_core::FailureClass;
use everpoint_engine::beside;
use everpoint_format::keyslot::KeyText;
use everpoint_repo::Repository;
use everpoint_store::LayeredStore;

use super::{Opened, Session, by_hand, default_workers, engine, key, open_store};
use crate::config::{self, KeySource, RepositoryConfig};

/// A cluster in a repository that is removed when this is dropped.
pub(crate) struct Temporary {
    pub(crate) opened: Opened,
    /// Where scratch files go: on the same filesystem as the repository.
    _directory: Scratch,
}

impl Session {
    /// What opens packages: an identity file, or else the keys that are at hand.
    pub(crate) fn package_identities(
        &self,
        file: Option<&Path>,
    ) -> Result<Vec<age::x25519::Identity>, AppError> {
        if let Some(file) = file {
            return package::identities_of_file(file);
        }
        let mut found = Vec::new();
        for key in self.keys_at_hand()? {
            found.push(package::identity_of_key(&key)?);
        }
        if found.is_empty() {
            let message = "neither a key nor an age identity is at hand";
            let error = AppError::new("package.no_key", FailureClass::Usage, "open", "the package", message);
            return Err(error.hint("give --key-file FILE (the repository's key) or --identity FILE"));
        }
        Ok(found)
    }

    /// `--key-file`, or else those of the configuration if there is one, or else the environment's.
    fn keys_at_hand(&self) -> Result<Vec<KeyText>, AppError> {
        let nameless = || by_hand("the package");
        let sources: Vec<RepositoryConfig> = match (&self.global.key_file, self.configured()) {
            (Some(file), _) => vec![RepositoryConfig { key: KeySource::File(file.clone()), ..nameless() }],
            (None, Some(config)) => config.repositories.values().cloned().collect(),
            (None, None) => vec![nameless()],
        };
        let mut keys = Vec::new();
        for source in &sources {
            keys.extend(key::read(source, &mut |warning| self.warn(&warning))?);
        }
        Ok(keys)
    }

    /// In a disaster there may be no configuration.
    fn configured(&self) -> Option<&config::Config> {
        config::find(self.global.config.as_deref()).and_then(|_| self.config().ok())
    }

    /// An empty repository in scratch, for a cluster that packages are put into.
    pub(crate) fn temporary(&self, name: &str) -> Result<Temporary, AppError> {
        let (directory, place) = self.temporary_place()?;
        let url = place.display().to_string();
        let repository = Repository::create(open_store(&url)?, None)?;
        self.in_temporary(name, directory, repository, by_hand(&url))
    }

    /// A directory in scratch that goes away, and an empty one in it.
    fn temporary_place(&self) -> Result<(Scratch, PathBuf), AppError> {
        let directory = Scratch::new(&self.package_scratch())?;
        let place = directory.path().join("repository");
        beside::make_directories(&place, 0o700).map_err(|error| AppError::io("make", &place, error))?;
        Ok((directory, place))
    }

    fn in_temporary(
        &self,
        name: &str,
        directory: Scratch,
        repository: Repository,
        place: RepositoryConfig,
    ) -> Result<Temporary, AppError> {
        let cluster = self.configured().and_then(|config| config.clusters.get(name));
        let workers = cluster.and_then(|cluster| cluster.workers).or(self.limits().workers);
        let context = ClusterContext {
            name: name.to_owned(),
            cluster: repository.cluster(name)?,
            repository,
            engine: engine::build(cluster, &self.limits())?,
            workers: workers.unwrap_or_else(default_workers),
            scratch: directory.path().join("scratch"),
            belongings: self.belongings(None),
            neighbours: self.neighbours(name),
        };
        beside::make_directories(&context.scratch, 0o700)
            .map_err(|error| AppError::io("make", &context.scratch, error))?;
        let opened = Opened {
            beside: Vec::new(),
            context,
            repository: place,
            slot: config::slot_for(name),
            compression: cluster.map(|cluster| cluster.compression).unwrap_or_default(),
            checkpoint: cluster.map(|cluster| cluster.checkpoint).unwrap_or_default(),
            pg_bin: cluster.and_then(engine::programs),
            retention: config::Retention::default(),
            schedule: None,
            offsite: Vec::new(),
        };
        Ok(Temporary { opened, _directory: directory })
    }

    /// A cluster of a repository, with room over it for packages: what is put in is gone afterwards, and nothing of the
    /// repository changes.
    pub(crate) fn layered(&self, name: &str, repository: &RepositoryConfig) -> Result<Temporary, AppError> {
        let key = self.key_of(repository)?;
        let (directory, place) = self.temporary_place()?;
        let upper = open_store(&place.display().to_string())?;
        // Leases tell others that this restore reads.
        let store = LayeredStore::new(upper, open_store(&repository.url)?, &["leases/"]);
        let opened = Repository::open(Arc::new(store), key.as_ref())?;
        self.in_temporary(name, directory, opened, repository.clone())
    }

    /// The key of a repository.
    pub(crate) fn key_of(&self, repository: &RepositoryConfig) -> Result<Option<KeyText>, AppError> {
        key::read(repository, &mut |warning| self.warn(&warning))
    }

    /// Where packages are made.
    pub(crate) fn package_scratch(&self) -> std::path::PathBuf {
        self.scratch(self.service())
    }
}
