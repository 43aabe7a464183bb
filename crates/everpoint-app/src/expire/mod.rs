//! `expire`: lets go what the policy does not keep, and says before what can no longer be brought back.
//!
//! Order: maps first; then, if nobody reads, the log that nothing needs; last the packs that no map names, some time after
//! a tombstone was set for them and while no backup runs.

pub(crate) mod facts;
mod packs;
mod report;

use std::time::Duration;

use everpoint_core::retention::{self, ExpireFacts, ExpirePlan, LogNeed, RetentionPolicy};
use everpoint_engine::StopFlag;
use everpoint_repo::{Freed, KeptLease, RepoError, code};

use crate::facts::Facts;
use crate::upkeep::{self, Branch};
use crate::{AppError, ClusterContext, Event, Events, reading, text};
pub use report::{DroppedLine, ExpireReport, KeptLine};

/// How long packs lie behind a tombstone unless it is said otherwise.
pub const GRACE: Duration = Duration::from_secs(3600);

/// What to do.
#[derive(Debug, Clone)]
pub struct ExpireRequest {
    /// What is kept.
    pub policy: RetentionPolicy,
    /// Only say what would go.
    pub dry_run: bool,
    /// How long packs that no map names lie behind a tombstone before they go: time for readers that can't say that they
    /// read. Zero frees them at once, if no backup and no restore runs.
    pub grace: Duration,
    /// Log that has to stay because it has not arrived elsewhere yet.
    pub needs: Vec<LogNeed>,
    /// Asks to stop: what was not removed yet is removed the next time.
    pub stop: StopFlag,
}

/// Lets go what the policy does not keep.
///
/// # Errors
/// `repo.locked` if another process works on the log's objects; else if the repository can't be read or written. What
/// was removed by then is what a later run would remove.
pub fn run(
    context: &ClusterContext,
    request: &ExpireRequest,
    events: &dyn Events,
) -> Result<ExpireReport, AppError> {
    let lease = if request.dry_run { None } else { lease(context)? };
    let known = crate::facts::load(context)?;
    let (holds, attempts) = (context.cluster.holds()?, facts::attempts(&known));
    let facts = ExpireFacts {
        log: &known.log,
        backups: &known.backups,
        attempts: &attempts,
        holds: &holds,
        needs: &request.needs,
        units: &facts::bundles(context)?,
    };
    let plan = retention::expire(&facts, &request.policy, text::now());
    let mut report = report::begin(context, &known, &plan, request.dry_run)?;
    let job = Job { context, request, plan: &plan, lease: lease.as_ref() };
    if request.dry_run {
        job.count(&mut report)?;
    } else {
        job.remove(&known, &mut report, events)?;
    }
    Ok(report)
}

/// The lease, or none where a full disk has no room for one: what is removed then is decided alike by all who may remove it.
fn lease(context: &ClusterContext) -> Result<Option<KeptLease>, AppError> {
    match upkeep::lease(context, "expire") {
        Err(error) if error.code == code::FULL => {
            tracing::warn!(%error, "no room is left for a lock: going on without");
            Ok(None)
        }
        result => result.map(Some),
    }
}

struct Job<'a> {
    context: &'a ClusterContext,
    request: &'a ExpireRequest,
    plan: &'a ExpirePlan,
    lease: Option<&'a KeptLease>,
}

impl Job<'_> {
    /// Counts what would go.
    fn count(&self, report: &mut ExpireReport) -> Result<(), AppError> {
        for line in &mut report.dropped {
            line.bytes = self.context.cluster.remove_backup(&line.label, true)?.bytes;
        }
        let maps = report.dropped.iter().map(|line| line.bytes).sum();
        let log = self.log(true)?;
        let gone: Vec<String> = self.plan.dropped.iter().map(|dropped| dropped.label.clone()).collect();
        packs::count(self.context, &gone, self.request.grace, report)?;
        report.note_freed(maps, log);
        Ok(())
    }

    fn remove(&self, known: &Facts, report: &mut ExpireReport, events: &dyn Events) -> Result<(), AppError> {
        if self.somebody_reads(report)? {
            return Ok(());
        }
        let marked = self.mark(known)?;
        let mut maps = 0;
        for line in &mut report.dropped {
            self.go_on()?;
            events.emit(Event::Step(format!("removing backup {}", line.label)));
            line.bytes = self.context.cluster.remove_backup(&line.label, false)?.bytes;
            maps += line.bytes;
        }
        report.note_freed(maps, Freed::default());
        self.context.cluster.sweep_backups()?;
        // Whoever saw one of those maps said before that it reads.
        if self.somebody_reads(report)? {
            return Ok(());
        }
        events.emit(Event::Step("removing log".to_owned()));
        let log = self.log(false)?;
        report.note_freed(0, log);
        if !marked {
            self.mark(known)?;
        }
        self.go_on()?;
        events.emit(Event::Step("looking for packs that no backup names".to_owned()));
        packs::reclaim(self.context, self.request, report, &|| self.go_on())
    }

    /// Looks for readers; notes them.
    fn somebody_reads(&self, report: &mut ExpireReport) -> Result<bool, AppError> {
        let readers = reading::readers(self.context)?;
        if readers.is_empty() {
            return Ok(false);
        }
        report.waits = Some(format!("nothing is removed while somebody reads: {}", readers.join(", ")));
        Ok(true)
    }

    fn go_on(&self) -> Result<(), AppError> {
        if self.request.stop.is_set() {
            let (class, message) = (everpoint_core::FailureClass::Failed, "it was asked to stop");
            return Err(AppError::new("stopped", class, "expire", self.context.name.clone(), message)
                .hint("run it again; what was removed is what it would remove"));
        }
        self.lease.map_or(Ok(()), |lease| upkeep::check(self.context, lease, "expire"))
    }

    /// Says of each branch until where log goes, so that what is missing is not taken for lost. `false` if there was no
    /// room for that.
    fn mark(&self, known: &Facts) -> Result<bool, AppError> {
        let mut room = true;
        for plan in &self.plan.log {
            let Some(until) = plan.expired else { continue };
            let before = known.log.branch(plan.identity, &plan.branch).and_then(|branch| branch.expired);
            if before.is_some_and(|before| before >= until) {
                continue;
            }
            for branch in
                self.branches()?.iter().filter(|it| it.id == plan.branch && it.identity == plan.identity)
            {
                match branch.log.put_expired(until) {
                    Err(error) if is_full(&error) => room = false,
                    result => result?,
                }
            }
        }
        Ok(room)
    }

    fn branches(&self) -> Result<Vec<Branch>, AppError> {
        upkeep::branches(self.context)
    }

    fn log(&self, dry_run: bool) -> Result<Freed, AppError> {
        let mut freed = Freed::default();
        for branch in self.branches()? {
            let ours =
                |plan: &&retention::BranchLog| plan.identity == branch.identity && plan.branch == branch.id;
            // A branch that is new since the facts were read has no plan and keeps everything.
            let Some(plan) = self.plan.log.iter().find(ours) else { continue };
            let Some(until) = plan.expired else { continue };
            if !dry_run {
                self.go_on()?;
            }
            freed.join(branch.log.expire(&plan.keep, until, dry_run)?);
        }
        Ok(freed)
    }
}

fn is_full(error: &RepoError) -> bool {
    error.code == code::FULL
}
