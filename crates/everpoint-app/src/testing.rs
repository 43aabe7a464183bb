//! Contexts for tests: a scripted server and a repository in memory.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use everpoint_core::{LogOffset, Micros};
use everpoint_engine::fake::{FakeEngine, FakeLog};
use everpoint_repo::{LogStore, Repository};
use everpoint_store::{MemoryStore, Store};

use crate::lineage::branch_id;
use crate::{ClusterContext, Event, Events};

/// Bytes of a segment: the smallest that there is.
pub(crate) const SEGMENT: u64 = 1 << 20;
/// System identifier of the scripted server.
pub(crate) const SYSTEM: u64 = 4711;

/// A log of so many commits of 30,000 bytes each on timeline 1, beginning at the second segment.
pub(crate) fn log(commits: u64) -> FakeLog {
    let mut log = FakeLog::new(SYSTEM, 1, SEGMENT, LogOffset(SEGMENT));
    (1..=commits).for_each(|xid| {
        log.commit(xid, Micros(i64::try_from(xid).unwrap() * 1_000_000), 30_000);
    });
    log
}

/// A context over a new repository in `store`.
pub(crate) fn context(store: Arc<dyn Store>, engine: &Arc<FakeEngine>) -> ClusterContext {
    let repository = Repository::create(store, None).unwrap();
    let cluster = repository.cluster("db").unwrap();
    let engine: Arc<dyn everpoint_engine::Engine> = engine.clone();
    ClusterContext {
        name: "db".to_owned(),
        repository,
        cluster,
        engine,
        workers: 2,
        scratch: PathBuf::from("/nowhere"),
        belongings: Vec::new(),
        neighbours: Vec::new(),
    }
}

/// A context over an existing repository, as a new process opens it.
pub(crate) fn reopen(store: Arc<dyn Store>, engine: &Arc<FakeEngine>) -> Option<ClusterContext> {
    let repository = Repository::open(store, None).ok()?;
    let cluster = repository.cluster("db").ok()?;
    let engine: Arc<dyn everpoint_engine::Engine> = engine.clone();
    Some(ClusterContext {
        name: "db".to_owned(),
        repository,
        cluster,
        engine,
        workers: 2,
        scratch: PathBuf::from("/nowhere"),
        belongings: Vec::new(),
        neighbours: Vec::new(),
    })
}

/// The log of a branch of the only identity.
pub(crate) fn stored_log(store: &MemoryStore, timeline: u32, history: &[u8]) -> LogStore {
    let repository = Repository::open(Arc::new(store.clone()), None).unwrap();
    repository.cluster("db").unwrap().log(1, branch_id(timeline, history), SEGMENT)
}

/// What is stored of a branch from a position on, as far as it is contiguous.
pub(crate) fn read_back(log: &LogStore, from: LogOffset) -> Vec<u8> {
    let (mut bytes, mut at) = (Vec::new(), from);
    while let Some((segment, end)) = log.read_stored(at, 1).unwrap() {
        let skip = usize::try_from(at.since(log.segment_start(at))).unwrap();
        bytes.extend_from_slice(segment.get(skip..).unwrap_or_default());
        if end == at || end.0 % SEGMENT != 0 {
            break;
        }
        at = end;
    }
    bytes
}

/// Keeps what was told.
#[derive(Default)]
pub(crate) struct Heard(pub(crate) Mutex<Vec<Event>>);

impl Heard {
    pub(crate) fn warnings(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        let warning = |event: &Event| event.warning();
        events.iter().filter_map(warning).collect()
    }
}

impl Events for Heard {
    fn emit(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}
