//! The segment asked for, and those that wait behind it, by several threads.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use everpoint_core::LogOffset;
use everpoint_repo::Stored;

use super::segment::{Segment, Target};
use super::{Place, Pushed, apart};
use crate::log_file::{LogFile, SegmentName};
use crate::{AppError, Events};

/// More threads than this win nothing against one disk.
const MOST_THREADS: usize = 4;

/// Stores the segment; returns what became of it, and how many others were stored along.
pub(super) fn run(
    place: &Place<'_>,
    asked: SegmentName,
    look_ahead: usize,
    events: &dyn Events,
) -> Result<(Stored, usize), AppError> {
    let segment = Segment::open(place, asked)?;
    let lineage = place.lineage(&segment.head)?;
    let (log, history) = place.log(&lineage, asked.timeline)?;
    let target = Target { place, lineage, log, history };
    if let Some(stored) = target.log.segment_hash(segment.head.start)? {
        target.compare(&segment, stored)?;
        place.forget_apart(asked.timeline, segment.head.start)?;
        return Ok((Stored::AlreadySame, 0));
    }
    if place.is_apart(asked.timeline, segment.head.start)? {
        return Err(apart::refused(asked, segment.head.start));
    }
    if !target.history.is_empty() {
        target.log.put_history(&target.history)?;
    }
    let batch = Batch::new(target, asked, look_ahead, events);
    std::thread::scope(|scope| {
        let threads = place.context.workers.clamp(1, MOST_THREADS).min(batch.jobs.len());
        for _ in 1..threads {
            scope.spawn(|| batch.work());
        }
        let result = batch.push(0, Ok(segment));
        match &result {
            Ok(_) => batch.work(),
            Err(_) => batch.stop.store(true, Ordering::SeqCst),
        }
        result
    })
    .map(|pushed| (pushed.stored, batch.ahead.load(Ordering::SeqCst)))
}

struct Batch<'a> {
    target: Target<'a>,
    jobs: Vec<Job>,
    next: AtomicUsize,
    ahead: AtomicUsize,
    stop: AtomicBool,
    events: &'a dyn Events,
    changed: Condvar,
    hashes: Mutex<Vec<Progress>>,
}

struct Job {
    name: SegmentName,
    start: Option<LogOffset>,
}

/// How far the hash of a job's segment is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Waiting,
    Known([u8; 32]),
    /// Failed, or never begun.
    Unknown,
}

/// A job that has ended, however: a hash that is not known by then will never be.
struct Ended<'a, 'b> {
    batch: &'a Batch<'b>,
    index: usize,
}

impl Drop for Ended<'_, '_> {
    fn drop(&mut self) {
        self.batch.publish(self.index, Progress::Unknown);
    }
}

impl<'a> Batch<'a> {
    fn new(target: Target<'a>, asked: SegmentName, look_ahead: usize, events: &'a dyn Events) -> Self {
        let mut names = vec![asked];
        names.extend(waiting(&target, asked, look_ahead));
        let size = target.lineage.segment_size;
        let jobs: Vec<Job> = names.iter().map(|name| Job { name: *name, start: name.start(size) }).collect();
        Self {
            target,
            hashes: Mutex::new(vec![Progress::Waiting; jobs.len()]),
            jobs,
            next: AtomicUsize::new(1),
            ahead: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            events,
            changed: Condvar::new(),
        }
    }

    /// Takes jobs in order until none is left. Their errors are told when PostgreSQL asks for them.
    fn work(&self) {
        loop {
            let index = self.next.fetch_add(1, Ordering::SeqCst);
            let Some(job) = self.jobs.get(index) else { return };
            if self.stop.load(Ordering::SeqCst) {
                self.publish(index, Progress::Unknown);
                continue;
            }
            match self.push(index, Segment::open(self.target.place, job.name)) {
                Ok(Pushed { stored: Stored::New }) => {
                    self.ahead.fetch_add(1, Ordering::SeqCst);
                }
                Ok(Pushed { stored: Stored::AlreadySame }) => {}
                Err(error) => tracing::warn!(segment = %job.name, %error, "not stored ahead"),
            }
        }
    }

    fn push(&self, index: usize, segment: Result<Segment, AppError>) -> Result<Pushed, AppError> {
        // Whoever waits for this segment's hash goes on even if this one panics.
        let _told = Ended { batch: self, index };
        segment.and_then(|segment| {
            // A segment of another cluster under this name is told when its turn comes.
            if index > 0 && self.target.place.lineage(&segment.head)?.identity != self.target.lineage.identity
            {
                return Ok(Pushed { stored: Stored::AlreadySame });
            }
            if let Some(hash) = self.target.log.segment_hash(segment.head.start)?.filter(|_| index > 0) {
                self.publish(index, Progress::Known(hash));
                return Ok(Pushed { stored: Stored::AlreadySame });
            }
            segment.push(
                &self.target,
                &mut |hash| self.publish(index, Progress::Known(hash)),
                &mut || self.previous_hash(segment.head.start),
                self.events,
            )
        })
    }

    /// The hash of the segment before, from the thread that stores it if it is one of the batch. Jobs are taken in order,
    /// so that thread has begun before and waits at most for one that has begun earlier still.
    fn previous_hash(&self, start: LogOffset) -> Result<Option<[u8; 32]>, AppError> {
        let before = start.0.checked_sub(self.target.lineage.segment_size).map(LogOffset);
        let index = self.jobs.iter().position(|job| job.start.is_some() && job.start == before);
        if let Some(index) = index {
            let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                match hashes.get(index) {
                    Some(Progress::Waiting) => {
                        hashes = self.changed.wait(hashes).unwrap_or_else(PoisonError::into_inner);
                    }
                    Some(Progress::Known(hash)) => return Ok(Some(*hash)),
                    Some(Progress::Unknown) | None => break,
                }
            }
        }
        self.target.previous_hash(start)
    }

    /// What is known stays known.
    fn publish(&self, index: usize, progress: Progress) {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = hashes.get_mut(index).filter(|known| **known == Progress::Waiting) {
            *known = progress;
            self.changed.notify_all();
        }
    }
}

/// The segments of the same timeline that wait to be archived after the one asked for. A directory that can't be read
/// costs speed only.
fn waiting(target: &Target<'_>, asked: SegmentName, most: usize) -> Vec<SegmentName> {
    if most == 0 {
        return Vec::new();
    }
    let Ok(entries) = std::fs::read_dir(target.place.directory.join("archive_status")) else {
        return Vec::new();
    };
    let mut names: Vec<SegmentName> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            match LogFile::parse(name.to_str()?.strip_suffix(".ready")?)? {
                LogFile::Segment(name) if name.timeline == asked.timeline && name > asked => Some(name),
                _ => None,
            }
        })
        .collect();
    names.sort_unstable();
    names.truncate(most);
    names
}
