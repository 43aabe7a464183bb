//! `restore`: a cluster as it was, in a directory; on request started beside production, followed and promoted.

pub mod image;
pub mod live;
pub mod log_check;
pub mod output;
pub mod preflight;
pub mod progress;
mod report;
pub mod room;
pub mod salvage;
pub mod scatter;
pub mod stage;
pub mod tree;

use std::path::PathBuf;
use std::time::Instant;

use everpoint_core::cache::past_cache;
use everpoint_core::{FailureClass, RestorePlan, RestoreRequest as Wanted, Shortfall, Target};
use everpoint_engine::{RecoveryEvent, RecoverySettings, StartOptions, StopAt, StopFlag};
use everpoint_format::manifest::BackupRecord;

use crate::facts::{self, Facts};
use crate::package::ImportReport;
use crate::{AppError, ClusterContext, Event, Events, reading};
use image::ImageRestore;
use progress::Meter;
pub use report::{PlanReport, Reached, RestoreOutcome, RestoreReport, ShortfallReport};
use tree::Tree;

/// Start the restored server.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// Port; `None`: a free one.
    pub port: Option<u16>,
    /// Directory of the server's programs; `None`: found by version.
    pub programs: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// Data directory to fill.
    pub directory: PathBuf,
    /// What to restore to.
    pub target: Target,
    /// Stop just before the target instead of just after it.
    pub exclusive: bool,
    /// Timeline to follow; `None`: the newest.
    pub timeline: Option<u32>,
    /// Bring an existing directory to the wanted state, writing only what differs.
    pub delta: bool,
    /// Where tablespaces go: old path (or oid) and new path.
    pub map: Vec<(String, String)>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Start the server when the files are in place.
    pub start: Option<StartRequest>,
    /// The restore replaces production: its own configuration is kept.
    pub replace_production: bool,
    /// The operator's word that no server runs on the directory, where that is not known.
    pub server_is_stopped: bool,
    /// Nothing outside of the directory is written: a cluster with tablespaces elsewhere is refused.
    pub confined: bool,
    /// Threads.
    pub workers: usize,
    /// Beginning of the command that fetches log files: program and options that say which repository, quoted for a shell.
    pub fetch_program: String,
    /// Put the log beside the image instead of having the server fetch it.
    pub stage_log: bool,
    /// The packages that were put into the repository for this restore.
    pub packages: Option<ImportReport>,
    /// Asks to stop.
    pub stop: StopFlag,
}

/// Restores, or says what would be done.
///
/// # Errors
/// `Shortfall` if the target can't be reached: nothing was written then. `Damaged` if no backup from which it can be
/// reached proves good.
pub fn run(
    context: &ClusterContext,
    request: &RestoreRequest,
    events: &dyn Events,
) -> Result<RestoreOutcome, AppError> {
    let begun = Instant::now();
    if let Some(port) = request.start.as_ref().and_then(|start| start.port) {
        preflight::port(port)?;
    }
    // Before anything is looked up: see there.
    let _reading = (!request.dry_run).then(|| reading::begin(context, "restore"));
    let mut facts = facts::load(context)?;
    let mut skip: Vec<String> = Vec::new();
    loop {
        let mut plan = match settled(context, &mut facts, request, &skip)? {
            Ok(mut plan) => {
                plan.warnings.extend(facts.left_out(&plan.backup));
                let sources = request.packages.iter().flat_map(|packages| packages.sources(&plan));
                let sources: Vec<String> = sources.collect();
                plan.reasons.extend(sources);
                plan
            }
            Err(shortfall) if request.dry_run => {
                return Ok(RestoreOutcome::Plan(report::plan_shortfall(&shortfall)));
            }
            Err(shortfall) => return Err(refused(context, &facts, request, &shortfall, &skip)),
        };
        let record = facts::record(&facts, &plan.backup)?;
        if request.dry_run {
            plan.warnings.extend(request.would_refuse(context, &plan, record)?);
            return Ok(RestoreOutcome::Plan(report::plan(&plan, record)));
        }
        plan.warnings.iter().for_each(|warning| events.emit(Event::Warning(warning.clone())));
        let job =
            Job { context, request, events, facts: &facts, plan: &plan, record, retry: !skip.is_empty() };
        match job.restore(begun) {
            Ok(report) => return Ok(RestoreOutcome::Done(report)),
            // Another image may prove good where this one does not.
            Err(error) if error.class == FailureClass::Damaged && error.code != LOG_DAMAGED => {
                let text = format!("backup {} can't be restored ({error}); trying an older one", plan.backup);
                events.emit(Event::Warning(text));
                skip.push(plan.backup.clone());
                if plan_is_last(context, &facts, request, &skip)? {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether [`run`] would begin; nothing is written.
///
/// # Errors
/// With which [`run`] would refuse: `Shortfall` if the target can't be reached, `Usage` if the directory can't be used,
/// `restore.no_room` if it does not fit.
pub fn check(context: &ClusterContext, request: &RestoreRequest) -> Result<(), AppError> {
    let mut facts = facts::load(context)?;
    let planned = settled(context, &mut facts, request, &[])?;
    let plan = planned.map_err(|shortfall| refused(context, &facts, request, &shortfall, &[]))?;
    let record = facts::record(&facts, &plan.backup)?;
    request.would_refuse(context, &plan, record).map(drop)
}

impl RestoreRequest {
    /// Where everything of a backup goes.
    fn tree(&self, record: &BackupRecord) -> Result<Tree, AppError> {
        let tree = Tree::plan(&self.directory, &record.tablespaces, &self.map)?;
        if self.confined {
            tree.refuse_spaces()?;
        }
        Ok(tree)
    }
}

/// Why nothing is begun.
fn refused(
    context: &ClusterContext,
    facts: &Facts,
    request: &RestoreRequest,
    shortfall: &Shortfall,
    skip: &[String],
) -> AppError {
    let left_out = facts.left_out("");
    let mut error = report::shortfall_error(context, request, shortfall, skip, &left_out);
    if !left_out.is_empty() && !facts.has_usable_backup() {
        error.code = "restore.no_good_backup".to_owned();
        error.class = FailureClass::Damaged;
    }
    error
}

/// A plan from facts that hold: capture puts tails together while we look at them.
fn settled(
    context: &ClusterContext,
    facts: &mut Facts,
    request: &RestoreRequest,
    skip: &[String],
) -> Result<Result<RestorePlan, Shortfall>, AppError> {
    for _ in 0..REPLANS {
        match plan(context, facts, request, skip) {
            Err(error) if error.code == REPLACED => *facts = facts::load(context)?,
            planned => return planned,
        }
    }
    plan(context, facts, request, skip)
}

/// Code of errors that planning anew cures.
pub(crate) const REPLACED: &str = "log.replanned";
/// How often a restore plans anew.
const REPLANS: u32 = 20;

/// Code of errors that another backup can't cure.
pub const LOG_DAMAGED: &str = "log.damaged";

fn plan_is_last(
    context: &ClusterContext,
    facts: &Facts,
    request: &RestoreRequest,
    skip: &[String],
) -> Result<bool, AppError> {
    Ok(plan(context, facts, request, skip)?.is_err())
}

fn plan(
    context: &ClusterContext,
    facts: &Facts,
    request: &RestoreRequest,
    skip: &[String],
) -> Result<Result<RestorePlan, Shortfall>, AppError> {
    let wanted = Wanted {
        target: request.target.clone(),
        exclusive: request.exclusive,
        timeline: request.timeline,
        skip: skip.to_vec(),
    };
    facts::plan(context, facts, &wanted)
}

/// Bytes of memory that this machine has.
fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

struct Job<'a> {
    context: &'a ClusterContext,
    request: &'a RestoreRequest,
    events: &'a dyn Events,
    facts: &'a Facts,
    plan: &'a RestorePlan,
    record: &'a BackupRecord,
    /// An earlier attempt has begun to fill the directory.
    retry: bool,
}

impl Job<'_> {
    fn restore(&self, begun: Instant) -> Result<RestoreReport, AppError> {
        let (tree, warnings) = self.request.preflight(self.context, self.plan, self.record, self.retry)?;
        warnings.into_iter().for_each(|warning| self.events.emit(Event::Warning(warning)));
        let occupied = self.request.delta || self.retry || tree.root().join(tree::MARKER).exists();
        if self.request.delta && !self.retry {
            salvage::run(self.context, self.facts, tree.root(), self.events)?;
        }
        self.events.emit(Event::Step(format!(
            "restoring {} into {}",
            self.plan.backup,
            tree.root().display()
        )));
        let meter = Meter::new(self.events, self.record.size_bytes);
        let image = ImageRestore {
            cluster: &self.context.cluster,
            label: &self.plan.backup,
            tree: &tree,
            delta: occupied,
            past_cache: past_cache(self.record.size_bytes, memory()),
            workers: self.request.workers.max(1),
            meter: &meter,
            stop: &self.request.stop,
        };
        // Somebody may have started it while its log was saved.
        self.refuse_live(&tree, self.request.server_is_stopped)?;
        image.write()?;
        if self.request.start.is_none() {
            self.events.emit(Event::Step("checking the log that replay will need".to_owned()));
            log_check::run(self.context, self.facts, self.plan, self.request.workers, &self.request.stop)?;
        }
        if self.request.stage_log {
            self.events.emit(Event::Step(format!(
                "putting the log into {}",
                tree.root().join(stage::DIRECTORY).display()
            )));
            stage::run(self.context, self.plan, &tree, self.request.workers, &self.request.stop)?;
        }
        // The image's control file is there now, which is that of a server that runs: only one that is seen counts.
        self.refuse_live(&tree, true)?;
        self.context.engine.prepare_recovery(&self.settings(&tree))?;
        if !self.request.replace_production {
            self.mark_copy(&tree)?;
        }
        tree.sync()?;
        // A replay that stops short must not leave a directory that looks done.
        let reached = self.request.start.as_ref().map(|start| self.start(&tree, start)).transpose()?;
        tree.finish()?;
        Ok(report::done(self.plan, self.request, meter.written(), begun.elapsed(), reached.as_ref()))
    }

    fn refuse_live(&self, tree: &Tree, stopped: bool) -> Result<(), AppError> {
        live::refuse(self.context.engine.as_ref(), tree.root(), stopped).map(drop)
    }

    fn mark_copy(&self, tree: &Tree) -> Result<(), AppError> {
        let mark = tree.root().join(salvage::COPY_MARK);
        let text =
            format!("A copy of {}, restored by everpoint. Its own log is not captured.\n", self.context.name);
        std::fs::write(&mark, text).map_err(|error| AppError::io("write", &mark, error))?;
        tree.own(&mark)
    }

    const fn stop_at(&self) -> StopAt {
        StopAt { record: self.plan.stop.record, inclusive: self.plan.stop.inclusive }
    }

    fn settings(&self, tree: &Tree) -> RecoverySettings {
        let branch = format!("{}/{}", self.plan.identity, self.plan.branch);
        let (fetch_command, end_command) = if self.request.stage_log {
            (stage::FETCH_COMMAND.to_owned(), stage::END_COMMAND.to_owned())
        } else {
            let program = &self.request.fetch_program;
            let name = &self.context.name;
            let command =
                format!("{program} archive-get {name} %f \"%p\" --branch {branch} --in-place-tablespaces");
            (command, String::new())
        };
        let mut facts = self.record.facts.clone();
        facts.push(("server_version".to_owned(), self.record.server_version.to_string()));
        facts.extend(self.plan.limits.iter().cloned());
        RecoverySettings {
            directory: tree.root().to_owned(),
            stop: Some(self.stop_at()),
            timeline: self.plan.timeline,
            fetch_command,
            end_command,
            facts,
            links: self.new_links(),
            keep_configuration: self.request.replace_production,
            promote: self.request.start.is_none(),
        }
    }

    /// Mappings of tablespaces that the log creates after the image: oid and new place.
    fn new_links(&self) -> Vec<(u32, PathBuf)> {
        let created = self.plan.created_tablespaces.iter();
        created
            .filter_map(|(oid, old)| {
                let mapped = self
                    .request
                    .map
                    .iter()
                    .find(|(name, _)| name.trim_end_matches('/') == old || *name == oid.to_string());
                mapped.map(|(_, new)| (*oid, PathBuf::from(new)))
            })
            .collect()
    }

    fn start(
        &self,
        tree: &Tree,
        start: &StartRequest,
    ) -> Result<everpoint_engine::RecoveryReached, AppError> {
        self.events.emit(Event::Step("starting the server and replaying the log".to_owned()));
        let options = StartOptions {
            directory: tree.root().to_owned(),
            port: start.port,
            programs: start.programs.clone(),
            stop: Some(self.stop_at()),
            stop_flag: self.request.stop.clone(),
        };
        let target = Some(self.plan.stop.record);
        let mut tell = |event| match event {
            RecoveryEvent::Started { port } => {
                self.events.emit(Event::Info(format!("the server runs on port {port}")))
            }
            RecoveryEvent::Replaying { position, time } => {
                self.events.emit(Event::Replaying { position, target, time })
            }
            RecoveryEvent::Promoting => {
                self.events.emit(Event::Info("the target is reached; promoting".to_owned()))
            }
        };
        self.context
            .engine
            .start(&options, &mut tell)
            .map_err(|error| salvage::with_fetch_error(error.into(), tree.root()))
    }
}

fn stopped(stop: &StopFlag) -> Result<(), AppError> {
    if stop.is_set() {
        return Err(AppError::new(
            "stopped",
            FailureClass::Failed,
            "go on with",
            "the restore",
            "it was asked to stop",
        )
        .hint("run the same command again: it goes on where it stopped"));
    }
    Ok(())
}

fn damaged(operation: &str, object: &str, message: &str) -> AppError {
    AppError::new("repo.damaged", FailureClass::Damaged, operation, object, message)
}
