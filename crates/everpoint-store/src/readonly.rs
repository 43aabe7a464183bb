//! A store that refuses to be changed.

#![deny(clippy::missing_trait_methods)]

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::{ObjectInfo, ObjectReader, ObjectWriter, Space, Store, StoreError, StoreErrorKind};

/// Passes reads on and denies everything else.
pub struct ReadOnlyStore {
    inner: Arc<dyn Store>,
}

impl ReadOnlyStore {
    /// A read-only view of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner }
    }

    fn refuse(&self, operation: &'static str, name: &str) -> StoreError {
        StoreError::new(operation, format!("{name} in {}", self.inner.describe()), StoreErrorKind::Denied)
            .cause("the store was opened for reading only")
    }
}

impl Store for ReadOnlyStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, StoreError> {
        Err(self.refuse("create", name))
    }

    fn put_new(&self, name: &str, _bytes: &[u8]) -> Result<(), StoreError> {
        Err(self.refuse("create", name))
    }

    fn open(&self, name: &str) -> Result<Box<dyn ObjectReader>, StoreError> {
        self.inner.open(name)
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.inner.get(name)
    }

    fn head(&self, name: &str) -> Result<Option<ObjectInfo>, StoreError> {
        self.inner.head(name)
    }

    fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.inner.list(prefix, start_after, visit)
    }

    fn list_children(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.inner.list_children(prefix)
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        Err(self.refuse("delete", name))
    }

    fn space(&self) -> Result<Option<Space>, StoreError> {
        self.inner.space()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;

    #[test]
    fn reads_pass_and_changes_are_denied() {
        let inner = Arc::new(MemoryStore::new());
        inner.put_new("a/b", b"x").unwrap();
        let store = ReadOnlyStore::new(inner);
        assert_eq!(store.get("a/b").unwrap(), b"x");
        assert_eq!(store.open("a/b").unwrap().size(), 1);
        assert_eq!(store.list_children("").unwrap(), ["a"]);
        assert_eq!(store.put_new("c", b"").unwrap_err().kind, StoreErrorKind::Denied);
        assert_eq!(store.create("c").err().unwrap().kind, StoreErrorKind::Denied);
        assert_eq!(store.delete("a/b").unwrap_err().kind, StoreErrorKind::Denied);
        assert!(store.head("a/b").unwrap().is_some());
    }
}
