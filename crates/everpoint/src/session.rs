//! What commands share: the options that every command has, the configuration read when it is first needed, and
//! opened repositories.

pub(crate) mod belongings;
pub(crate) mod engine;
mod fetch;
pub(crate) mod key;
mod names;
mod offsite;
mod package;
mod remembered;
mod secrets;
mod stored;
mod twins;

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use everpoint_app::init::store_error;
use everpoint_app::{AppError, ClusterContext};
use everpoint_core::{FailureClass, Schedule};
use everpoint_engine::Engine;
use everpoint_engine::beside::{self, Hands};
use everpoint_repo::Repository;
use everpoint_store::Store;
use jiff::tz::TimeZone;

use crate::cli::Global;
use crate::commands::anew;
use crate::config::offsite::OffsiteConfig;
use crate::config::{
    self, Checkpoint, ClusterConfig, Compression, Config, KeySource, RepositoryConfig, Retention, Source,
};
use crate::render::note;
use crate::render::progress::{Progress, Style};
use names::{check_cluster, is_known, named, usage};

pub(crate) use fetch::{fetch_program, leading_arguments};
pub(crate) use offsite::Ledger;
pub(crate) use package::Temporary;
pub(crate) use twins::{others_of_new, stored_of_new};

/// One call of the program.
pub(crate) struct Session {
    pub(crate) global: Global,
    config: OnceCell<Config>,
    /// Nothing is asked of a server.
    serverless: bool,
    /// What it warns of goes to the log, which says nothing too often.
    of_daemon: bool,
    /// What it has warned of: once is enough.
    warned: RefCell<BTreeSet<String>>,
}

/// A cluster, ready for a use-case.
pub(crate) struct Opened {
    pub(crate) context: ClusterContext,
    /// Where its repository is and how its key is found.
    pub(crate) repository: RepositoryConfig,
    pub(crate) slot: String,
    pub(crate) compression: Compression,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) retention: Retention,
    /// When the daemon takes backups by itself.
    pub(crate) schedule: Option<Schedule>,
    /// Providers that get packages of its repository.
    pub(crate) offsite: Vec<OffsiteConfig>,
    pub(crate) pg_bin: Option<PathBuf>,
    /// The other clusters of the configuration, and where they are kept.
    pub(crate) beside: Vec<(String, RepositoryConfig)>,
}

impl Session {
    pub(crate) fn new(global: Global) -> Self {
        Self {
            global,
            config: OnceCell::new(),
            serverless: false,
            of_daemon: false,
            warned: RefCell::default(),
        }
    }

    /// The same for a command that needs a repository and no server: `archive_command` runs in environments that have neither
    /// the passwords nor the variables of the service.
    pub(crate) fn serverless(&self) -> Self {
        Self { serverless: true, ..Self::new(self.global.clone()) }
    }

    /// A session of the daemon: with this configuration, whatever the file says meanwhile.
    pub(crate) fn of_daemon(global: Global, config: &Config) -> Self {
        let made = Self { of_daemon: true, ..Self::new(global) };
        made.config.get_or_init(|| config.clone());
        made
    }

    pub(crate) fn style(&self) -> Style {
        Style::choose(self.global.json, self.global.quiet, self.global.no_progress)
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress::new(self.style())
    }

    /// Tells what was done, unless only results are wanted.
    pub(crate) fn say(&self, text: &str) {
        if !self.global.quiet {
            note(text);
        }
    }

    pub(crate) fn warn(&self, text: &str) {
        if self.global.quiet || !self.warned.borrow_mut().insert(text.to_owned()) {
            return;
        }
        if self.of_daemon {
            tracing::warn!("{text}");
        } else {
            self.say(&format!("warning: {text}"));
        }
    }

    /// The configuration; read once.
    pub(crate) fn config(&self) -> Result<&Config, AppError> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let path = config::find(self.global.config.as_deref()).ok_or_else(|| {
            AppError::new(
                "config.missing",
                FailureClass::Usage,
                "find",
                "a configuration",
                format!("there is neither {}", config::usual()),
            )
            .hint("name it with --config, give --repo and --key-file, or begin with: everpoint protect postgres://…")
        })?;
        let load = if self.serverless { Config::load_for_repository } else { Config::load };
        let config = load(&path)?;
        Ok(self.config.get_or_init(|| config))
    }

    /// The repository that `--repo` asks for. A directory or URL needs no configuration.
    fn chosen(&self) -> Result<Option<RepositoryConfig>, AppError> {
        let Some(asked) = &self.global.repo else {
            return Ok(None);
        };
        if config::is_no_path(asked) {
            let error = usage("it is neither a name nor a path nor an address".to_owned());
            return Err(
                error.hint("write a name of the configuration, or a path such as ./name or /backup/name")
            );
        }
        if asked.contains('/') || asked.starts_with('.') {
            return Ok(Some(by_hand(asked)));
        }
        match self.config() {
            Ok(config) => named(config, asked).map(Some),
            Err(_) if Path::new(asked).is_dir() => Ok(Some(by_hand(asked))),
            Err(error) => Err(error),
        }
    }

    /// The repository of this name; the chosen one or the only one if there is no name.
    pub(crate) fn repository_config(&self, name: Option<&str>) -> Result<RepositoryConfig, AppError> {
        if let Some(name) = name {
            return named(self.config()?, name).map(|found| self.with_key(found));
        }
        if let Some(chosen) = self.chosen()? {
            return Ok(self.with_key(chosen));
        }
        let config = self.config()?;
        let mut all = config.repositories.values();
        match (all.next(), all.next()) {
            (Some(only), None) => Ok(self.with_key(only.clone())),
            (None, _) => Err(usage(format!("{} has no [repository.NAME]", config.path.display()))),
            (Some(_), Some(_)) => {
                let names: Vec<&str> = config.repositories.keys().map(String::as_str).collect();
                Err(usage(format!("there are several: {}", names.join(", "))).hint("name the one you mean"))
            }
        }
    }

    /// All repositories that a command without a name is about.
    pub(crate) fn repository_configs(&self) -> Result<Vec<RepositoryConfig>, AppError> {
        match self.chosen()? {
            Some(chosen) => Ok(vec![self.with_key(chosen)]),
            None => {
                Ok(self.config()?.repositories.values().map(|found| self.with_key(found.clone())).collect())
            }
        }
    }

    /// `--key-file` comes before what is configured.
    fn with_key(&self, mut repository: RepositoryConfig) -> RepositoryConfig {
        if let Some(file) = &self.global.key_file {
            repository.key = KeySource::File(std::path::absolute(file).unwrap_or_else(|_| file.clone()));
        }
        repository
    }

    /// Opens a repository with its key.
    pub(crate) fn open(&self, repository: &RepositoryConfig) -> Result<Repository, AppError> {
        let key = key::read(repository, &mut |warning| self.warn(&warning))?;
        let opened = open_store(&repository.url)
            .and_then(|store| Ok(Repository::open_remembering(store, key.as_ref(), &remembered::Memory)?));
        opened.map_err(|error| anew::away(self.config.get(), repository, error))
    }

    /// Opens the repository of a cluster, and the cluster in it. With `--repo` the cluster need not be configured.
    ///
    /// # Errors
    /// Class `Usage`: neither the configuration nor the repository knows it.
    pub(crate) fn cluster(&self, name: &str) -> Result<Opened, AppError> {
        check_cluster(name)?;
        if self.by_hand() {
            let repository = self.repository_config(None)?;
            // In a disaster a broken configuration must not keep one from restoring.
            let configured = config::find(self.global.config.as_deref()).and_then(|_| self.config().ok());
            let cluster = configured.and_then(|config| config.clusters.get(name).cloned());
            let opened = self.opened(name, cluster.as_ref(), repository)?;
            if cluster.is_none() {
                is_known(name, &opened.context.repository)?;
            }
            return Ok(opened);
        }
        let config = self.config()?;
        let cluster = config.cluster(name)?;
        let repository = match self.chosen()? {
            Some(chosen) => chosen,
            None => config.repository_of(cluster)?.clone(),
        };
        self.opened(name, Some(cluster), self.with_key(repository))
    }

    /// As [`Session::cluster`], of a cluster that may begin with this call.
    pub(crate) fn any_cluster(&self, name: &str) -> Result<Opened, AppError> {
        check_cluster(name)?;
        if self.by_hand() {
            let repository = self.repository_config(None)?;
            let configured = config::find(self.global.config.as_deref()).and_then(|_| self.config().ok());
            return self.opened(name, configured.and_then(|config| config.clusters.get(name)), repository);
        }
        self.cluster(name)
    }

    /// Whether the repository was given as a place, and not by its name.
    fn by_hand(&self) -> bool {
        self.global.repo.as_ref().is_some_and(|repo| repo.contains('/') || repo.starts_with('.'))
    }

    /// The server of a configured cluster and the name of its slot, whatever the repository is like.
    pub(crate) fn server(&self, name: &str) -> Result<(Arc<dyn Engine>, String), AppError> {
        let cluster = self.config()?.cluster(name)?;
        let engine = engine::build(Some(cluster), &self.limits())?;
        Ok((engine, cluster.slot.clone()))
    }

    /// The clusters that a command is about: the one named, or all that are configured, or all that a repository
    /// given by hand holds.
    pub(crate) fn cluster_names(&self, name: Option<&str>) -> Result<Vec<String>, AppError> {
        if let Some(name) = name {
            check_cluster(name)?;
            return Ok(vec![name.to_owned()]);
        }
        if self.global.repo.is_some() {
            let repository = self.open(&self.repository_config(None)?)?;
            return Ok(repository.clusters()?);
        }
        let config = self.config()?;
        let (ours, later): (Vec<_>, Vec<_>) =
            config.clusters.values().partition(|cluster| matches!(cluster.source, Source::Postgres(_)));
        for cluster in later {
            self.warn(&format!("{} is left out: MongoDB comes in a later version", cluster.name));
        }
        Ok(ours.into_iter().map(|cluster| cluster.name.clone()).collect())
    }

    fn opened(
        &self,
        name: &str,
        cluster: Option<&ClusterConfig>,
        repository: RepositoryConfig,
    ) -> Result<Opened, AppError> {
        let limits = self.limits();
        let engine =
            if self.serverless { engine::serverless(cluster) } else { engine::build(cluster, &limits) }?;
        let opened = self.open(&repository)?;
        let workers =
            cluster.and_then(|cluster| cluster.workers).or(limits.workers).unwrap_or_else(default_workers);
        let context = ClusterContext {
            name: name.to_owned(),
            cluster: opened.cluster(name)?,
            repository: opened,
            engine,
            workers,
            scratch: self.scratch(key::service(&repository)),
            belongings: self.belongings(Some(&repository)),
            neighbours: self.neighbours(name),
        };
        Ok(Opened {
            beside: self.beside(name),
            context,
            retention: self.retention(cluster, &repository),
            schedule: self.config.get().and_then(|config| config.schedules.of_backups()),
            offsite: self.config.get().map(|config| config.offsite_of(&repository)).unwrap_or_default(),
            repository,
            slot: cluster.map_or_else(|| config::slot_for(name), |cluster| cluster.slot.clone()),
            compression: cluster.map(|cluster| cluster.compression).unwrap_or_default(),
            checkpoint: cluster.map(|cluster| cluster.checkpoint).unwrap_or_default(),
            pg_bin: cluster.and_then(engine::programs),
        })
    }

    /// What is kept of a cluster in a repository.
    fn retention(&self, cluster: Option<&ClusterConfig>, repository: &RepositoryConfig) -> Retention {
        let general = self.config.get().map(|config| config.retention.clone()).unwrap_or_default();
        let of_repository = repository.retention.clone().within_wider(&general);
        cluster.map(|cluster| cluster.retention.clone()).unwrap_or_default().within_wider(&of_repository)
    }

    /// The zone of schedules and of the hours by which bundles are named.
    pub(crate) fn zone(&self) -> TimeZone {
        self.config.get().map_or(TimeZone::UTC, |config| config.schedules.zone.clone())
    }

    /// Whether a configuration was needed and read.
    pub(crate) fn has_config(&self) -> bool {
        self.config.get().is_some()
    }

    /// To whom the repositories belong: state and scratch that root makes belong to them, too.
    pub(crate) fn service(&self) -> Option<Hands> {
        let configured = self.config.get().into_iter().flat_map(|config| config.repositories.values());
        configured.filter_map(key::service).next()
    }

    /// The directory for scratch files. One that the configuration names is the service's, so root makes it for that.
    pub(crate) fn scratch(&self, service: Option<Hands>) -> PathBuf {
        let Some(place) = self.limits().scratch_dir else {
            return everpoint_app::package::default_scratch();
        };
        if rustix::process::geteuid().is_root()
            && let Err(error) = beside::make_directories_for(&place, 0o700, service)
        {
            // Who needs it fails there, and says why.
            tracing::debug!(%error, "the scratch directory could not be made");
        }
        place
    }

    /// The limits of the configuration, if one was read.
    pub(crate) fn limits(&self) -> config::Limits {
        self.config.get().map(|config| config.limits.clone()).unwrap_or_default()
    }
}

/// What can't be a name is not repeated: it may be an address with a password.
/// A repository without a table in the configuration.
pub(crate) fn by_hand(url: &str) -> RepositoryConfig {
    let here = std::env::current_dir().unwrap_or_default();
    RepositoryConfig {
        name: everpoint_store::shown_url(url),
        url: config::absolute(url, &here),
        key: KeySource::Environment,
        retention: Retention::default(),
    }
}

/// Opens the place where a repository is.
fn open_store(url: &str) -> Result<Arc<dyn Store>, AppError> {
    let shown = everpoint_store::shown_url(url);
    everpoint_store::open_url(url).map_err(|error| store_error("open the repository", &shown, error))
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(16)
}
