//! Files that wait for a reader, the largest first: a large one that came last would keep one reader busy while the
//! others have nothing left to do.

use std::collections::BinaryHeap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::walk::Found;

/// A bounded queue between one thread that lists and several that read.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    capacity: usize,
}

#[derive(Default)]
struct State {
    waiting: BinaryHeap<Waiting>,
    closed: bool,
}

struct Waiting(Found);

impl Queue {
    /// A queue that holds that many files.
    pub(super) fn new(capacity: usize) -> Self {
        Self { state: Mutex::new(State::default()), changed: Condvar::new(), capacity }
    }

    /// Adds a file; waits while the queue is full.
    pub(super) fn push(&self, found: Found) {
        let mut state = self.lock();
        while state.waiting.len() >= self.capacity {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.push(Waiting(found));
        self.changed.notify_all();
    }

    /// Nothing is added any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// The largest file that waits; `None` if the queue is empty and closed.
    pub(super) fn pop(&self) -> Option<Found> {
        let mut state = self.lock();
        loop {
            if let Some(Waiting(found)) = state.waiting.pop() {
                self.changed.notify_all();
                return Some(found);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Files of one size are taken in the order of their names, so that neighbours stay together.
    fn rank(&self) -> (u64, std::cmp::Reverse<&str>) {
        (self.0.meta.size_hint, std::cmp::Reverse(self.0.meta.path.as_str()))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use everpoint_core::Micros;
    use everpoint_engine::{FileKind, FileMeta};

    use super::*;

    fn file(path: &str, size: u64) -> Found {
        let meta = FileMeta {
            path: path.to_owned(),
            kind: FileKind::Plain,
            mode: 0o600,
            modified: Micros(0),
            size_hint: size,
        };
        Found { meta, path: PathBuf::from(path), pages: None, settles: false, needed: false }
    }

    #[test]
    fn the_largest_comes_first_and_the_end_is_told() {
        let queue = Queue::new(10);
        for (path, size) in [("b", 5), ("a", 5), ("large", 900), ("small", 1)] {
            queue.push(file(path, size));
        }
        queue.close();
        let order: Vec<String> = std::iter::from_fn(|| queue.pop()).map(|found| found.meta.path).collect();
        assert_eq!(order, ["large", "a", "b", "small"]);
    }

    #[test]
    fn a_full_queue_makes_the_lister_wait_and_loses_nothing() {
        let queue = Queue::new(2);
        let taken = std::thread::scope(|scope| {
            let readers: Vec<_> =
                (0..3).map(|_| scope.spawn(|| std::iter::from_fn(|| queue.pop()).count())).collect();
            (0..100).for_each(|n| queue.push(file(&n.to_string(), n)));
            queue.close();
            readers.into_iter().map(|reader| reader.join().unwrap()).sum::<usize>()
        });
        assert_eq!(taken, 100);
    }
}
