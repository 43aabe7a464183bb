//! What is kept and what goes: which backups, which log, and what can no longer be brought back afterwards.
//!
//! Two promises are kept at once. *Counts* keep single backups: the newest ones, the first one of a day, week, month,
//! year. The *window* keeps seconds: any moment of the last days can be brought back, so the log of those days stays, with
//! a backup from before them. Of a backup older than that only the log from its start to its stop is kept.
//!
//! Nothing goes as long as no good backup exists, and the newest good one never goes.

mod keep;
mod log;
mod period;
pub mod promise;
mod reach;

use jiff::tz::TimeZone;

use crate::facts::{BackupFacts, BackupStatus, LogFacts, PieceFacts};
use crate::position::{BranchId, LogOffset, Micros, Span};
use crate::window::{Window, windows};

pub use self::reach::{Reach, reach};

/// Microseconds of 24 hours.
pub(crate) const DAY: i64 = 86_400_000_000;

/// What to keep.
#[derive(Debug, Clone, PartialEq)]
pub struct RetentionPolicy {
    /// So many newest good backups; 0 counts as 1.
    pub last: u32,
    /// All good backups that ended within so many microseconds before now.
    pub within: Option<i64>,
    /// The first good backup of a day, of so many days that have one.
    pub daily: u32,
    /// The same of weeks, which begin on Mondays.
    pub weekly: u32,
    /// The same of months.
    pub monthly: u32,
    /// The same of years.
    pub yearly: u32,
    /// Any second of so many times 24 hours before now can be brought back, if it can be now.
    pub window_days: u32,
    /// Failed and damaged backups are kept for so many times 24 hours, and longer where there is no newer good one.
    pub failed_days: u32,
    /// Where days, weeks, months and years begin.
    pub zone: TimeZone,
}

impl Default for RetentionPolicy {
    /// 14 days in which any second can be brought back, 14 daily, 4 weekly and 12 monthly backups, in UTC.
    fn default() -> Self {
        Self {
            last: 1,
            within: None,
            daily: 14,
            weekly: 4,
            monthly: 12,
            yearly: 0,
            window_days: 14,
            failed_days: 7,
            zone: TimeZone::UTC,
        }
    }
}

/// An attempt at a backup that has no map that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    /// Its label.
    pub label: String,
    /// When it began; `None` if its record can't be read.
    pub at: Option<Micros>,
    /// It may still be running.
    pub running: bool,
}

/// A backup that somebody wants kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its label.
    pub label: String,
    /// Until when; `None`: until it is released.
    pub until: Option<Micros>,
}

/// What somebody still needs of the log of a branch: everything from a position on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogNeed {
    /// Identity of the branch.
    pub identity: u32,
    /// The branch.
    pub branch: BranchId,
    /// First position that is needed.
    pub from: LogOffset,
}

/// Log that can only be kept or let go as a whole: a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogUnit {
    /// Identity of the branch.
    pub identity: u32,
    /// The branch.
    pub branch: BranchId,
    /// What it holds.
    pub span: Span,
}

/// What expiry has to know of a cluster.
#[derive(Debug, Clone, Copy)]
pub struct ExpireFacts<'a> {
    /// The log.
    pub log: &'a LogFacts,
    /// The backups that have a map, good and damaged ones.
    pub backups: &'a [BackupFacts],
    /// The others.
    pub attempts: &'a [Attempted],
    /// Backups on hold.
    pub holds: &'a [Held],
    /// Log that has not arrived where it has to go yet, such as at an offsite provider.
    pub needs: &'a [LogNeed],
    /// Bundles, of which one that is needed in part stays as a whole.
    pub units: &'a [LogUnit],
}

/// A backup that stays, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptBackup {
    /// Its label.
    pub label: String,
    /// In words; never empty.
    pub reasons: Vec<String>,
}

/// A backup that goes, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedBackup {
    /// Its label.
    pub label: String,
    /// In words.
    pub reason: String,
}

/// What stays of the log of a branch. A piece of which any byte lies in one of the spans stays as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchLog {
    /// Identity of the branch.
    pub identity: u32,
    /// The branch.
    pub branch: BranchId,
    /// What stays: sorted, without overlap.
    pub keep: Vec<Span>,
    /// Where the last piece that goes ends: holes before are by design, not by loss. `None` if none goes.
    pub expired: Option<LogOffset>,
}

impl BranchLog {
    /// Whether a piece with this span stays.
    #[must_use]
    pub fn keeps(&self, span: Span) -> bool {
        self.keep.iter().any(|kept| kept.meets(span))
    }
}

/// What an expiry would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpirePlan {
    /// The moment from which ages are counted: now, or a day after the newest thing that is known of the cluster, if that
    /// is earlier. So neither a clock that runs ahead nor a cluster that stands still loses what it has.
    pub now: Micros,
    /// First moment of the days in which any second can be brought back.
    pub window_from: Micros,
    /// The backups that stay, in the order that they ended.
    pub kept: Vec<KeptBackup>,
    /// The backups that go; attempts that failed are among them.
    pub dropped: Vec<DroppedBackup>,
    /// What stays of the log of each branch.
    pub log: Vec<BranchLog>,
    /// What can be brought back before it.
    pub before: Vec<Window>,
    /// What can be brought back after it.
    pub after: Vec<Window>,
}

impl ExpirePlan {
    /// The log and the backups as they are after it.
    #[must_use]
    pub fn applied(&self, log: &LogFacts, backups: &[BackupFacts]) -> (LogFacts, Vec<BackupFacts>) {
        let mut left = log.clone();
        for branch in &mut left.branches {
            let plan = self.log.iter().find(|it| it.identity == branch.identity && it.branch == branch.id);
            let Some(plan) = plan else { continue };
            branch.pieces.retain(|piece| plan.keeps(piece.span));
            branch.expired = branch.expired.max(plan.expired);
        }
        let goes = |backup: &&BackupFacts| !self.dropped.iter().any(|dropped| dropped.label == backup.label);
        (left, backups.iter().filter(goes).cloned().collect())
    }
}

/// Decides what goes.
#[must_use]
pub fn expire(facts: &ExpireFacts<'_>, policy: &RetentionPolicy, now: Micros) -> ExpirePlan {
    let now = counted_from(facts, now);
    let window_from = Micros(now.0.saturating_sub(i64::from(policy.window_days).saturating_mul(DAY)));
    let before = windows(facts.log, facts.backups);
    let mut good: Vec<&BackupFacts> =
        facts.backups.iter().filter(|backup| backup.status == BackupStatus::Ok).collect();
    good.sort_by_key(|backup| (backup.stopped_at, &backup.label));
    let chosen = keep::choose(facts, policy, &good, &before, now, window_from);
    let mut plan = ExpirePlan {
        now,
        window_from,
        log: log::keep(facts, &good, &chosen, &before, window_from),
        kept: chosen.kept,
        dropped: chosen.dropped,
        before,
        after: Vec::new(),
    };
    let (log, backups) = plan.applied(facts.log, facts.backups);
    plan.after = windows(&log, &backups);
    plan
}

/// See [`ExpirePlan::now`].
fn counted_from(facts: &ExpireFacts<'_>, now: Micros) -> Micros {
    let of_backups = facts.backups.iter().map(|backup| backup.stopped_at);
    let of_log = facts.log.branches.iter().flat_map(|branch| {
        let of_pieces = branch.pieces.iter().filter_map(PieceFacts::latest);
        of_pieces.chain(branch.covered.map(|(_, until)| until))
    });
    let latest = of_backups.chain(of_log).max();
    latest.map_or(now, |latest| now.min(Micros(latest.0.saturating_add(DAY))))
}
