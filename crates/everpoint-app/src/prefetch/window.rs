//! Which segments are to be kept ready, and how far each of them is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use everpoint_core::LogOffset;

use crate::log_file::SegmentName;

/// A segment that is not stored yet is looked for again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Fetching,
    Ready,
    Absent(Instant),
}

/// The next segments of one timeline.
#[derive(Debug)]
pub(super) struct Window {
    timeline: u32,
    /// Start of the first one wanted.
    from: LogOffset,
    segment_size: u64,
    count: usize,
    /// Nothing from here on is wanted.
    until: Option<LogOffset>,
    known: BTreeMap<SegmentName, Progress>,
    closed: bool,
}

impl Window {
    /// The `count` segments behind one, as far as they begin before `until`.
    pub(super) fn new(after: SegmentName, segment_size: u64, count: usize, until: Option<LogOffset>) -> Self {
        let from = LogOffset(0);
        let mut made = Self {
            timeline: after.timeline,
            from,
            segment_size,
            count,
            until,
            known: BTreeMap::new(),
            closed: false,
        };
        made.aim_behind(after);
        made
    }

    fn names(&self) -> impl Iterator<Item = SegmentName> + use<> {
        let (timeline, from, size, until) = (self.timeline, self.from, self.segment_size, self.until);
        (0..self.count as u64)
            .map(move |index| from.plus(index.saturating_mul(size)))
            .take_while(move |start| until.is_none_or(|until| *start < until))
            .map(move |start| SegmentName::at(timeline, start, size))
    }

    /// Whether all that is wanted before the end was taken.
    pub(super) fn is_done(&self) -> bool {
        self.until.is_some_and(|until| self.from >= until) && self.known.is_empty()
    }

    /// Whether a segment is among those to be kept ready.
    pub(super) fn is_wanted(&self, name: SegmentName) -> bool {
        !self.closed && self.names().any(|wanted| wanted == name)
    }

    /// Moves behind a segment. Returns the ready ones that nobody wants any more.
    pub(super) fn aim_behind(&mut self, name: SegmentName) -> Vec<SegmentName> {
        let Some(start) = name.start(self.segment_size) else {
            return Vec::new();
        };
        (self.timeline, self.from) = (name.timeline, start.plus(self.segment_size));
        let wanted: Vec<SegmentName> = self.names().collect();
        let mut dropped = Vec::new();
        self.known.retain(|name, progress| {
            let keep = wanted.contains(name) || *progress == Progress::Fetching;
            if !keep && *progress == Progress::Ready {
                dropped.push(*name);
            }
            keep
        });
        dropped
    }

    /// Moves behind the last ready segment that is no longer there: it was taken. Returns whether there was one.
    pub(super) fn note_taken(&mut self, is_there: &dyn Fn(SegmentName) -> bool) -> bool {
        let ready = self.known.iter().filter(|(_, progress)| **progress == Progress::Ready);
        let Some(taken) = ready.map(|(name, _)| *name).rfind(|name| !is_there(*name)) else {
            return false;
        };
        self.known.remove(&taken);
        self.aim_behind(taken);
        true
    }

    /// The next segment to fetch, which counts as being fetched from now on.
    pub(super) fn begin_next(&mut self, now: Instant) -> Option<SegmentName> {
        let due = |name: &SegmentName| match self.known.get(name) {
            None => true,
            Some(Progress::Absent(at)) => now.saturating_duration_since(*at) >= LOOK_AGAIN,
            Some(Progress::Fetching | Progress::Ready) => false,
        };
        // What follows a segment that is not stored yet is not stored either.
        let absent =
            |name: &SegmentName| matches!(self.known.get(name), Some(Progress::Absent(_))) && !due(name);
        let next = self.names().take_while(|name| !absent(name)).find(|name| due(name))?;
        self.known.insert(next, Progress::Fetching);
        Some(next)
    }

    /// A segment is ready.
    pub(super) fn ready(&mut self, name: SegmentName) {
        self.known.insert(name, Progress::Ready);
    }

    /// A segment is not stored, or can't be had now.
    pub(super) fn absent(&mut self, name: SegmentName, now: Instant) {
        self.known.insert(name, Progress::Absent(now));
    }

    /// A segment is no concern any more.
    pub(super) fn forget(&mut self, name: SegmentName) {
        self.known.remove(&name);
    }

    /// Nothing more is wanted.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 20;

    fn name(index: u64) -> SegmentName {
        SegmentName::at(1, LogOffset(index * SIZE), SIZE)
    }

    #[test]
    fn it_fetches_in_order_and_moves_on_as_they_are_taken() {
        let now = Instant::now();
        let mut window = Window::new(name(3), SIZE, 3, None);
        assert_eq!(window.begin_next(now), Some(name(4)));
        assert_eq!(window.begin_next(now), Some(name(5)));
        assert_eq!(window.begin_next(now), Some(name(6)));
        assert_eq!(window.begin_next(now), None);
        window.ready(name(4));
        assert!(!window.note_taken(&|_| true));
        assert!(window.note_taken(&|_| false));
        assert_eq!(window.begin_next(now), Some(name(7)));
        window.absent(name(7), now);
        assert_eq!(window.begin_next(now), None);
        assert_eq!(window.begin_next(now + LOOK_AGAIN), Some(name(7)));
    }

    #[test]
    fn it_fetches_nothing_behind_the_end() {
        let now = Instant::now();
        let mut window = Window::new(name(3), SIZE, 9, Some(LogOffset(5 * SIZE + 1)));
        assert_eq!(window.begin_next(now), Some(name(4)));
        assert_eq!(window.begin_next(now), Some(name(5)));
        assert_eq!(window.begin_next(now), None);
        window.ready(name(4));
        window.ready(name(5));
        assert!(!window.is_done());
        assert!(window.note_taken(&|_| false));
        window.aim_behind(name(5));
        assert!(window.is_done());
    }

    #[test]
    fn it_goes_where_the_server_went() {
        let now = Instant::now();
        let mut window = Window::new(name(3), SIZE, 2, None);
        window.begin_next(now);
        window.begin_next(now);
        window.ready(name(4));
        assert_eq!(window.aim_behind(name(20)), [name(4)]);
        assert!(!window.is_wanted(name(5)));
        window.forget(name(5));
        assert_eq!(window.begin_next(now), Some(name(21)));
        window.close();
        assert!(!window.is_wanted(name(21)));
    }
}
