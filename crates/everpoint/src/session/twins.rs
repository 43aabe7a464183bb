//! What else may have the server of a cluster: the other clusters of the configuration, and names in the same repository that
//! are being captured.

use everpoint_app::captured::lease_id;
use everpoint_repo::{ClusterRepo, LeaseState, Repository};

use super::{Opened, Session, key, open_store};
use crate::config::RepositoryConfig;

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
        let own = &self.context.repository;
        let stored = |(name, place): &(String, RepositoryConfig)| {
            if place.url == self.repository.url {
                return own.cluster(name).ok();
            }
            let key = key::read(place, &mut |_| {}).ok()?;
            Repository::open(open_store(&place.url).ok()?, key.as_ref()).ok()?.cluster(name).ok()
        };
        let mut others: Vec<ClusterRepo> = self.beside.iter().filter_map(stored).collect();
        // Another configuration may keep the same server here under its own name.
        let known =
            |name: &String| *name != self.context.name && !self.beside.iter().any(|(it, _)| it == name);
        let captured =
            |name: &String| matches!(own.lease_state(&lease_id(name)), Ok(LeaseState::Held { .. }));
        let strangers = own.clusters().unwrap_or_default().into_iter().filter(known).filter(captured);
        others.extend(strangers.filter_map(|name| own.cluster(&name).ok()));
        others
    }
}
