//! `bundle`: joins each hour's segments into one object, compressed tighter; lists the bundles and the restore points.

use everpoint_core::{BundlePlan, Micros, PieceFacts, SegmentTime, plan_bundles};
use everpoint_engine::StopFlag;
use everpoint_repo::{Bundle, BundleMade, KeptLease, LogStore};
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::restore_points::{self, RestorePointLine};
use crate::upkeep::{self, Branch};
use crate::{AppError, ClusterContext, Event, Events, facts, text};

/// Bytes of segments that a bundle holds at most: an hour of more makes several.
const LARGEST: u64 = 1 << 30;

/// What to do.
#[derive(Debug, Clone)]
pub struct BundleRequest {
    /// Join what there is of the hour that still runs, too.
    pub close: bool,
    /// Where hours begin, and the zone of their names.
    pub zone: TimeZone,
    /// List all bundles and named restore points in the report; else only what was made.
    pub list: bool,
    /// Asks to stop: what was begun is finished.
    pub stop: StopFlag,
}

/// What was done.
#[derive(Debug, Clone, Serialize)]
pub struct BundleReport {
    /// Name of the cluster.
    pub cluster: String,
    /// The bundles that were made.
    pub made: Vec<BundleLine>,
    /// Bytes that the segments had taken which they replace.
    pub replaced_bytes: u64,
    /// Bytes that they take.
    pub stored_bytes: u64,
    /// What could not be joined and stays as it is, in words.
    pub left: Vec<String>,
    /// All bundles, if they were asked for.
    pub bundles: Vec<BundleLine>,
    /// All named restore points, if they were asked for.
    pub restore_points: Vec<RestorePointLine>,
}

/// A bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BundleLine {
    /// Its hour, as in its name: `2026/01/29/14`.
    pub hour: String,
    /// Number of the identity.
    pub identity: u32,
    /// Timeline.
    pub timeline: u32,
    /// First position.
    pub from_lsn: String,
    /// First position behind it.
    pub to_lsn: String,
    /// Segments in it.
    pub segments: u64,
    /// Bytes of the segments.
    pub raw_bytes: u64,
    /// Bytes that it takes.
    pub stored_bytes: u64,
}

/// Joins the segments of the hours that are over.
///
/// # Errors
/// `repo.locked` if another process works on the log's objects; else if the repository can't be read or written. Segments
/// that are damaged are left as they are, and told.
pub fn run(
    context: &ClusterContext,
    request: &BundleRequest,
    events: &dyn Events,
) -> Result<BundleReport, AppError> {
    let lease = upkeep::lease(context, "bundle")?;
    let mut report = BundleReport {
        cluster: context.name.clone(),
        made: Vec::new(),
        replaced_bytes: 0,
        stored_bytes: 0,
        left: Vec::new(),
        bundles: Vec::new(),
        restore_points: Vec::new(),
    };
    for branch in upkeep::branches(context)? {
        let job = Job { context, request, events, lease: &lease, branch: &branch };
        job.run(&mut report)?;
        if request.list {
            let lines = branch.log.bundles()?;
            report.bundles.extend(lines.iter().map(|bundle| line(&branch, bundle)));
        }
    }
    drop(lease);
    if request.list {
        let points = restore_points::find(context, &facts::load(context)?)?;
        report.restore_points = points.iter().map(|point| point.line(&context.name)).collect();
    }
    Ok(report)
}

fn line(branch: &Branch, bundle: &Bundle) -> BundleLine {
    let raw_bytes = bundle.span.to.since(bundle.span.from);
    BundleLine {
        hour: bundle.hour.to_string(),
        identity: branch.identity,
        timeline: branch.id.timeline(),
        from_lsn: text::lsn(bundle.span.from),
        to_lsn: text::lsn(bundle.span.to),
        segments: raw_bytes.checked_div(branch.log.segment_size()).unwrap_or_default(),
        raw_bytes,
        stored_bytes: bundle.stored_bytes,
    }
}

struct Job<'a> {
    context: &'a ClusterContext,
    request: &'a BundleRequest,
    events: &'a dyn Events,
    lease: &'a KeptLease,
    branch: &'a Branch,
}

impl Job<'_> {
    fn run(&self, report: &mut BundleReport) -> Result<(), AppError> {
        let log = &self.branch.log;
        log.finish_bundles()?;
        let segments = times(log)?;
        let (size, zone) = (log.segment_size(), &self.request.zone);
        for plan in plan_bundles(&segments, size, LARGEST, zone, text::now(), self.request.close) {
            self.events.emit(Event::Step(format!("bundle of {}", plan.hour)));
            if !self.make(plan, report)? {
                break;
            }
        }
        Ok(())
    }

    /// Makes the bundles of a plan: several, where their digests are large. `false` if it was asked to stop.
    fn make(&self, mut plan: BundlePlan, report: &mut BundleReport) -> Result<bool, AppError> {
        while plan.span.from < plan.span.to {
            if self.request.stop.is_set() {
                return Ok(false);
            }
            upkeep::check(self.context, self.lease, "bundle the log of")?;
            let BundleMade { bundle, replaced_bytes, .. } =
                match self.branch.log.bundle(&plan, self.context.workers) {
                    Ok(made) => made,
                    Err(error) if error.is_damaged() || error.is_missing() => {
                        let text =
                            format!("the log of {} from {}: {error}", plan.hour, text::lsn(plan.span.from));
                        self.events.emit(Event::Warning(text.clone()));
                        report.left.push(text);
                        return Ok(true);
                    }
                    Err(error) => return Err(error.into()),
                };
            report.made.push(line(self.branch, &bundle));
            report.replaced_bytes = report.replaced_bytes.saturating_add(replaced_bytes);
            report.stored_bytes = report.stored_bytes.saturating_add(bundle.stored_bytes);
            plan.span.from = bundle.span.to;
        }
        Ok(true)
    }
}

/// The segments that are in no bundle yet, and when they were filled. One whose digest can't be read is left alone.
fn times(log: &LogStore) -> Result<Vec<SegmentTime>, AppError> {
    let mut found = Vec::new();
    for piece in log.unbundled()? {
        match log.digest(&piece) {
            Ok(digest) => {
                let at: Option<Micros> = PieceFacts::from(&digest).latest();
                found.push(SegmentTime { start: piece.span.from, at });
            }
            Err(error) if error.is_damaged() || error.is_missing() => {
                tracing::warn!(%error, "a segment is not bundled");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}
