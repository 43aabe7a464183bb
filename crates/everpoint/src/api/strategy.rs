//! What is configured and promised, in words and as data.

use everpoint_core::words::size;
use serde::Serialize;

use crate::config::offsite::OffsiteConfig;
use crate::config::{ClusterConfig, Config, Source};

/// The whole of it.
#[derive(Debug, Serialize)]
pub(crate) struct Strategy {
    /// In words, one sentence each.
    pub(crate) words: Vec<String>,
    pub(crate) clusters: Vec<ClusterStrategy>,
    pub(crate) repositories: Vec<RepositoryStrategy>,
    pub(crate) providers: Vec<ProviderStrategy>,
    /// When jobs run by themselves.
    pub(crate) schedules: Schedules,
    /// Bytes of log that the server may have to keep for us before its slot is given up; `null`: without bound.
    pub(crate) max_retained: Option<u64>,
}

/// Cron expressions; `null`: never.
#[derive(Debug, Serialize)]
pub(crate) struct Schedules {
    pub(crate) zone: String,
    pub(crate) backup: Option<String>,
    pub(crate) package: Option<String>,
    pub(crate) bundle: Option<String>,
    pub(crate) check: Option<String>,
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

/// For one offsite provider.
#[derive(Debug, Serialize)]
pub(crate) struct ProviderStrategy {
    pub(crate) name: String,
    pub(crate) enabled: bool,
    /// Calls that it takes in a period.
    pub(crate) calls: u32,
    /// The period, in words.
    pub(crate) period: String,
    /// Most bytes of a package; `null`: without bound.
    pub(crate) limit: Option<u64>,
}

/// Reads it off the configuration.
pub(crate) fn strategy(config: &Config) -> Strategy {
    let protected = config.clusters.values().filter(|cluster| matches!(cluster.source, Source::Postgres(_)));
    let clusters: Vec<ClusterStrategy> = protected.map(|cluster| of_cluster(config, cluster)).collect();
    let repositories: Vec<RepositoryStrategy> = config
        .repositories
        .values()
        .map(|repository| RepositoryStrategy {
            name: repository.name.clone(),
            url: everpoint_store::shown_url(&repository.url),
        })
        .collect();
    let text = |schedule: &Option<everpoint_core::Schedule>| {
        schedule.as_ref().map(|schedule| schedule.text().to_owned())
    };
    let schedules = Schedules {
        zone: config.schedules.zone.iana_name().unwrap_or("UTC").to_owned(),
        backup: text(&config.schedules.backup),
        package: text(&config.schedules.package),
        bundle: text(&config.schedules.bundle),
        check: text(&config.schedules.check),
    };
    let max_retained = config.serve.max_retained;
    let mut words: Vec<String> = clusters.iter().map(promise).collect();
    words.extend(when(&schedules));
    words.push(kept_alive(max_retained));
    let providers: Vec<ProviderStrategy> = config.offsite.values().map(of_provider).collect();
    words.extend(providers.iter().filter(|provider| provider.enabled).map(|it| offsite(it, &schedules)));
    Strategy { words, clusters, repositories, providers, schedules, max_retained }
}

fn of_cluster(config: &Config, cluster: &ClusterConfig) -> ClusterStrategy {
    ClusterStrategy {
        name: cluster.name.clone(),
        engine: "postgresql",
        repository: config.repository_of(cluster).ok().map(|repository| repository.name.clone()),
        capture: "streaming",
        commit_stored_within_seconds: 1,
    }
}

fn of_provider(config: &OffsiteConfig) -> ProviderStrategy {
    ProviderStrategy {
        name: config.name.clone(),
        enabled: config.enabled,
        calls: config.budget.calls,
        period: everpoint_app::offsite::period(&config.budget.period),
        limit: config.limit,
    }
}

fn offsite(provider: &ProviderStrategy, schedules: &Schedules) -> String {
    let ProviderStrategy { name, calls, period, .. } = provider;
    let when = schedules
        .package
        .as_ref()
        .map_or_else(|| "only by hand".to_owned(), |cron| format!("at \"{cron}\" ({})", schedules.zone));
    let what = if *calls == 1 { "call" } else { "calls" };
    format!(
        "{name}: a package of all clusters is sent {when}, with at most {calls} {what} in {period}; it holds everything \
         since the last one that arrived, and nothing that has not arrived is removed."
    )
}

fn promise(cluster: &ClusterStrategy) -> String {
    format!(
        "{}: every committed change is in the repository {} within {} s, and any moment of a recovery window can be \
         brought back.",
        cluster.name,
        cluster.repository.as_deref().unwrap_or("of the configuration"),
        cluster.commit_stored_within_seconds
    )
}

fn when(schedules: &Schedules) -> Vec<String> {
    let jobs = [
        (&schedules.backup, "A backup of each cluster is taken"),
        (&schedules.bundle, "Complete hours of log are joined"),
        (&schedules.check, "Everything that must be right is looked at"),
    ];
    jobs.iter()
        .map(|(schedule, what)| match schedule {
            Some(cron) => format!(
                "{what} at \"{cron}\" ({}); a run that was missed is made up for once.",
                schedules.zone
            ),
            None => format!("{what} only by hand."),
        })
        .collect()
}

fn kept_alive(max_retained: Option<u64>) -> String {
    match max_retained {
        Some(bytes) => format!(
            "A server that has to keep more than {} of log, because nothing can be stored, is relieved of it: the gap \
             is recorded and alerted, and a new backup is taken.",
            size(bytes)
        ),
        None => "A server keeps its log until it is stored, however much that becomes.".to_owned(),
    }
}
