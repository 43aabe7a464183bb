//! One thread: checks the pages of a part and hands it on.

use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

use everpoint_core::LogOffset;
use everpoint_engine::{EngineError, FileMeta, ImageWorker, PART_BYTES, Part};

use super::torn::TornJudge;
use crate::files::{BLOCKS_PER_FILE, Fork, Pages};
use crate::page::{PAGE_BYTES, Verdict, verify};

/// A part of a file on its way to a worker.
pub(super) struct Job {
    pub(super) file: Arc<FileMeta>,
    /// Set if its pages are to be checked.
    pub(super) pages: Option<Pages>,
    pub(super) offset: u64,
    pub(super) data: Vec<u8>,
    pub(super) last: bool,
}

/// Takes jobs until there are no more. Buffers go back through `free`.
pub(super) fn work(
    jobs: &Mutex<Receiver<Job>>,
    free: &SyncSender<Vec<u8>>,
    judge: &TornJudge<'_>,
    mut worker: Box<dyn ImageWorker + '_>,
) -> Result<(), EngineError> {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut job) = job else { return worker.finish() };
        let damaged = job.pages.map_or_else(Vec::new, |pages| check(&mut job, pages, judge));
        let part = Part { offset: job.offset, data: &job.data, last: job.last, damaged_pages: &damaged };
        worker.part(&job.file, part)?;
        job.data.clear();
        // Directories come with a buffer of nothing; at the end nobody wants the others back.
        if job.data.capacity() >= PART_BYTES && free.send(job.data).is_err() {
            tracing::trace!("the last buffers are dropped");
        }
    }
}

/// Takes jobs and does nothing about them: after an error whoever reads must find room for the next one to notice.
pub(super) fn drain(jobs: &Mutex<Receiver<Job>>, free: &SyncSender<Vec<u8>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut job) = job else { return };
        job.data.clear();
        if job.data.capacity() >= PART_BYTES && free.send(job.data).is_err() {
            return;
        }
    }
}

/// Numbers of the damaged pages within the file. Damaged pages of the free space and visibility maps are replaced by zeros:
/// both are rebuilt from nothing, while replay does not heal all that a torn one may say.
fn check(job: &mut Job, pages: Pages, judge: &TornJudge<'_>) -> Vec<u32> {
    let first = u32::try_from(job.offset / PAGE_BYTES as u64).unwrap_or(u32::MAX);
    let mut damaged = Vec::new();
    for (number, page) in (first..).zip(job.data.chunks_exact_mut(PAGE_BYTES)) {
        let block = pages.first_block(BLOCKS_PER_FILE).wrapping_add(number);
        let Verdict::Bad { lsn, .. } = verify(page, block) else {
            continue;
        };
        match pages.fork {
            Fork::FreeSpace | Fork::Visibility => {
                tracing::warn!(
                    path = job.file.path,
                    page = number,
                    "map page has a wrong checksum; stored empty"
                );
                page.fill(0);
            }
            Fork::Main | Fork::Init if judge.is_torn(lsn) => note_torn(&job.file, number, lsn),
            Fork::Main | Fork::Init => {
                tracing::error!(path = job.file.path, page = number, "page is damaged");
                damaged.push(number);
            }
        }
    }
    damaged
}

fn note_torn(file: &FileMeta, page: u32, lsn: LogOffset) {
    tracing::debug!(path = file.path, page, lsn = %crate::lsn::Lsn::from(lsn), "page was being written; replay heals it");
}
