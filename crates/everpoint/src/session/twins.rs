//! What else may have the server of a cluster: the other clusters of the configuration, and names in the same repository that
//! are being captured.

use everpoint_app::captured::lease_id;
use everpoint_core::ServerSlot;
use everpoint_repo::{ClusterRepo, LeaseState, Repository};

use super::{Opened, Session, key, open_store};
use crate::config::{Config, RepositoryConfig, slot_for};

impl Session {
    /// The other clusters of the configuration, if there is one, and where they are kept.
    pub(super) fn beside(&self, name: &str) -> Vec<(String, RepositoryConfig)> {
        let Some(config) = self.config.get() else { return Vec::new() };
        let others = config.clusters.values().filter(|cluster| cluster.name != name);
        let placed = others.filter_map(|cluster| {
            let repository = config.repository_of(cluster).ok()?.clone();
            Some((cluster.name.clone(), self.with_key(repository)))
        });
        placed.collect()
    }
}

impl Opened {
    /// What is stored of the others. One whose repository can't be opened says nothing here: it has its own errors.
    pub(crate) fn others(&self) -> Vec<ClusterRepo> {
        others(&self.context.name, &self.beside, &self.repository, (Some(&self.context.repository), &[]))
    }
}

/// As [`Opened::others`], of a name that is to be added: to this configuration, in this repository, which need not exist yet. Of
/// names that only the repository knows also those count whose slot the server of the new one has: they were not forgotten.
pub(crate) fn others_of_new(
    name: &str,
    config: Option<&Config>,
    repository: &RepositoryConfig,
    slots: &[ServerSlot],
) -> Vec<ClusterRepo> {
    let configured =
        config.into_iter().flat_map(|config| config.clusters.values().map(move |it| (config, it)));
    let beside: Vec<(String, RepositoryConfig)> = configured
        .filter_map(|(config, it)| Some((it.name.clone(), config.repository_of(it).ok()?.clone())))
        .collect();
    others(name, &beside, repository, (open(repository).as_ref(), slots))
}

/// What is stored under a name; `None`: there is no repository that can be opened.
pub(crate) fn stored_of_new(name: &str, repository: &RepositoryConfig) -> Option<ClusterRepo> {
    open(repository)?.cluster(name).ok()
}

fn open(place: &RepositoryConfig) -> Option<Repository> {
    let key = key::read(place, &mut |_| {}).ok()?;
    Repository::open(open_store(&place.url).ok()?, key.as_ref()).ok()
}

fn others(
    name: &str,
    beside: &[(String, RepositoryConfig)],
    place: &RepositoryConfig,
    (own, slots): (Option<&Repository>, &[ServerSlot]),
) -> Vec<ClusterRepo> {
    let stored = |(name, other): &(String, RepositoryConfig)| {
        if other.url == place.url { own?.cluster(name).ok() } else { open(other)?.cluster(name).ok() }
    };
    let mut others: Vec<ClusterRepo> = beside.iter().filter_map(stored).collect();
    let Some(own) = own else { return others };
    // Another configuration may keep the same server here under its own name.
    let known = |it: &String| it != name && !beside.iter().any(|(beside, _)| beside == it);
    let captured = |name: &String| matches!(own.lease_state(&lease_id(name)), Ok(LeaseState::Held { .. }));
    let has_slot = |name: &String| slots.iter().any(|slot| slot.name == slot_for(name));
    let lives = |name: &String| captured(name) || has_slot(name);
    let strangers = own.clusters().unwrap_or_default().into_iter().filter(known).filter(lives);
    others.extend(strangers.filter_map(|name| own.cluster(&name).ok()));
    others
}
