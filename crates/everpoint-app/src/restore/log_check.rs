//! Reads the log that a replay will need, so that damage is told before the directory is called done.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use everpoint_core::{NeededPiece, RestorePlan};
use everpoint_engine::StopFlag;

use crate::facts::{self, Facts};
use crate::{AppError, ClusterContext};

/// Reads every piece of the plan.
///
/// # Errors
/// `Damaged` with the piece that is missing or fails its check.
pub fn run(
    context: &ClusterContext,
    facts: &Facts,
    plan: &RestorePlan,
    workers: usize,
    stop: &StopFlag,
) -> Result<(), AppError> {
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..workers.clamp(1, plan.pieces.len().max(1)) {
            scope.spawn(|| {
                while let Some(piece) = plan.pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let checked =
                        super::stopped(stop).and_then(|()| check(context, facts, plan.identity, piece));
                    if let Err(error) = checked {
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        next.store(plan.pieces.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

fn check(
    context: &ClusterContext,
    facts: &Facts,
    identity: u32,
    piece: &NeededPiece,
) -> Result<(), AppError> {
    let read = facts.read_piece(context, identity, &piece.branch, piece.span, &mut |_| {});
    read.map_err(|error| facts::log_damaged(context, piece.span.from, error))
}
