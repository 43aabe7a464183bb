//! What is said of a server that is another one, and of a repository that is full.

use std::ops::ControlFlow;
use std::sync::Arc;

use everpoint_core::LogOffset;
use everpoint_engine::StopFlag;
use everpoint_engine::fake::{FakeEngine, FakeLog};
use everpoint_store::{MemoryStore, ObjectInfo, ObjectReader, ObjectWriter, Space, Store, StoreError};

use super::*;
use crate::capture::{self, CaptureRequest};
use crate::testing::{SEGMENT, SYSTEM, context, log, reopen};
use crate::{Quiet, check};

const SLOT: &str = "everpoint_db";

/// A repository that holds a captured log.
fn stored() -> (MemoryStore, Arc<FakeEngine>) {
    let store = MemoryStore::new();
    let engine = Arc::new(FakeEngine::new(log(100)));
    let context = context(Arc::new(store.clone()), &engine);
    let stop = StopFlag::default();
    let request = CaptureRequest { once: true, slot: SLOT.to_owned(), create_slot: true, stop };
    capture::run(&context, &request, &Quiet).unwrap();
    (store, engine)
}

fn checked(context: &ClusterContext) -> check::CheckReport {
    let promise =
        crate::advice::Promise { policy: everpoint_core::RetentionPolicy::default(), schedule: None };
    let key = check::KeyPlace::None;
    let slot = SLOT.to_owned();
    check::run(context, &check::CheckRequest { slot, key, promise, more: Vec::new(), others: Vec::new() })
}

#[test]
fn positions_of_another_system_are_not_compared() {
    let (store, _) = stored();
    let other = FakeLog::new(SYSTEM + 1, 1, SEGMENT, LogOffset(SEGMENT));
    let engine = Arc::new(FakeEngine::new(other));
    let context = reopen(Arc::new(store), &engine).unwrap();
    let report = run(&context, SLOT).unwrap();
    let told: Vec<&String> =
        report.problems.iter().filter(|it| it.contains("adopt") || it.contains("capture")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("another system") && told[0].contains("everpoint adopt db"), "{told:?}");
    assert_eq!(report.capture.unwrap().lag_bytes, None);
    let lines = checked(&context).lines;
    let capture = lines.iter().find(|line| line.name == "capture").unwrap();
    assert!(capture.message.contains("another system") && capture.state == CheckState::Error, "{capture:?}");
    assert!(!lines.iter().any(|line| line.name == "timeline"), "{lines:?}");
}

#[test]
fn slots_that_nobody_uses_are_named() {
    let slot = |name: &str| ServerSlot {
        name: name.to_owned(),
        active: false,
        temporary: false,
        physical: true,
        held: Some(5 << 20),
        ..ServerSlot::default()
    };
    let told = orphaned(&[slot(SLOT), slot("everpoint_old"), slot("standby")], SLOT);
    assert!(
        told.len() == 1
            && told[0].contains("the slot everpoint_old is used by nobody and holds back 5.0 MiB")
    );
    assert!(told[0].ends_with("SELECT pg_drop_replication_slot('everpoint_old')"), "{told:?}");
}

#[test]
fn a_full_repository_is_told_at_once_and_as_the_cause() {
    let (store, engine) = stored();
    let full: Arc<dyn Store> = Arc::new(Full(store));
    let context = reopen(full, &engine).unwrap();
    let report = run(&context, SLOT).unwrap();
    let told: Vec<&String> = report.problems.iter().filter(|it| it.contains("is full")).collect();
    assert!(
        told.len() == 1 && told[0].contains("1.0 MiB free of 1.0 GiB; needed: "),
        "{:?}",
        report.problems
    );
    assert!(told[0].contains("everpoint expire db --dry-run"), "{told:?}");
    let lines = checked(&context).lines;
    for name in ["repository", "capture"] {
        let line = lines.iter().find(|line| line.name == name).unwrap();
        assert!(line.state == CheckState::Error && line.message.contains("full"), "{line:?}");
    }
}

/// A store with little room, in which small things still have some.
struct Full(MemoryStore);

impl Store for Full {
    fn space(&self) -> Result<Option<Space>, StoreError> {
        Ok(Some(Space { total: 1 << 30, free: 1 << 20 }))
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.0.create(name)
    }

    fn open(&self, name: &str) -> Result<Box<dyn ObjectReader>, StoreError> {
        self.0.open(name)
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.0.get(name)
    }

    fn head(&self, name: &str) -> Result<Option<ObjectInfo>, StoreError> {
        self.0.head(name)
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.0.list(prefix, after, visit)
    }

    fn list_children(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.0.list_children(prefix)
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.0.delete(name)
    }
}
