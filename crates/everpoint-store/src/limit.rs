//! Bounds the bytes per second to and from a store.

#![deny(clippy::missing_trait_methods)]

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{ObjectInfo, ObjectReader, ObjectWriter, Space, Store, StoreError};

/// Bytes per second; `None`: unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// From the store.
    pub read: Option<u64>,
    /// To the store.
    pub write: Option<u64>,
}

/// All transfers of one direction take turns on this.
struct Pace {
    rate: u64,
    free_at: Mutex<Option<Instant>>,
}

/// What an idle time may be made up for at once.
const BURST: Duration = Duration::from_millis(100);

impl Pace {
    fn new(rate: Option<u64>) -> Option<Arc<Self>> {
        rate.map(|rate| Arc::new(Self { rate: rate.max(1), free_at: Mutex::new(None) }))
    }

    /// Waits for the turn of `bytes`.
    fn take(&self, bytes: usize) {
        let wait = self.reserve(bytes, Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
    }

    fn reserve(&self, bytes: usize, now: Instant) -> Duration {
        let nanos = (bytes as u128).saturating_mul(1_000_000_000) / u128::from(self.rate);
        let lasts = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let start = free_at.map_or(earliest, |at| at.max(earliest));
        let end = start.checked_add(lasts).unwrap_or(start);
        *free_at = Some(end);
        end.saturating_duration_since(now)
    }
}

/// A store whose transfers keep within [`Rates`], all threads together.
pub struct LimitStore {
    inner: Arc<dyn Store>,
    read: Option<Arc<Pace>>,
    write: Option<Arc<Pace>>,
}

impl LimitStore {
    /// Bounds the transfers of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, rates: Rates) -> Self {
        Self { inner, read: Pace::new(rates.read), write: Pace::new(rates.write) }
    }
}

fn take(pace: Option<&Arc<Pace>>, bytes: usize) {
    if let Some(pace) = pace {
        pace.take(bytes);
    }
}

impl Store for LimitStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, StoreError> {
        Ok(Box::new(Writer { inner: self.inner.create(name)?, pace: self.write.clone() }))
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        take(self.write.as_ref(), bytes.len());
        self.inner.put_new(name, bytes)
    }

    fn open(&self, name: &str) -> Result<Box<dyn ObjectReader>, StoreError> {
        Ok(Box::new(Reader { inner: self.inner.open(name)?, pace: self.read.clone() }))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let bytes = self.inner.get(name)?;
        take(self.read.as_ref(), bytes.len());
        Ok(bytes)
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
        self.inner.delete(name)
    }

    fn space(&self) -> Result<Option<Space>, StoreError> {
        self.inner.space()
    }
}

struct Writer {
    inner: Box<dyn ObjectWriter>,
    pace: Option<Arc<Pace>>,
}

impl ObjectWriter for Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        take(self.pace.as_ref(), bytes.len());
        self.inner.write(bytes)
    }

    fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.inner.commit()
    }
}

struct Reader {
    inner: Box<dyn ObjectReader>,
    pace: Option<Arc<Pace>>,
}

impl ObjectReader for Reader {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        take(self.pace.as_ref(), buffer.len());
        self.inner.read_at(offset, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryStore, conformance};

    #[test]
    fn passes_the_conformance_suite() {
        let rates = Rates { read: Some(1 << 30), write: Some(1 << 30) };
        let result = conformance::run(&mut || Arc::new(LimitStore::new(Arc::new(MemoryStore::new()), rates)));
        assert_eq!(result, Ok(()));
    }

    #[test]
    fn transfers_queue_behind_each_other_and_idle_time_is_not_hoarded() {
        let pace = Pace::new(Some(1000)).unwrap();
        let begin = Instant::now();
        assert_eq!(pace.reserve(1000, begin), Duration::from_millis(900));
        assert_eq!(pace.reserve(500, begin), Duration::from_millis(1400));
        let later = begin + Duration::from_secs(100);
        assert_eq!(pace.reserve(1000, later), Duration::from_millis(900));
    }

    #[test]
    fn a_write_takes_its_time() {
        let store = LimitStore::new(Arc::new(MemoryStore::new()), Rates { read: None, write: Some(100_000) });
        let begin = Instant::now();
        store.put_new("a", &[0; 30_000]).unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(190));
        let begin = Instant::now();
        store.get("a").unwrap();
        assert!(begin.elapsed() < Duration::from_millis(190));
    }
}
