//! A store in memory, for tests.
//!
//! Fault model: none by itself; it keeps every promise of the trait. Damage is done on request: [`MemoryStore::lose`],
//! [`MemoryStore::flip`], [`MemoryStore::cut`]. Its clock can be moved with [`MemoryStore::advance`].

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::name::{check_name, check_prefix};
use crate::{ObjectInfo, ObjectReader, ObjectWriter, Space, Store, StoreError, StoreErrorKind};

#[derive(Debug, Clone)]
struct Object {
    bytes: Arc<Vec<u8>>,
    modified: i64,
}

#[derive(Debug, Default)]
struct State {
    objects: Mutex<BTreeMap<String, Object>>,
    clock_offset: AtomicI64,
}

impl State {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Object>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        let modified = self.now();
        let mut objects = self.objects();
        if objects.contains_key(name) {
            return Err(StoreError::new("create", name, StoreErrorKind::AlreadyExists));
        }
        objects.insert(name.to_owned(), Object { bytes: Arc::new(bytes), modified });
        Ok(())
    }

    fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        micros.saturating_add(self.clock_offset.load(Ordering::SeqCst))
    }
}

/// See the module. Clones share their objects; [`MemoryStore::copy`] does not.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    state: Arc<State>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An independent store with the same objects.
    #[must_use]
    pub fn copy(&self) -> Self {
        let objects = Mutex::new(self.state.objects().clone());
        let clock_offset = AtomicI64::new(self.state.clock_offset.load(Ordering::SeqCst));
        Self { state: Arc::new(State { objects, clock_offset }) }
    }

    /// Loses an object; tells whether there was one.
    pub fn lose(&self, name: &str) -> bool {
        self.state.objects().remove(name).is_some()
    }

    /// Flips the lowest bit of one byte; tells whether there was such a byte.
    pub fn flip(&self, name: &str, at: usize) -> bool {
        self.damage(name, |bytes| bytes.get_mut(at).map(|byte| *byte ^= 1).is_some())
    }

    /// Cuts an object to `length` bytes; tells whether it was longer.
    pub fn cut(&self, name: &str, length: usize) -> bool {
        self.damage(name, |bytes| {
            let longer = bytes.len() > length;
            bytes.truncate(length);
            longer
        })
    }

    /// Moves the store's clock, in microseconds.
    pub fn advance(&self, micros: i64) {
        self.state.clock_offset.fetch_add(micros, Ordering::SeqCst);
    }

    /// The names of all objects, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state.objects().keys().cloned().collect()
    }

    fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let mut objects = self.state.objects();
        objects.get_mut(name).is_some_and(|object| change(Arc::make_mut(&mut object.bytes)))
    }

    fn find(&self, operation: &'static str, name: &str) -> Result<Object, StoreError> {
        check_name(operation, name)?;
        let found = self.state.objects().get(name).cloned();
        found.ok_or_else(|| StoreError::new(operation, name, StoreErrorKind::NotFound))
    }
}

impl Store for MemoryStore {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, StoreError> {
        check_name("create", name)?;
        Ok(Box::new(Writer { state: Arc::clone(&self.state), name: name.to_owned(), bytes: Vec::new() }))
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check_name("create", name)?;
        self.state.put(name, bytes.to_vec())
    }

    fn open(&self, name: &str) -> Result<Box<dyn ObjectReader>, StoreError> {
        let object = self.find("open", name)?;
        Ok(Box::new(Reader { name: name.to_owned(), bytes: object.bytes }))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        Ok(self.find("read", name)?.bytes.to_vec())
    }

    fn head(&self, name: &str) -> Result<Option<ObjectInfo>, StoreError> {
        check_name("look up", name)?;
        Ok(self.state.objects().get(name).map(|object| info(name, object)))
    }

    fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        check_prefix("list", prefix)?;
        let mut from = match start_after {
            Some(after) if after >= prefix => Bound::Excluded(after.to_owned()),
            _ => Bound::Included(prefix.to_owned()),
        };
        loop {
            // One object at a time, so that the visitor may use the store itself.
            let next = {
                let objects = self.state.objects();
                let next = objects.range((from, Bound::Unbounded)).next();
                next.filter(|(name, _)| name.starts_with(prefix)).map(|(name, object)| info(name, object))
            };
            let Some(next) = next else { return Ok(()) };
            from = Bound::Excluded(next.name.clone());
            if visit(next).is_break() {
                return Ok(());
            }
        }
    }

    fn list_children(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        check_prefix("list", prefix)?;
        let mut children: Vec<String> = Vec::new();
        for name in self.state.objects().range(prefix.to_owned()..).map(|(name, _)| name) {
            let Some(rest) = name.strip_prefix(prefix) else {
                break;
            };
            if let Some((child, _)) = rest.split_once('/')
                && children.last().is_none_or(|last| last != child)
            {
                children.push(child.to_owned());
            }
        }
        children.sort_unstable();
        children.dedup();
        Ok(children)
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        check_name("delete", name)?;
        self.state.objects().remove(name);
        Ok(())
    }

    fn space(&self) -> Result<Option<Space>, StoreError> {
        Ok(None)
    }
}

fn info(name: &str, object: &Object) -> ObjectInfo {
    ObjectInfo { name: name.to_owned(), size: object.bytes.len() as u64, modified_micros: object.modified }
}

struct Writer {
    state: Arc<State>,
    name: String,
    bytes: Vec<u8>,
}

impl ObjectWriter for Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.state.put(&self.name, self.bytes)
    }
}

struct Reader {
    name: String,
    bytes: Arc<Vec<u8>>,
}

impl ObjectReader for Reader {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let found = usize::try_from(offset)
            .ok()
            .and_then(|from| self.bytes.get(from..from.checked_add(buffer.len())?));
        let Some(found) = found else {
            let cause = format!("it ends at byte {}, before {} + {}", self.bytes.len(), offset, buffer.len());
            return Err(StoreError::new("read", self.name.clone(), StoreErrorKind::Other).cause(cause));
        };
        buffer.copy_from_slice(found);
        Ok(())
    }
}
