//! What a restore says at its end, or instead of beginning.

use std::sync::Arc;
use std::time::Duration;

use everpoint_core::{FailureClass, Reachable, RestorePlan, Shortfall, Target};
use everpoint_engine::{NextSteps, RecoveryReached};
use everpoint_format::manifest::BackupRecord;
use serde::Serialize;

use super::RestoreRequest;
use super::preflight::Prepared;
use crate::{AppError, ClusterContext, text};

/// Rates assumed until a drill has measured them: bytes of image and of log per second.
const IMAGE_RATE: f64 = 300e6;
const LOG_RATE: f64 = 100e6;

/// Either a plan or a report.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum RestoreOutcome {
    /// It was done.
    Done(RestoreReport),
    /// It was only planned.
    Plan(PlanReport),
}

/// The commit that was reached.
#[derive(Debug, Clone, Serialize)]
pub struct Reached {
    /// Position up to which the log is replayed.
    pub lsn: String,
    /// Time of the last commit in it, RFC 3339.
    pub time: Option<String>,
    /// Its transaction.
    pub xid: Option<u64>,
}

/// What was done.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreReport {
    /// The data directory.
    pub directory: String,
    /// The backup used.
    pub backup: String,
    /// The target, in words.
    pub target: String,
    /// The commit reached.
    pub reached: Reached,
    /// Timeline that was followed.
    pub timeline: u32,
    /// Bytes written.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Port on which the server accepts connections, if it was started.
    pub port: Option<u16>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// What is left to do.
    pub next: NextSteps,
}

/// What would be done.
#[derive(Debug, Clone, Serialize)]
pub struct PlanReport {
    /// The backup that would be used.
    pub backup: Option<String>,
    /// Number of log pieces that would be replayed.
    pub segments: usize,
    /// Bytes of image and log.
    pub bytes: u64,
    /// About how long it would take.
    pub estimate_seconds: f64,
    /// Why it can't be done.
    pub shortfall: Option<ShortfallReport>,
    /// The commit that would be reached.
    pub reached: Option<Reached>,
    /// Timeline that would be followed.
    pub timeline: Option<u32>,
    /// Why this plan.
    pub reasons: Vec<String>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// Directories that would be written to: the data directory, and tablespaces outside of it.
    pub writes: Vec<String>,
    /// What would be removed from them, a directory with all that is in it as one; the first 1000.
    pub removes: Vec<String>,
    /// How many there are.
    pub removes_count: u64,
    /// What refuses it as things stand now.
    #[serde(skip)]
    pub refused: Option<Arc<AppError>>,
}

impl RestoreOutcome {
    /// A plan that is refused for this, if for nothing else.
    pub(super) fn refused(mut self, error: Option<AppError>) -> Self {
        if let (Self::Plan(plan), Some(error)) = (&mut self, error) {
            plan.refused.get_or_insert(Arc::new(error));
        }
        self
    }
}

/// Why a target can't be reached.
#[derive(Debug, Clone, Serialize)]
pub struct ShortfallReport {
    /// In words.
    pub reason: String,
    /// Nearest moment before that can be reached: a time, or a position.
    pub nearest_before: Option<String>,
    /// Nearest moment after.
    pub nearest_after: Option<String>,
}

pub(super) fn plan(plan: &RestorePlan, record: &BackupRecord, prepared: Option<Prepared>) -> PlanReport {
    let survey = prepared.as_ref().map(|it| &it.survey);
    let removes = survey.iter().flat_map(|it| &it.removes).map(|path| path.display().to_string());
    let mut warnings = plan.warnings.clone();
    warnings.extend(prepared.iter().flat_map(|it| it.warnings()));
    PlanReport {
        backup: Some(plan.backup.clone()),
        segments: plan.pieces.len(),
        bytes: record.size_bytes + plan.log_bytes,
        estimate_seconds: record.size_bytes as f64 / IMAGE_RATE + plan.log_bytes as f64 / LOG_RATE,
        shortfall: None,
        reached: Some(reached(plan)),
        timeline: Some(plan.timeline),
        reasons: plan.reasons.clone(),
        warnings,
        writes: prepared.as_ref().map(Prepared::writes).unwrap_or_default(),
        removes: removes.collect(),
        removes_count: survey.map_or(0, |it| it.count),
        refused: prepared.and_then(|it| it.refused).map(Arc::new),
    }
}

pub(super) fn plan_shortfall(shortfall: &Shortfall) -> PlanReport {
    PlanReport {
        backup: None,
        segments: 0,
        bytes: 0,
        estimate_seconds: 0.0,
        shortfall: Some(shortfall_report(shortfall)),
        reached: None,
        timeline: None,
        reasons: Vec::new(),
        warnings: Vec::new(),
        writes: Vec::new(),
        removes: Vec::new(),
        removes_count: 0,
        refused: None,
    }
}

fn shortfall_report(shortfall: &Shortfall) -> ShortfallReport {
    ShortfallReport {
        reason: shortfall.reason.clone(),
        nearest_before: shortfall.nearest_before.as_ref().map(reachable),
        nearest_after: shortfall.nearest_after.as_ref().map(reachable),
    }
}

/// A reachable target as one can type it.
fn reachable(place: &Reachable) -> String {
    place.time.map_or_else(|| format!("lsn:{}", text::lsn(place.position)), text::time)
}

pub(super) fn shortfall_error(
    context: &ClusterContext,
    request: &RestoreRequest,
    shortfall: &Shortfall,
    skipped: &[String],
    left_out: &[String],
) -> AppError {
    let report = shortfall_report(shortfall);
    let mut message = shortfall.reason.clone();
    if !skipped.is_empty() {
        message.push_str(&format!(" (left out, as they did not prove good: {})", skipped.join(", ")));
    }
    left_out.iter().for_each(|what| message.push_str(&format!("; {what}")));
    let object = format!("{} to {}", context.name, describe(&request.target, request.exclusive));
    let error = AppError::new("restore.shortfall", FailureClass::Shortfall, "restore", object, message);
    match (report.nearest_before, report.nearest_after) {
        (None, None) => error.hint(format!("see what can be restored: everpoint list {}", context.name)),
        (before, after) => {
            let near = [("before", before), ("after", after)];
            let near =
                near.into_iter().filter_map(|(side, at)| at.map(|at| format!("nearest {side}: --to '{at}'")));
            error.hint(near.collect::<Vec<_>>().join("; "))
        }
    }
}

pub(super) fn done(
    plan: &RestorePlan,
    request: &RestoreRequest,
    bytes: u64,
    took: Duration,
    started: Option<&RecoveryReached>,
    next: NextSteps,
) -> RestoreReport {
    RestoreReport {
        directory: request.directory.display().to_string(),
        backup: plan.backup.clone(),
        target: describe(&request.target, request.exclusive),
        reached: reached(plan),
        timeline: plan.timeline,
        bytes,
        seconds: took.as_secs_f64(),
        port: started.map(|server| server.port),
        warnings: plan.warnings.clone(),
        next,
    }
}

fn reached(plan: &RestorePlan) -> Reached {
    Reached {
        lsn: text::lsn(plan.reached.position),
        time: plan.reached.time.map(text::time),
        xid: plan.reached.xid,
    }
}

/// A target as it is typed.
pub(super) fn describe(target: &Target, exclusive: bool) -> String {
    let words = match target {
        Target::Latest => "latest".to_owned(),
        Target::Time(time) => text::time(*time),
        Target::Position(position) => format!("lsn:{}", text::lsn(*position)),
        Target::Xid { xid, before: false } => format!("xid:{xid}"),
        Target::Xid { xid, before: true } => format!("before-xid:{xid}"),
        Target::Name(name) => format!("name:{name}"),
        Target::Backup(label) => format!("backup:{label}"),
    };
    if exclusive { format!("{words} (exclusive)") } else { words }
}
