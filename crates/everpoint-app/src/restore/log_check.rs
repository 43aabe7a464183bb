//! Reads the log that a replay will need, so that damage is told before the directory is called done.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use everpoint_core::{FailureClass, NeededPiece, RestorePlan};
use everpoint_engine::StopFlag;

use super::LOG_DAMAGED;
use crate::facts::Facts;
use crate::{AppError, ClusterContext, text};

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
    facts.read_piece(context, identity, &piece.branch, piece.span, &mut |_| {}).map_err(|error| {
        if error.class != FailureClass::Damaged {
            return error;
        }
        let object = format!("the log of {} from {}", context.name, text::lsn(piece.span.from));
        AppError::new(LOG_DAMAGED, FailureClass::Damaged, "read", object, error.message.clone())
            .hint("restore to a moment before it, or to one after the next backup (everpoint list shows the windows)")
            .cause(error)
    })
}
