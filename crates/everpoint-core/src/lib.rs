//! Pure decisions: positions, branches, windows, gaps, targets, plans.
//!
//! Nothing in this crate reads a clock, a file, the environment or a random source: a decision is a function of the
//! facts it is given (`fn(facts, policy, now) -> Plan`), and a plan carries its reasons and its shortfall.

pub mod class;
pub mod digest;
pub mod position;

pub use class::FailureClass;
pub use digest::{Carry, Digest, LogEvent, RecordSpan, TransactionEnd, Verdict};
pub use position::{BranchId, LogOffset, Micros, Span};
