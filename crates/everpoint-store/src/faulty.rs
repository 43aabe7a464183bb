//! A store that fails on purpose, for tests.
//!
//! Fault model. Every call to the store, to its writers and to its readers is a step, numbered from 1 in the order in which
//! calls begin. (`describe`, `size` and dropping are no steps.) At chosen steps one of these happens:
//! - [`FaultKind::Fail`]: the call has no effect and says `Unavailable`; a listing stops after its first half.
//! - [`FaultKind::LoseAnswer`]: the call takes effect, and says `Unavailable`.
//! - [`FaultKind::CrashBefore`]: as `Fail`, and so does every call afterwards: the process died before the call arrived.
//! - [`FaultKind::CrashAfter`]: as `LoseAnswer`, and every call afterwards fails: it died before the answer arrived.
//! - [`FaultKind::Lose`]: a write of an object says that all is well, and the object is not there (a lying disk).
//! - [`FaultKind::Truncate`]: a write of an object says that all is well, and its second half is missing.
//! - [`FaultKind::Delay`]: the call takes so much longer.
//!
//! `Lose` and `Truncate` do nothing to a call that writes nothing. Objects never appear in part except by `Truncate`,
//! as the trait promises, and what unfinished writers hold is gone after a crash.

#![deny(clippy::missing_trait_methods)]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::{ObjectInfo, ObjectReader, ObjectWriter, Space, Store, StoreError, StoreErrorKind};

/// What goes wrong; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// No effect, one error.
    Fail,
    /// Effect, one error.
    LoseAnswer,
    /// No effect, errors from now on.
    CrashBefore,
    /// Effect, errors from now on.
    CrashAfter,
    /// No error, no object.
    Lose,
    /// No error, half an object.
    Truncate,
    /// Slow.
    Delay(Duration),
}

/// Which step goes wrong, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Number of the step, from 1.
    pub step: u64,
    /// What happens.
    pub kind: FaultKind,
}

struct Plan {
    faults: Vec<Fault>,
    steps: AtomicU64,
    crashed: AtomicBool,
}

/// See the module.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    plan: Arc<Plan>,
}

impl FaultyStore {
    /// `inner` with these faults.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, faults: Vec<Fault>) -> Self {
        let plan = Plan { faults, steps: AtomicU64::new(0), crashed: AtomicBool::new(false) };
        Self { inner, plan: Arc::new(plan) }
    }

    /// Steps so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.plan.steps.load(Ordering::SeqCst)
    }

    /// Whether a crash has happened.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.plan.crashed.load(Ordering::SeqCst)
    }
}

impl Plan {
    /// Counts a step; returns what goes wrong with it, or the error of a process that is dead.
    fn step(&self, operation: &'static str, name: &str) -> Result<Option<FaultKind>, StoreError> {
        let step = self.steps.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        if self.crashed.load(Ordering::SeqCst) {
            return Err(broken(operation, name));
        }
        let kind = self.faults.iter().find(|fault| fault.step == step).map(|fault| fault.kind);
        match kind {
            Some(FaultKind::CrashBefore | FaultKind::CrashAfter) => {
                self.crashed.store(true, Ordering::SeqCst)
            }
            Some(FaultKind::Delay(time)) => std::thread::sleep(time),
            _ => {}
        }
        Ok(kind)
    }

    /// Runs a call that writes no object.
    fn run<T>(
        &self,
        operation: &'static str,
        name: &str,
        call: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match self.step(operation, name)? {
            Some(FaultKind::Fail | FaultKind::CrashBefore) => Err(broken(operation, name)),
            Some(FaultKind::LoseAnswer | FaultKind::CrashAfter) => {
                let _ = call();
                Err(broken(operation, name))
            }
            _ => call(),
        }
    }
}

fn broken(operation: &'static str, name: &str) -> StoreError {
    StoreError::new(operation, name, StoreErrorKind::Unavailable).cause("a fault was asked for")
}

impl Store for FaultyStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let inner = self.plan.run("create", name, || self.inner.create(name))?;
        Ok(Box::new(Writer { inner, name: name.to_owned(), plan: Arc::clone(&self.plan), lied: false }))
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        match self.plan.step("create", name)? {
            Some(FaultKind::Fail | FaultKind::CrashBefore) => Err(broken("create", name)),
            Some(FaultKind::LoseAnswer | FaultKind::CrashAfter) => {
                let _ = self.inner.put_new(name, bytes);
                Err(broken("create", name))
            }
            Some(FaultKind::Lose) => Ok(()),
            Some(FaultKind::Truncate) => {
                self.inner.put_new(name, bytes.get(..bytes.len() / 2).unwrap_or_default())
            }
            Some(FaultKind::Delay(_)) | None => self.inner.put_new(name, bytes),
        }
    }

    fn open(&self, name: &str) -> Result<Box<dyn ObjectReader>, StoreError> {
        let inner = self.plan.run("open", name, || self.inner.open(name))?;
        Ok(Box::new(Reader { inner, name: name.to_owned(), plan: Arc::clone(&self.plan) }))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.plan.run("read", name, || self.inner.get(name))
    }

    fn head(&self, name: &str) -> Result<Option<ObjectInfo>, StoreError> {
        self.plan.run("look up", name, || self.inner.head(name))
    }

    fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        match self.plan.step("list", prefix)? {
            Some(
                FaultKind::Fail | FaultKind::LoseAnswer | FaultKind::CrashBefore | FaultKind::CrashAfter,
            ) => {
                self.list_half(prefix, start_after, visit)?;
                Err(broken("list", prefix))
            }
            _ => self.inner.list(prefix, start_after, visit),
        }
    }

    fn list_children(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.plan.run("list", prefix, || self.inner.list_children(prefix))
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.plan.run("delete", name, || self.inner.delete(name))
    }

    fn space(&self) -> Result<Option<Space>, StoreError> {
        self.plan.run("ask for the free space of", "the store", || self.inner.space())
    }
}

impl FaultyStore {
    fn list_half(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut all = 0_usize;
        self.inner.list(prefix, start_after, &mut |_| {
            all = all.saturating_add(1);
            ControlFlow::Continue(())
        })?;
        let mut left = all / 2;
        self.inner.list(prefix, start_after, &mut |info| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            visit(info)
        })
    }
}

struct Writer {
    inner: Box<dyn ObjectWriter>,
    name: String,
    plan: Arc<Plan>,
    /// The object is to vanish although everything was said to be well.
    lied: bool,
}

impl ObjectWriter for Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        match self.plan.step("write", &self.name)? {
            Some(
                FaultKind::Fail | FaultKind::CrashBefore | FaultKind::LoseAnswer | FaultKind::CrashAfter,
            ) => Err(broken("write", &self.name)),
            Some(FaultKind::Lose) => {
                self.lied = true;
                Ok(())
            }
            Some(FaultKind::Truncate) => self.inner.write(bytes.get(..bytes.len() / 2).unwrap_or_default()),
            Some(FaultKind::Delay(_)) | None => self.inner.write(bytes),
        }
    }

    fn commit(self: Box<Self>) -> Result<(), StoreError> {
        match self.plan.step("create", &self.name)? {
            Some(FaultKind::Fail | FaultKind::CrashBefore) => Err(broken("create", &self.name)),
            Some(FaultKind::LoseAnswer | FaultKind::CrashAfter) => {
                let _ = self.inner.commit();
                Err(broken("create", &self.name))
            }
            Some(FaultKind::Lose) => Ok(()),
            _ if self.lied => Ok(()),
            _ => self.inner.commit(),
        }
    }
}

struct Reader {
    inner: Box<dyn ObjectReader>,
    name: String,
    plan: Arc<Plan>,
}

impl ObjectReader for Reader {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        self.plan.run("read", &self.name, || self.inner.read_at(offset, buffer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryStore, conformance};

    fn with(kind: FaultKind, step: u64) -> (MemoryStore, FaultyStore) {
        let memory = MemoryStore::new();
        let store = FaultyStore::new(Arc::new(memory.clone()), vec![Fault { step, kind }]);
        (memory, store)
    }

    #[test]
    fn without_faults_it_passes_the_conformance_suite() {
        let result =
            conformance::run(&mut || Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), Vec::new())));
        assert_eq!(result, Ok(()));
    }

    #[test]
    fn each_fault_does_what_it_says() {
        for (kind, says_ok, there) in [
            (FaultKind::Fail, false, None),
            (FaultKind::LoseAnswer, false, Some(4)),
            (FaultKind::CrashBefore, false, None),
            (FaultKind::CrashAfter, false, Some(4)),
            (FaultKind::Lose, true, None),
            (FaultKind::Truncate, true, Some(2)),
            (FaultKind::Delay(Duration::from_millis(1)), true, Some(4)),
        ] {
            let (memory, store) = with(kind, 1);
            assert_eq!(store.put_new("a", b"1234").is_ok(), says_ok, "{kind:?}");
            assert_eq!(memory.head("a").unwrap().map(|info| info.size), there, "{kind:?}");
            let dead = matches!(kind, FaultKind::CrashBefore | FaultKind::CrashAfter);
            assert_eq!(store.put_new("b", b"").is_err(), dead, "{kind:?}");
            assert_eq!(store.crashed(), dead);
        }
    }

    #[test]
    fn a_stream_is_lost_with_the_process() {
        let (memory, store) = with(FaultKind::CrashBefore, 3);
        let mut writer = store.create("a").unwrap();
        writer.write(b"12").unwrap();
        assert!(writer.write(b"34").is_err());
        assert!(writer.commit().is_err());
        assert!(memory.names().is_empty());
        assert_eq!(store.steps(), 4);
    }
}
