//! Pure decisions: positions, branches, windows, gaps, targets, plans.
//!
//! Nothing in this crate reads a clock, a file, the environment or a random source: a decision is a function of the
//! facts it is given (`fn(facts, policy, now) -> Plan`), and a plan carries its reasons and its shortfall.

pub mod class;
pub mod continuity;
pub mod digest;
pub mod facts;
pub mod history;
pub mod plan;
pub mod position;
pub mod target;
pub mod window;

pub use class::FailureClass;
pub use continuity::{BreakReason, Gap};
pub use digest::{Carry, Digest, LogEvent, RecordSpan, TransactionEnd, Verdict};
pub use facts::{BackupFacts, BackupStatus, BranchFacts, EventCounts, KnownGap, LogFacts, PieceFacts};
pub use history::{HistoryEntry, parent_branch};
pub use plan::{LogSource, NeededPiece, Reachable, RestorePlan, Shortfall};
pub use position::{BranchId, LogOffset, Micros, Span};
pub use target::{RestoreRequest, Stop, Target};
pub use window::Window;
