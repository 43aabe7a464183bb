//! Repeats calls that failed in passing.

#![deny(clippy::missing_trait_methods)]

use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::{ObjectInfo, ObjectReader, ObjectWriter, Space, Store, StoreError, StoreErrorKind};

/// How often and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Calls in all, the first one included; at least 1.
    pub attempts: u32,
    /// Longest wait before the second call; doubles with each further one.
    pub base: Duration,
    /// No wait is longer.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    /// Six calls within about ten seconds.
    fn default() -> Self {
        Self { attempts: 6, base: Duration::from_millis(200), cap: Duration::from_secs(5) }
    }
}

impl RetryPolicy {
    /// The wait after call number `attempt` (from 1): between half and all of the doubled base, so that many clients of a
    /// store that comes back don't arrive at once. `random` is any number.
    #[must_use]
    pub fn wait(&self, attempt: u32, random: u64) -> Duration {
        let full = self
            .base
            .saturating_mul(1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX))
            .min(self.cap);
        let half = full / 2;
        let jitter = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
        half.saturating_add(Duration::from_micros(random % jitter))
    }

    fn run<T>(&self, mut call: impl FnMut(u32) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut attempt = 1;
        loop {
            match call(attempt) {
                Err(error) if error.retryable() && attempt < self.attempts => {
                    tracing::debug!(
                        attempt,
                        error = &error as &dyn std::error::Error,
                        "store call is repeated"
                    );
                    std::thread::sleep(self.wait(attempt, RandomState::new().hash_one(attempt)));
                    attempt += 1;
                }
                result => return result,
            }
        }
    }
}

/// Repeats calls whose error is [`StoreError::retryable`].
///
/// The stream of a new object can't be repeated: its `write` and `commit` are passed on once, and the caller decides.
pub struct RetryStore {
    inner: Arc<dyn Store>,
    policy: RetryPolicy,
}

impl RetryStore {
    /// Retries calls to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, policy: RetryPolicy) -> Self {
        Self { inner, policy }
    }
}

impl Store for RetryStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.policy.run(|_| self.inner.create(name))
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.policy.run(|attempt| match self.inner.put_new(name, bytes) {
            // The answer to an earlier attempt may have been lost after it took effect.
            Err(error) if attempt > 1 && error.kind == StoreErrorKind::AlreadyExists => {
                if self.inner.get(name)? == bytes { Ok(()) } else { Err(error) }
            }
            result => result,
        })
    }

    fn open(&self, name: &str) -> Result<Box<dyn ObjectReader>, StoreError> {
        let reader = self.policy.run(|_| self.inner.open(name))?;
        Ok(Box::new(Reader { inner: reader, policy: self.policy }))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.policy.run(|_| self.inner.get(name))
    }

    fn head(&self, name: &str) -> Result<Option<ObjectInfo>, StoreError> {
        self.policy.run(|_| self.inner.head(name))
    }

    fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        // A repeated listing goes on behind what was visited.
        let mut after = start_after.map(str::to_owned);
        self.policy.run(|_| {
            let from = after.clone();
            self.inner.list(prefix, from.as_deref(), &mut |info| {
                after = Some(info.name.clone());
                visit(info)
            })
        })
    }

    fn list_children(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.policy.run(|_| self.inner.list_children(prefix))
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.policy.run(|_| self.inner.delete(name))
    }

    fn space(&self) -> Result<Option<Space>, StoreError> {
        self.policy.run(|_| self.inner.space())
    }
}

struct Reader {
    inner: Box<dyn ObjectReader>,
    policy: RetryPolicy,
}

impl ObjectReader for Reader {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        self.policy.run(|_| self.inner.read_at(offset, buffer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fault, FaultKind, FaultyStore, MemoryStore, conformance};

    const QUICK: RetryPolicy =
        RetryPolicy { attempts: 3, base: Duration::from_micros(10), cap: Duration::from_micros(50) };

    fn with_fault(fault: Fault) -> (MemoryStore, RetryStore) {
        let memory = MemoryStore::new();
        let faulty = Arc::new(FaultyStore::new(Arc::new(memory.clone()), vec![fault]));
        (memory, RetryStore::new(faulty, QUICK))
    }

    #[test]
    fn passes_the_conformance_suite() {
        let result = conformance::run(&mut || Arc::new(RetryStore::new(Arc::new(MemoryStore::new()), QUICK)));
        assert_eq!(result, Ok(()));
    }

    #[test]
    fn passes_the_conformance_suite_while_any_single_call_fails_in_passing() {
        // Streams are left out: they can't be repeated.
        for step in 1..=12 {
            for kind in [FaultKind::Fail, FaultKind::LoseAnswer] {
                let (_, store) = with_fault(Fault { step, kind });
                store.put_new("a/b", b"12").unwrap();
                store.put_new("a/c", b"34").unwrap();
                assert_eq!(store.put_new("a/b", b"xy").unwrap_err().kind, StoreErrorKind::AlreadyExists);
                assert_eq!(store.get("a/b").unwrap(), b"12");
                let mut buffer = [0];
                store.open("a/c").unwrap().read_at(1, &mut buffer).unwrap();
                assert_eq!(&buffer, b"4");
                let mut names = Vec::new();
                store
                    .list("", None, &mut |info| {
                        names.push(info.name);
                        ControlFlow::Continue(())
                    })
                    .unwrap();
                assert_eq!(names, ["a/b", "a/c"], "step {step}");
                store.delete("a/b").unwrap();
                assert!(store.head("a/b").unwrap().is_none());
            }
        }
    }

    #[test]
    fn gives_up_in_the_end_and_at_once_where_it_is_hopeless() {
        let faults = (1..=9).map(|step| Fault { step, kind: FaultKind::Fail }).collect();
        let faulty = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), faults));
        let store = RetryStore::new(Arc::clone(&faulty) as Arc<dyn Store>, QUICK);
        assert_eq!(store.get("a").unwrap_err().kind, StoreErrorKind::Unavailable);
        assert_eq!(faulty.steps(), 3);
        let memory = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), Vec::new()));
        let store = RetryStore::new(Arc::clone(&memory) as Arc<dyn Store>, QUICK);
        assert_eq!(store.get("a").unwrap_err().kind, StoreErrorKind::NotFound);
        assert_eq!(memory.steps(), 1);
    }

    #[test]
    fn waits_grow_are_spread_and_bounded() {
        let policy =
            RetryPolicy { attempts: 9, base: Duration::from_millis(100), cap: Duration::from_secs(2) };
        assert_eq!(policy.wait(1, 0), Duration::from_millis(50));
        assert_eq!(policy.wait(2, 0), Duration::from_millis(100));
        assert_eq!(policy.wait(40, 0), Duration::from_secs(1));
        for random in 0..1000 {
            let wait = policy.wait(3, random * 977);
            assert!(wait >= Duration::from_millis(200) && wait <= Duration::from_millis(400));
        }
    }
}
