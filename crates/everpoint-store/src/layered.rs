//! A store over another that stays as it is: what is written goes into the upper one, what is read comes from both.
//!
//! So packages can be put into a repository for the time of a restore, and nothing of it changes. Names that begin with
//! one of `through` are the exception: they are written to the lower store, for others to see (leases).

#![deny(clippy::missing_trait_methods)]

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{ObjectInfo, ObjectReader, ObjectWriter, Space, Store, StoreError, StoreErrorKind};

/// See the module. What is deleted of the lower store is only hidden, as long as this value lives.
pub struct LayeredStore {
    upper: Arc<dyn Store>,
    lower: Arc<dyn Store>,
    through: &'static [&'static str],
    hidden: Mutex<BTreeSet<String>>,
}

impl LayeredStore {
    /// `upper` over `lower`.
    #[must_use]
    pub fn new(upper: Arc<dyn Store>, lower: Arc<dyn Store>, through: &'static [&'static str]) -> Self {
        Self { upper, lower, through, hidden: Mutex::default() }
    }

    fn hidden(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn passes(&self, name: &str) -> bool {
        self.through.iter().any(|prefix| name.starts_with(prefix))
    }

    /// Facts about an object of the lower store, if it is not hidden.
    fn below(&self, name: &str) -> Result<Option<ObjectInfo>, StoreError> {
        if self.hidden().contains(name) { Ok(None) } else { self.lower.head(name) }
    }

    fn free(&self, name: &str) -> Result<(), StoreError> {
        match self.below(name)? {
            Some(_) => Err(StoreError::new("create", name, StoreErrorKind::AlreadyExists)),
            None => Ok(()),
        }
    }

    /// From above, and from below what is not there.
    fn either<T>(
        &self,
        name: &str,
        read: impl Fn(&dyn Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match read(self.upper.as_ref()) {
            Err(error) if error.kind == StoreErrorKind::NotFound && !self.hidden().contains(name) => {
                read(self.lower.as_ref())
            }
            result => result,
        }
    }

    /// Whether anything below `prefix` can be seen.
    fn any(&self, prefix: &str) -> Result<bool, StoreError> {
        let mut any = false;
        self.list(prefix, None, &mut |_| {
            any = true;
            ControlFlow::Break(())
        })?;
        Ok(any)
    }
}

impl Store for LayeredStore {
    fn describe(&self) -> String {
        format!("{}, over {}", self.upper.describe(), self.lower.describe())
    }

    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, StoreError> {
        if self.passes(name) {
            return self.lower.create(name);
        }
        self.free(name)?;
        self.upper.create(name)
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        if self.passes(name) {
            return self.lower.put_new(name, bytes);
        }
        self.free(name)?;
        self.upper.put_new(name, bytes)
    }

    fn open(&self, name: &str) -> Result<Box<dyn ObjectReader>, StoreError> {
        self.either(name, |store| store.open(name))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.either(name, |store| store.get(name))
    }

    fn head(&self, name: &str) -> Result<Option<ObjectInfo>, StoreError> {
        match self.upper.head(name)? {
            Some(found) => Ok(Some(found)),
            None => self.below(name),
        }
    }

    fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut above = Vec::new();
        self.upper.list(prefix, start_after, &mut |found| {
            above.push(found);
            ControlFlow::Continue(())
        })?;
        let mut above = above.into_iter().peekable();
        let hidden = self.hidden().clone();
        let mut flow = ControlFlow::Continue(());
        self.lower.list(prefix, start_after, &mut |found| {
            while let Some(earlier) = above.next_if(|next| next.name <= found.name) {
                let same = earlier.name == found.name;
                flow = visit(earlier);
                if same || flow.is_break() {
                    return flow;
                }
            }
            if !hidden.contains(&found.name) {
                flow = visit(found);
            }
            flow
        })?;
        for found in above {
            if flow.is_break() {
                break;
            }
            flow = visit(found);
        }
        Ok(())
    }

    fn list_children(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut names: BTreeSet<String> = self.upper.list_children(prefix)?.into_iter().collect();
        let hides = self.hidden().iter().any(|name| name.starts_with(prefix));
        for name in self.lower.list_children(prefix)? {
            if !hides || self.any(&format!("{prefix}{name}/"))? {
                names.insert(name);
            }
        }
        Ok(names.into_iter().collect())
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        if self.passes(name) {
            return self.lower.delete(name);
        }
        self.upper.delete(name)?;
        if self.lower.head(name)?.is_some() {
            self.hidden().insert(name.to_owned());
        }
        Ok(())
    }

    fn space(&self) -> Result<Option<Space>, StoreError> {
        self.upper.space()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryStore, conformance};

    fn over(lower: &MemoryStore) -> LayeredStore {
        LayeredStore::new(Arc::new(MemoryStore::new()), Arc::new(lower.clone()), &["leases/"])
    }

    #[test]
    fn it_keeps_every_promise_of_a_store() {
        conformance::run(&mut || Arc::new(over(&MemoryStore::new()))).unwrap();
    }

    #[test]
    fn the_lower_store_is_seen_and_never_changed_but_for_what_goes_through() {
        let lower = MemoryStore::new();
        for name in ["a/1", "a/3", "b/1"] {
            lower.put_new(name, b"below").unwrap();
        }
        let store = over(&lower);
        store.put_new("a/2", b"above").unwrap();
        store.put_new("leases/x", b"").unwrap();
        assert_eq!(store.put_new("a/1", b"").unwrap_err().kind, StoreErrorKind::AlreadyExists);
        assert_eq!(store.get("a/1").unwrap(), b"below");
        store.delete("a/3").unwrap();
        store.delete("b/1").unwrap();
        assert_eq!(store.get("a/3").unwrap_err().kind, StoreErrorKind::NotFound);
        assert!(store.head("a/3").unwrap().is_none());
        let mut seen = Vec::new();
        store
            .list("", None, &mut |found| {
                seen.push(found.name);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(seen, ["a/1", "a/2", "leases/x"]);
        assert_eq!(store.list_children("").unwrap(), ["a", "leases"]);
        store.put_new("a/3", b"anew").unwrap();
        assert_eq!(store.get("a/3").unwrap(), b"anew");
        assert_eq!(lower.names(), ["a/1", "a/3", "b/1", "leases/x"]);
        assert_eq!(lower.get("a/3").unwrap(), b"below");
    }
}
