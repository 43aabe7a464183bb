//! Pure decisions: positions, branches, windows, gaps, targets, plans.
//!
//! Nothing in this crate reads a clock, a file, the environment or a random source: a decision is a function of the
//! facts it is given (`fn(facts, policy, now) -> Plan`), and a plan carries its reasons and its shortfall.

pub mod alert;
pub mod alive;
pub mod anew;
pub mod budget;
pub mod bundling;
pub mod cache;
mod choose;
pub mod class;
pub mod clone;
pub mod continuity;
mod copies;
pub mod created;
pub mod digest;
mod drops;
pub mod estimate;
pub mod facts;
pub mod health;
pub mod history;
pub mod join;
mod known;
mod leaf;
mod moment;
pub mod mount;
pub mod name;
mod nearest;
mod own_words;
pub mod package;
pub mod path;
pub mod place;
pub mod plan;
pub mod position;
mod present;
pub mod production;
pub mod protection;
mod reader;
pub mod reclaim;
pub mod repeats;
mod resolve;
pub mod retention;
pub mod retry;
pub mod schedule;
pub mod shell;
pub mod slots;
pub mod source;
pub mod target;
pub mod thinning;
pub mod twins;
pub mod unsaved;
pub mod when;
pub mod window;
pub mod words;

pub use alive::{Answer, Ended, Life, LifeSigns, RunNote, life};
pub use budget::{
    BootClock, BudgetDecision, BudgetPeriod, BudgetPolicy, BudgetRefusal, CallOutcome, CallStatus,
    ClockReading, LedgerEntry, may_call,
};
pub use bundling::{BundleHour, BundlePlan, SegmentTime, plan_bundles};
pub use class::FailureClass;
pub use continuity::{BreakReason, Continuity, Gap, Run, continuity, gaps};
pub use copies::{LatestBesides, SaysCopy, is_copy, latest_besides};
pub use created::CreatedTablespace;
pub use digest::{Carry, Digest, LogEvent, RecordSpan, TransactionEnd, Verdict};
pub use estimate::{Rates, estimate};
pub use facts::{BackupFacts, BackupStatus, BranchFacts, EventCounts, KnownGap, LogFacts, PieceFacts};
pub use history::{HistoryEntry, followed, parent_branch};
pub use own_words::hide_own;
pub use path::{PathPiece, PathStep, is_on_path, path, path_pieces};
pub use plan::{NeededPiece, Reachable, RestorePlan, Shortfall, plan_restore};
pub use position::{BranchId, LogOffset, Micros, Span};
pub use present::{Present, present};
pub use production::{Production, SeenBy, Sighting, current_identity, production};
pub use protection::{Archiver, LogKeeping, Standing, StoredBy, Storing, standing, stored_by};
pub use repeats::{Over, Repeats, Say, pattern};
pub use retention::{
    Attempted, BranchLog, DroppedBackup, ExpireFacts, ExpirePlan, Held, KeptBackup, LogNeed, LogUnit, Reach,
    RetentionPolicy, expire, reach,
};
pub use retry::{Again, LastTry, Retry, RetryPolicy, RunEnd, again, begins, retry};
pub use schedule::{Due, Schedule, due};
pub use slots::{Receiver, ServerSlot, held_by, orphan_told, orphans, taken};
pub use source::LogSource;
pub use target::{BranchChoice, RestoreRequest, Stop, Target};
pub use twins::{Named, holder, twin};
pub use window::{Window, windows};
