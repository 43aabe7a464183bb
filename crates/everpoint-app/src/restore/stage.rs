//! Puts the log that a replay will need beside the image, for a server whose user may read neither key nor repository.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

use everpoint_core::{BranchId, LogOffset, RestorePlan};
use everpoint_engine::StopFlag;

use super::tree::Tree;
use crate::archive_get::{self, ArchiveGetRequest, Got};
use crate::caught::died;
use crate::lineage::Lineage;
use crate::{AppError, ClusterContext, Quiet};

/// Its directory inside of the data directory. The server removes it when its recovery ends.
pub const DIRECTORY: &str = "everpoint-log";

/// What the server runs for each file, in its data directory.
pub const FETCH_COMMAND: &str = "cp everpoint-log/%f \"%p\"";

/// Fetches every file that the server may ask for; returns the bytes written. Segments are as a copy may replay them.
///
/// # Errors
/// `Damaged` if a part of the log can't be read. If it can't be written.
pub fn run(
    context: &ClusterContext,
    plan: &RestorePlan,
    tree: &Tree,
    workers: usize,
    stop: &StopFlag,
) -> Result<u64, AppError> {
    let place = tree.root().join(DIRECTORY);
    tree.directory(&place, 0o700)?;
    let names = names(context, plan)?;
    let job = Job { context, plan, tree, place: &place };
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let bytes = std::thread::scope(|scope| {
        let work = || {
            let mut bytes = 0;
            while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                match super::stopped(stop).and_then(|()| job.fetch(name)) {
                    Ok(length) => bytes += length,
                    Err(error) => {
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        next.store(names.len(), Ordering::Relaxed);
                    }
                }
            }
            bytes
        };
        let threads: Vec<_> = (0..workers.clamp(1, names.len().max(1))).map(|_| scope.spawn(work)).collect();
        joined(threads, "the log that a server is to replay")
    });
    let bytes = bytes?;
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(bytes), Err)
}

/// Bytes that all threads have written. One that died has left out what nobody knows: then nothing counts.
fn joined(threads: Vec<ScopedJoinHandle<'_, u64>>, object: &str) -> Result<u64, AppError> {
    // All are waited for before one of them is told of.
    let ended: Vec<_> = threads.into_iter().map(ScopedJoinHandle::join).collect();
    ended.into_iter().map(|ended| ended.map_err(|panic| died("fetch", object, panic.as_ref()))).sum()
}

/// The history files of the path, and each segment under the name of every timeline that may have it: a server asks for
/// the youngest first.
fn names(context: &ClusterContext, plan: &RestorePlan) -> Result<Vec<String>, AppError> {
    let identities = context.cluster.identities()?;
    let size =
        identities.iter().find(|(number, _)| *number == plan.identity).map(|(_, known)| known.segment_size);
    let Some(segment_size) = size else {
        let message = "its identity is not recorded";
        return Err(super::damaged("look for the log of", &context.name, message));
    };
    let lineage = Lineage {
        cluster: &context.cluster,
        engine: context.engine.as_ref(),
        identity: plan.identity,
        segment_size,
    };
    let mut names = Vec::new();
    let last = plan.pieces.last().map_or(LogOffset::default(), |piece| piece.span.to);
    for (branch, span) in &plan.path {
        if branch.timeline() > 1 {
            names.push(format!("{:08X}.history", branch.timeline()));
        }
        let log = lineage.log(branch.clone());
        let stops_here = *branch == plan.stop_branch;
        let to = if stops_here { last } else { last.min(span.to) };
        let mut at =
            log.segment_start(plan.pieces.first().map_or(span.from, |piece| piece.span.from.max(span.from)));
        while at < to {
            names.push(log.segment_name(at));
            at = LogOffset(at.0.saturating_add(segment_size));
        }
        // Recovery is pinned to this timeline: a server asks for nothing of the younger ones.
        if stops_here {
            break;
        }
    }
    // But which numbers are taken, it asks until one is not.
    let taken =
        context.cluster.branches(plan.identity)?.iter().map(BranchId::timeline).max().unwrap_or_default();
    names.extend((plan.timeline..taken).map(|before| format!("{:08X}.history", before + 1)));
    Ok(names)
}

struct Job<'a> {
    context: &'a ClusterContext,
    plan: &'a RestorePlan,
    tree: &'a Tree,
    place: &'a Path,
}

impl Job<'_> {
    fn fetch(&self, name: &str) -> Result<u64, AppError> {
        let destination = self.place.join(name);
        let request = ArchiveGetRequest {
            name: name.to_owned(),
            destination: destination.clone(),
            branch: Some(format!("{}/{}", self.plan.identity, self.plan.branch)),
            in_place_tablespaces: true,
            look_ahead_bytes: 0,
            until: None,
            recovery: None,
        };
        if archive_get::run(self.context, &request, &Quiet)? == Got::NotThere {
            return Ok(0);
        }
        self.tree.own(&destination)?;
        let found = std::fs::metadata(&destination);
        found.map(|found| found.len()).map_err(|error| AppError::io("look at", &destination, error))
    }
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn a_thread_that_died_is_no_success() {
        let all = |dies: bool| {
            std::thread::scope(|scope| {
                let threads = vec![
                    scope.spawn(|| 5_u64),
                    scope.spawn(move || {
                        assert!(!dies, "as wanted");
                        2
                    }),
                ];
                joined(threads, "the log")
            })
        };
        assert_eq!(all(false).unwrap(), 7);
        assert_eq!(all(true).unwrap_err().code, "internal");
    }
}
