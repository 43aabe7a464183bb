//! `restore`: a cluster as it was, in a directory; on request started beside production, followed and promoted.

pub mod hold;
pub mod image;
mod kept;
pub mod known;
mod libraries;
mod links;
pub mod live;
pub mod log_check;
mod machine;
pub mod mark;
pub(crate) mod mounts;
pub mod output;
pub mod preflight;
pub mod progress;
pub mod prove;
mod recover;
mod report;
mod request;
pub mod room;
pub mod salvage;
pub mod scatter;
pub mod spaces;
pub mod stage;
pub mod survey;
mod told;
pub mod tree;
mod whose;

use std::time::Instant;

use everpoint_core::cache::past_cache;
use everpoint_core::{FailureClass, RestorePlan, RestoreRequest as Wanted, Shortfall};
use everpoint_engine::StopFlag;
use everpoint_format::manifest::BackupRecord;

use crate::facts::{self, Facts};
use crate::{AppError, ClusterContext, Event, Events, production, reading};
use image::{ImageRestore, Over};
use preflight::Prepared;
use progress::Meter;
pub use report::{PlanReport, Reached, RestoreOutcome, RestoreReport, ShortfallReport};
pub use request::{RestoreRequest, StartRequest};
use told::Told;
use tree::Tree;

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
    // A dry run shows all of the plan, and then what refuses it.
    let taken = match request.port(context) {
        Err(taken) if request.dry_run => Some(taken),
        port => port.map(|()| None)?,
    };
    let told = Told::new(events, request.dry_run);
    let outcome = attempt(context, request, &told);
    let outcome = told.noted(outcome);
    match (outcome, taken) {
        (Err(_), Some(taken)) => Err(taken),
        (outcome, taken) => outcome.map(|outcome| outcome.refused(taken)),
    }
}

fn attempt(
    context: &ClusterContext,
    request: &RestoreRequest,
    events: &dyn Events,
) -> Result<RestoreOutcome, AppError> {
    let begun = Instant::now();
    let root = std::path::absolute(&request.directory);
    let held = match (root, request.directory.as_os_str().is_empty()) {
        (Ok(root), false) => hold::directory(&root)?,
        _ => None,
    };
    // Before anything is looked up: see there.
    let _reading = (!request.dry_run).then(|| reading::begin(context, "restore"));
    let mut facts = facts::load(context)?;
    let mut skip: Vec<String> = Vec::new();
    // The log that only a directory holds is saved before anything is decided, and after all that can refuse: the newest
    // moment may be in it.
    let (mut looked, mut saved) = (false, false);
    // In a dry run nothing is saved, and what was found is not known to the plan.
    let mut unsaved = false;
    loop {
        let mut plan = match settled(context, &mut facts, request, &skip)? {
            Ok(mut plan) => {
                plan.warnings.extend(facts.left_out(&plan.backup));
                let sources = request.packages.iter().flat_map(|packages| packages.sources(&plan));
                let sources: Vec<String> = sources.collect();
                plan.reasons.extend(sources);
                plan
            }
            Err(_)
                if !std::mem::replace(&mut looked, true)
                    && salvage::early(context, request, &facts, events)? =>
            {
                unsaved = request.dry_run;
                facts = facts::load(context)?;
                continue;
            }
            Err(mut shortfall) if request.dry_run => {
                // Log that is saved leads on from what is stored, never to before it.
                if unsaved && shortfall.nearest_before.is_some() {
                    shortfall.reason.push_str(UNSAVED);
                }
                return Ok(RestoreOutcome::Plan(report::plan_shortfall(&shortfall)));
            }
            Err(shortfall) => return Err(refused(context, &facts, request, &shortfall, &skip)),
        };
        let record = facts::record(&facts, &plan.backup)?;
        plan.warnings.extend(context.engine.differences(&record.facts));
        let skipped = skip.len();
        let job = Job { context, request, events, facts: &facts, plan: &plan, record, skipped };
        let prepared = job.prepare();
        if let Ok(Some(prepared)) = &prepared
            && prepared.refused.is_none()
            && !std::mem::replace(&mut saved, true)
            && job.save_log(prepared)?
        {
            facts = facts::load(context)?;
            continue;
        }
        let done = prepared.and_then(|prepared| {
            if request.dry_run {
                return Ok(RestoreOutcome::Plan(report::plan(&plan, record, prepared)));
            }
            plan.warnings.iter().for_each(|warning| events.emit(Event::Warning(warning.clone())));
            job.restore(prepared, held.is_some(), begun).map(RestoreOutcome::Done)
        });
        match done {
            Ok(outcome) => return Ok(outcome),
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
    request.preflight(context, &plan, record).map(drop)
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

/// What a dry run adds to a target that can't be reached yet.
const UNSAVED: &str = "; the log that is saved first when this is done may reach it: then the same command without --dry-run restores it";

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
        timeline: request.timeline.clone(),
        skip: skip.to_vec(),
    };
    facts::plan(context, facts, &wanted)
}

struct Job<'a> {
    context: &'a ClusterContext,
    request: &'a RestoreRequest,
    events: &'a dyn Events,
    facts: &'a Facts,
    plan: &'a RestorePlan,
    record: &'a BackupRecord,
    /// So many images were tried before.
    skipped: usize,
}

impl Job<'_> {
    /// All that can refuse.
    fn prepare(&self) -> Result<Option<Prepared>, AppError> {
        let mut prepared = self.request.preflight(self.context, self.plan, self.record)?;
        if let Some(prepared) = prepared.as_mut().filter(|_| self.request.replace_production) {
            let (engine, tree) = (self.context.engine.as_ref(), &prepared.proof.tree);
            let marked = tree.marked_programs();
            let version = self.record.server_version;
            let known = || engine.programs(None, (tree.root(), marked.as_deref()), version).ok().flatten();
            let programs = prepared.programs.clone().or_else(known);
            let settings = self.settings(tree, prepared.libraries.clone());
            if let Some(found) = engine.unstartable(&settings, programs.as_deref()) {
                prepared.unstartable(self.request, found)?;
            }
        }
        Ok(prepared)
    }

    /// `held`: the directory was there and is ours.
    fn restore(
        &self,
        prepared: Option<Prepared>,
        held: bool,
        begun: Instant,
    ) -> Result<RestoreReport, AppError> {
        let Some(mut prepared) = prepared else {
            let message = "the name of a directory is missing";
            return Err(AppError::new("restore.directory", FailureClass::Usage, "restore into", "", message));
        };
        let mut taken = hold::Taken::default();
        let done = self.hold(&mut prepared, held, &mut taken).and_then(|()| self.begin(&prepared, begun));
        // Refused means untouched; what was begun is not empty.
        done.inspect_err(|_| taken.undo())
    }

    fn begin(&self, prepared: &Prepared, begun: Instant) -> Result<RestoreReport, AppError> {
        let mut warnings = prepared.warnings();
        warnings.iter().for_each(|warning| self.events.emit(Event::Warning(warning.clone())));
        for place in prepared.writes().iter().skip(1) {
            self.events.emit(Event::Info(format!("a tablespace goes to {place}")));
        }
        let filled = self.fill(prepared, begun);
        let mut report =
            filled.map_err(|error| preflight::with_state(error, self.request, &prepared.proof.tree))?;
        report.warnings.append(&mut warnings);
        Ok(report)
    }

    /// From the first byte on.
    fn fill(&self, prepared: &Prepared, begun: Instant) -> Result<RestoreReport, AppError> {
        let tree = &prepared.proof.tree;
        self.events.emit(Event::Step(format!(
            "restoring {} into {}",
            self.plan.backup,
            tree.root().display()
        )));
        let meter = Meter::new(self.events, self.record.size_bytes);
        let is_log_name = |name: &str| self.context.engine.is_log_name(name);
        let image = ImageRestore {
            cluster: &self.context.cluster,
            label: &self.plan.backup,
            tree,
            over: prepared
                .proof
                .occupied
                .then_some(Over { known: &prepared.known, is_log_name: &is_log_name }),
            left: prepared.proof.left_unmarked(),
            past_cache: past_cache(self.record.size_bytes, output::memory()),
            workers: self.request.workers.max(1),
            meter: &meter,
            stop: &self.request.stop,
        };
        // Somebody may have started it while its log was saved.
        self.refuse_live(tree, self.request.server_is_stopped)?;
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
            stage::run(self.context, self.plan, tree, self.request.workers, &self.request.stop)?;
        }
        // The image's control file is there now, which is that of a server that runs: only one that is seen counts.
        self.refuse_live(tree, true)?;
        self.context.engine.prepare_recovery(&self.settings(tree, prepared.libraries.clone()))?;
        if !self.request.replace_production {
            self.mark_copy(tree)?;
        }
        tree.sync()?;
        // Before the server runs: a capture may see it on its new timeline at once.
        if self.request.replace_production {
            self.note_production();
        }
        let settings = self.settings(tree, prepared.libraries.clone());
        // A replay that stops short must not leave a directory that looks done.
        let start = self.request.start.as_ref();
        let reached = start
            .map(|start| self.start(tree, &settings, (start, prepared.programs.as_deref())))
            .transpose()?;
        tree.finish()?;
        let next = self.context.engine.next_steps(&settings, reached.as_ref().map(|it| it.port));
        Ok(report::done(self.plan, self.request, meter.written(), begun.elapsed(), reached.as_ref(), next))
    }

    /// Nothing that was restored depends on it, and what is seen of the server says the same: a repository that can only be
    /// read must not end a restore.
    fn note_production(&self) {
        if let Err(error) = production::restored(self.context, self.plan) {
            self.events.emit(Event::Warning(format!(
                "the repository could not be told that production goes on from here ({error}): until its server is captured, \
                 latest means what it meant before"
            )));
        }
    }

    fn refuse_live(&self, tree: &Tree, stopped: bool) -> Result<(), AppError> {
        live::refuse(self.context.engine.as_ref(), tree.root(), stopped).map(drop)
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
