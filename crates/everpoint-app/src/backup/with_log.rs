//! A backup together with the log from its start to its stop, which belongs to it.

use std::time::{Duration, Instant};

use everpoint_core::{BranchId, FailureClass, LogOffset};
use everpoint_engine::{BackupEnd, BackupOptions, ServerIdentity, StopFlag};
use everpoint_repo::KeptLease;

use super::BackupRequest;
use super::image::ImageWriter;
use crate::lineage::Lineage;
use crate::production::Place;
use crate::{AppError, ClusterContext, Event, Events, capture, coverage};

/// How long the log up to the stop position may take to arrive, without any progress.
const LOG_PATIENCE: Duration = Duration::from_secs(120);
/// How long the log of an older branch, on which a backup stopped, may take to begin to arrive.
const BRANCH_PATIENCE: Duration = Duration::from_secs(10);
/// After this time without renewal the lease of a backup that died can be taken over.
const LEASE: Duration = Duration::from_secs(30);

/// The lease under which one backup of a cluster runs at a time, renewed by a thread until released.
pub(super) struct BackupLease {
    lease: KeptLease,
}

impl BackupLease {
    /// Takes it.
    pub(super) fn take(context: &ClusterContext) -> Result<Self, AppError> {
        let holder = format!("backup by process {}", std::process::id());
        let lease = context.repository.lease(&context.cluster.backup_lease_id(), &holder, LEASE)?;
        Ok(Self { lease: lease.keep() })
    }

    pub(super) fn release(self) {
        // One that can't be released expires by itself.
        drop(self.lease);
    }
}

/// Runs the engine's backup while the log is captured beside it, and returns when the log from start to stop is stored: with
/// the branch on which it stopped.
pub(super) fn backup(
    context: &ClusterContext,
    request: &BackupRequest,
    server: &ServerIdentity,
    identity: u32,
    options: &BackupOptions,
    image: &ImageWriter<'_>,
    events: &dyn Events,
) -> Result<(BackupEnd, BranchId), AppError> {
    let stop_log = StopFlag::default();
    std::thread::scope(|scope| {
        let log = scope.spawn(|| {
            let begun = || image.begun().map(|begin| (begin.timeline, begin.start));
            capture::during_backup(context, identity, server, &request.slot, &stop_log, &begun, events)
        });
        let result = context.engine.backup(options, image).map_err(AppError::from).and_then(|end| {
            let start = image.begun().map_or(end.stop, |begin| begin.start);
            events.emit(Event::Step(format!("waiting for the log up to {}", crate::text::lsn(end.stop))));
            let finished = || log.is_finished();
            let way = way_of(context, server, identity, end.timeline)?;
            await_log(context, identity, &way, start, &end, &request.stop, &finished)?;
            Ok((end, way.branch))
        });
        stop_log.stop();
        let captured = log.join().unwrap_or_else(|_| {
            Err(AppError::new(
                "internal",
                FailureClass::Failed,
                "capture",
                "the log of the backup",
                "its thread died",
            ))
        });
        match (result, captured) {
            // The cause is more telling than the missing log that follows from it.
            (Err(missing), Err(cause)) if missing.code == "backup.log_missing" => Err(missing.cause(cause)),
            (result, _) => result,
        }
    })
}

/// Waits until the repository holds the log from `start` to the stop position.
fn await_log(
    context: &ClusterContext,
    identity: u32,
    way: &Way,
    start: LogOffset,
    end: &BackupEnd,
    stop: &StopFlag,
    capture_ended: &dyn Fn() -> bool,
) -> Result<(), AppError> {
    let mut patience = Instant::now();
    let mut reached = LogOffset::default();
    loop {
        let ended = capture_ended();
        let now = coverage::reached(context, identity, &way.branch, &way.history, start)?;
        if now >= end.stop {
            return Ok(());
        }
        if now > reached {
            (reached, patience) = (now, Instant::now());
        }
        // An archive_command may still deliver what our own capture could not.
        let limit = if ended { LOG_PATIENCE / 4 } else { LOG_PATIENCE };
        if stop.is_set() || patience.elapsed() > limit {
            let (from, to) = (crate::text::lsn(now.max(start)), crate::text::lsn(end.stop));
            return Err(AppError::new(
                "backup.log_missing",
                FailureClass::Failed,
                "finish the backup of",
                context.name.clone(),
                format!("the log from {from} to {to} did not arrive, and without it the image can't become consistent"),
            )
            .hint(format!(
                "what keeps it from being captured is said by: everpoint capture {0} --once, and by: everpoint check {0}",
                context.name
            )));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A branch, and where it comes from.
struct Way {
    branch: BranchId,
    history: Vec<u8>,
}

impl Way {
    fn of(place: &Place<'_>) -> Self {
        Self { branch: place.branch(), history: place.history.to_vec() }
    }
}

/// The branch on which a backup stopped: the one that the server was on when it was asked, or is on now. A standby that
/// follows an upstream which was promoted may have stopped just before the fork: then it is what that one comes from.
///
/// # Errors
/// If the server can't be asked, or nothing tells which branch it is. A backup without its branch could never be used.
fn way_of(
    context: &ClusterContext,
    server: &ServerIdentity,
    identity: u32,
    timeline: u32,
) -> Result<Way, AppError> {
    if server.timeline == timeline {
        return Ok(Way::of(&Place::of(server, identity)));
    }
    let now = context.engine.identify()?;
    if now.timeline == timeline {
        return Ok(Way::of(&Place::of(&now, identity)));
    }
    let (cluster, engine, segment_size) = (&context.cluster, context.engine.as_ref(), server.segment_size);
    let lineage = Lineage { cluster, engine, identity, segment_size };
    let begun = Instant::now();
    while begun.elapsed() < BRANCH_PATIENCE {
        // The log beside the backup has begun before the fork: then this is stored.
        if let Some(branch) = lineage.ancestor(&now.history, timeline)? {
            let history = lineage.log(branch.clone()).history()?.unwrap_or_default();
            return Ok(Way { branch, history });
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let message =
        format!("it is of timeline {timeline}, and the server went on to timeline {}", now.timeline);
    Err(AppError::new("backup.timeline", FailureClass::Failed, "place the backup of", &context.name, message)
        .hint("the server was promoted while it was copied: take the backup again"))
}
