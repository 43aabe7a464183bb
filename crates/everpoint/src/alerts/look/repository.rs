//! Repositories: how much is free, how much is used.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use everpoint_core::alert::{self, AlertKey, AlertKind, SpaceHealth};
use everpoint_store::Store;

use super::Look;
use crate::metrics::Measure;

/// Adding up all objects is a long listing, so it is done now and then.
const COUNT_EVERY: Duration = Duration::from_secs(15 * 60);

/// When the objects of each repository were added up last.
#[derive(Debug, Default)]
pub(super) struct Seen {
    counted: BTreeMap<String, Instant>,
}

impl Look {
    pub(super) fn look_at_repositories(&mut self) {
        let stores: BTreeMap<String, Arc<dyn Store>> = self
            .opened
            .values()
            .map(|opened| (opened.repository.name.clone(), Arc::clone(opened.context.repository.store())))
            .collect();
        for (name, store) in stores {
            match store.space() {
                Ok(Some(space)) => {
                    self.metrics.set(Measure::RepositoryFree, &[&name], space.free as f64);
                    self.metrics.set(Measure::RepositorySize, &[&name], space.total as f64);
                    let was_low = self.outbox.is_firing(&AlertKey::new(AlertKind::SpaceLow, name.clone()));
                    let health = SpaceHealth { free: space.free, total: space.total };
                    let thresholds = &self.outbox.config().thresholds;
                    self.outbox.tell([alert::space(&name, health, thresholds, was_low)]);
                }
                Ok(None) => {}
                Err(error) => tracing::debug!("the space of {name} can't be told: {error}"),
            }
            if self.repositories.counted.get(&name).is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
                let used = used(store.as_ref());
                self.metrics.set_known(Measure::RepositoryUsed, &[&name], used.map(|bytes| bytes as f64));
                self.repositories.counted.insert(name, Instant::now());
            }
        }
    }
}

/// Bytes of all objects; `None` if they can't be listed.
fn used(store: &dyn Store) -> Option<u64> {
    let mut bytes = 0_u64;
    let listed = store.list("", None, &mut |object| {
        bytes = bytes.saturating_add(object.size);
        ControlFlow::Continue(())
    });
    listed.ok().map(|()| bytes)
}
