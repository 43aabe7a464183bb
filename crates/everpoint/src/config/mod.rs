//! The configuration: one TOML file, read whole before anything is done, every mistake reported with its place.

pub(crate) mod alerts;
pub(crate) mod api;
mod cluster;
pub(crate) mod container;
pub(crate) mod expand;
pub(crate) mod mistake;
pub(crate) mod offsite;
pub(crate) mod otel;
mod places;
mod print;
pub(crate) mod remove;
mod repository;
mod retention;
pub(crate) mod rewrite;
mod search;
pub(crate) mod secret;
pub(crate) mod section;
mod serve;
pub(crate) mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use everpoint_app::AppError;
use everpoint_core::FailureClass;
use everpoint_core::words::known;
use toml::de::DeTable;

pub(crate) use cluster::{Checkpoint, ClusterConfig, Compression, PasswordSource, Source, slot_for};
pub(crate) use print::{FileStamp, files_of, outside_of, print_of};
pub(crate) use repository::{KeySource, RepositoryConfig, absolute, is_no_path};
pub(crate) use retention::Retention;
pub(crate) use search::{elsewhere, find, named_or_here, usual};
pub(crate) use section::parse_bytes;
pub(crate) use serve::{Schedules, ServeConfig};

use alerts::AlertsConfig;
use api::ApiConfig;
use mistake::{Mistake, plain_or_name, word};
use offsite::OffsiteConfig;
use otel::OtelConfig;
use section::Section;

/// All that the file says.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Where it was read.
    pub(crate) path: PathBuf,
    pub(crate) repositories: BTreeMap<String, RepositoryConfig>,
    /// The file names no repository: the only one comes from `BACKUP_DIR`.
    pub(crate) implied: bool,
    pub(crate) clusters: BTreeMap<String, ClusterConfig>,
    pub(crate) offsite: BTreeMap<String, OffsiteConfig>,
    pub(crate) limits: Limits,
    /// For clusters and repositories that don't say otherwise.
    pub(crate) retention: Retention,
    pub(crate) api: ApiConfig,
    pub(crate) alerts: AlertsConfig,
    pub(crate) otel: OtelConfig,
    pub(crate) schedules: Schedules,
    pub(crate) serve: ServeConfig,
}

/// `[limits]`: how much of the machine bulk work may take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Threads for bulk work; a cluster may say otherwise.
    pub(crate) workers: Option<usize>,
    /// Bytes per second that a backup reads at most.
    pub(crate) read_rate: Option<u64>,
    /// Bytes of log that `archive-get` fetches ahead.
    pub(crate) fetch_ahead: Option<u64>,
    /// Segments that `archive-push` stores beside the one asked for.
    pub(crate) push_ahead: Option<usize>,
    /// Directory for scratch files.
    pub(crate) scratch_dir: Option<PathBuf>,
    /// Microseconds that a standby may be behind its primary when a backup is taken from it.
    pub(crate) standby_lag: Option<i64>,
}

/// Gives the value of an environment variable.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// Class `Usage`: it can't be read or has mistakes; all of them are shown.
    pub(crate) fn load(path: &Path) -> Result<Self, AppError> {
        Self::load_with(path, false)
    }

    /// As [`Config::load`], for a command that needs nothing but the repository: variables for anything else may be unset.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn load_for_repository(path: &Path) -> Result<Self, AppError> {
        Self::load_with(path, true)
    }

    fn load_with(path: &Path, repository_alone: bool) -> Result<Self, AppError> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let source = std::fs::read_to_string(&path).map_err(|error| {
            let mut made = AppError::io("read the configuration", &path, error);
            "config.unreadable".clone_into(&mut made.code);
            made.class = FailureClass::Usage;
            made.hint.get_or_insert_with(|| {
                "name the file with --config, or write one with: everpoint protect postgres://…".to_owned()
            });
            made
        })?;
        let given = |name: &str| std::env::var(name).ok();
        Self::parse_with(&source, &path, &given, repository_alone).map_err(|mistakes| {
            AppError::new(
                "config.invalid",
                FailureClass::Usage,
                "read the configuration",
                path.display().to_string(),
                mistake::render(&source, &mistakes),
            )
        })
    }

    fn parse(source: &str, path: &Path, variables: Variables<'_>) -> Result<Self, Vec<Mistake>> {
        Self::parse_with(source, path, variables, false)
    }

    fn parse_with(
        source: &str,
        path: &Path,
        variables: Variables<'_>,
        repository_alone: bool,
    ) -> Result<Self, Vec<Mistake>> {
        // What stands in for a variable that nobody has: an address in form, which nobody goes to.
        let instead = |text: &'static str| {
            move |name: &str| variables(name).or_else(|| repository_alone.then(|| text.to_owned()))
        };
        let (of_servers, of_services) = (instead("="), instead("https://unset"));
        let root = DeTable::parse(source).map_err(|error| {
            vec![Mistake::unread(
                error.span().unwrap_or_default(),
                &error.message().trim().replace('\n', ", "),
            )]
        })?;
        let base = path.parent().unwrap_or(Path::new("")).to_owned();
        let mut top = Section::new("the file", 0..0, root.get_ref());
        let mut mistakes = Vec::new();
        let mut repositories = BTreeMap::new();
        for (name, mut section) in top.named_tables("repository") {
            check_name(&name.value, &name.at, &mut mistakes);
            if let Some(repository) = RepositoryConfig::read(&name.value, &mut section, &base, variables) {
                repositories.insert(name.value, repository);
            }
            mistakes.extend(section.finish());
        }
        let mut clusters = BTreeMap::new();
        for (name, mut section) in top.named_tables("cluster") {
            check_name(&name.value, &name.at, &mut mistakes);
            if let Some(cluster) = ClusterConfig::read(&name.value, &mut section, &base, &of_servers) {
                clusters.insert(name.value, cluster);
            }
            mistakes.extend(section.finish());
        }
        let mut offsite = BTreeMap::new();
        for (name, mut section) in top.named_tables("offsite") {
            check_name(&name.value, &name.at, &mut mistakes);
            if let Some(provider) = OffsiteConfig::read(&name.value, &mut section, &base, &of_services) {
                offsite.insert(name.value, provider);
            }
            mistakes.extend(section.finish());
        }
        let written = repositories.len();
        if let Err(mistake) = container::complete(variables, &mut repositories, &mut offsite) {
            mistakes.push(mistake);
        }
        let limits = match top.table("limits") {
            Some(mut section) => {
                let limits = Limits::read(&mut section, &base);
                mistakes.extend(section.finish());
                limits
            }
            None => Limits::default(),
        };
        let api = read_table(&mut top, "api", &mut mistakes, |section| ApiConfig::read(section, &base));
        let alerts = read_table(&mut top, "alerts", &mut mistakes, |section| {
            AlertsConfig::read(section, &base, &of_services)
        });
        let otel =
            read_table(&mut top, "otel", &mut mistakes, |section| OtelConfig::read(section, &of_services));
        let mut section = top.table("schedule");
        let schedules = Schedules::read(section.as_mut(), variables).unwrap_or_else(|mistake| {
            mistakes.push(mistake);
            Schedules::default()
        });
        mistakes.extend(section.into_iter().flat_map(Section::finish));
        let serve = read_table(&mut top, "serve", &mut mistakes, |section| ServeConfig::read(section, &base));
        let retention = Retention::read(&mut top).for_all(variables, &schedules.zone, &mut mistakes);
        mistakes.extend(top.finish());
        let path = path.to_owned();
        let config = Self {
            path,
            implied: written == 0 && !repositories.is_empty(),
            repositories,
            clusters,
            offsite,
            limits,
            retention,
            api,
            alerts,
            otel,
            schedules,
            serve,
        };
        if mistakes.is_empty() {
            mistakes.extend(config.check_references());
        }
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
    }

    fn check_references(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        for provider in self.offsite.values() {
            let repositories = self.repositories.keys().map(String::as_str);
            let clusters = self.clusters.keys().map(String::as_str);
            mistakes.extend(provider.check_references(repositories, clusters));
        }
        for cluster in self.clusters.values() {
            let Some(wanted) = &cluster.repository else {
                if self.repositories.len() > 1 {
                    let names: Vec<&str> = self.repositories.keys().map(String::as_str).collect();
                    let message =
                        format!("[cluster.{}] does not say which repository holds it", cluster.name);
                    let hint = format!("add: repository = \"…\", one of {}", names.join(", "));
                    mistakes.push(Mistake::new(cluster.at.clone(), message).hint(hint));
                }
                continue;
            };
            if !self.repositories.contains_key(&wanted.value) {
                let mistake = Mistake::new(
                    wanted.at.clone(),
                    format!("there is no [repository.{}]", plain_or_name(&wanted.value)),
                );
                let there = self.repositories.keys().map(String::as_str);
                mistakes.push(mistake.hint(known(&wanted.value, "repositories", there)));
            }
        }
        mistakes
    }

    /// The cluster of this name.
    ///
    /// # Errors
    /// Class `Usage`: there is none.
    pub(crate) fn cluster(&self, name: &str) -> Result<&ClusterConfig, AppError> {
        self.clusters.get(name).ok_or_else(|| {
            let hint = if self.clusters.is_empty() {
                "it has no cluster yet; add one with: everpoint protect postgres://…".to_owned()
            } else {
                known(name, "clusters", self.clusters.keys().map(String::as_str))
            };
            let file = self.path.display();
            let (name, message) = match valid_name(name) {
                true => (name, format!("{file} has no [cluster.{name}]")),
                // It may be an address with a password.
                false => ("of that name", format!("{file} has none, and it is no name of a cluster")),
            };
            AppError::new("config.no_cluster", FailureClass::Usage, "find the cluster", name, message)
                .hint(hint)
        })
    }

    /// The enabled providers that get packages of a repository.
    pub(crate) fn offsite_of(&self, repository: &RepositoryConfig) -> Vec<OffsiteConfig> {
        let is_ours = |provider: &&OffsiteConfig| {
            let named = provider.repository.as_ref().map(|name| self.repositories.get(&name.value));
            let place = named.unwrap_or_else(|| self.repositories.values().next());
            provider.enabled && place.is_some_and(|place| place.url == repository.url)
        };
        self.offsite.values().filter(is_ours).cloned().collect()
    }

    /// The repository that holds a cluster.
    ///
    /// # Errors
    /// Class `Usage`: the file has none.
    pub(crate) fn repository_of(&self, cluster: &ClusterConfig) -> Result<&RepositoryConfig, AppError> {
        let found = match &cluster.repository {
            Some(name) => self.repositories.get(&name.value),
            None => self.repositories.values().next(),
        };
        found.ok_or_else(|| {
            AppError::new(
                "config.no_repository",
                FailureClass::Usage,
                "find the repository of",
                cluster.name.clone(),
                format!("{} has no [repository.NAME]", self.path.display()),
            )
            .hint("add a table: [repository.local] with url = \"/var/lib/everpoint\"")
        })
    }
}

/// A table that need not be there.
fn read_table<T: Default>(
    top: &mut Section<'_>,
    key: &'static str,
    mistakes: &mut Vec<Mistake>,
    read: impl FnOnce(&mut Section<'_>) -> T,
) -> T {
    let Some(mut section) = top.table(key) else {
        return T::default();
    };
    let value = read(&mut section);
    mistakes.extend(section.finish());
    value
}

impl Limits {
    fn read(section: &mut Section<'_>, base: &Path) -> Self {
        Self {
            workers: section.number("workers", 1..=256).and_then(|n| usize::try_from(n).ok()),
            read_rate: section.bytes("read_rate"),
            fetch_ahead: section.bytes("fetch_ahead"),
            push_ahead: section.number("push_ahead", 0..=1024).and_then(|n| usize::try_from(n).ok()),
            scratch_dir: section.path("scratch_dir", base),
            standby_lag: section
                .seconds("standby_lag")
                .map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000)),
        }
    }
}

/// Names become parts of object names.
pub(crate) fn valid_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.next().is_some_and(plain)
        && name.len() <= 63
        && bytes.all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'))
}

fn check_name(name: &str, at: &std::ops::Range<usize>, mistakes: &mut Vec<Mistake>) {
    if !valid_name(name) {
        mistakes.push(
            Mistake::new(at.clone(), format!("{} can't be a name", word(name)))
                .hint("names have up to 63 of a-z 0-9 . _ - and begin with a letter or digit"),
        );
    }
}

#[cfg(test)]
mod tests;
