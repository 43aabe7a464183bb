//! What is known of bundles, so that each index is read once while it is needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use everpoint_core::Span;

use super::Bundle;
use super::read::{Index, Opened};
use crate::RepoError;

/// So many indexes are kept, and so many open objects: whoever reads the log goes forward through it.
const KEPT: usize = 4;

/// Shared by all logs of an open repository.
#[derive(Default)]
pub(crate) struct BundleCache {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By prefix, as the last listing had them.
    listed: HashMap<String, Vec<Bundle>>,
    indexes: Recent<Index>,
    opened: Recent<Opened>,
}

/// The last few, the newest at the end.
struct Recent<T>(Vec<(String, Arc<T>)>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Recent<T> {
    fn find(&self, name: &str) -> Option<Arc<T>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| Arc::clone(value))
    }

    fn add(&mut self, name: &str, value: &Arc<T>) {
        self.0.retain(|(known, _)| known != name);
        if self.0.len() >= KEPT {
            self.0.remove(0);
        }
        self.0.push((name.to_owned(), Arc::clone(value)));
    }
}

impl BundleCache {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known(&self, prefix: &str) -> Vec<Bundle> {
        self.state().listed.get(prefix).cloned().unwrap_or_default()
    }

    /// Takes a listing; what it no longer shows is let go, open objects too, so that their space is free.
    pub(super) fn learn(&self, prefix: &str, found: &[Bundle]) {
        let mut state = self.state();
        let before = state.listed.insert(prefix.to_owned(), found.to_vec()).unwrap_or_default();
        if before.iter().any(|bundle| !found.contains(bundle)) {
            state.drop_below(prefix);
        }
    }

    pub(super) fn forget(&self, prefix: &str, span: Span) {
        let mut state = self.state();
        if let Some(listed) = state.listed.get_mut(prefix) {
            listed.retain(|bundle| bundle.span != span);
        }
        state.drop_below(prefix);
    }

    pub(super) fn index(
        &self,
        name: &str,
        read: impl FnOnce() -> Result<Index, RepoError>,
    ) -> Result<Arc<Index>, RepoError> {
        if let Some(known) = self.state().indexes.find(name) {
            return Ok(known);
        }
        let made = Arc::new(read()?);
        self.state().indexes.add(name, &made);
        Ok(made)
    }

    pub(super) fn opened(
        &self,
        name: &str,
        open: impl FnOnce() -> Result<Opened, RepoError>,
    ) -> Result<Arc<Opened>, RepoError> {
        if let Some(known) = self.state().opened.find(name) {
            return Ok(known);
        }
        let made = Arc::new(open()?);
        self.state().opened.add(name, &made);
        Ok(made)
    }
}

impl State {
    fn drop_below(&mut self, prefix: &str) {
        self.indexes.0.retain(|(name, _)| !name.starts_with(prefix));
        self.opened.0.retain(|(name, _)| !name.starts_with(prefix));
    }
}
