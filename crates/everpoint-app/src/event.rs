//! Progress of a use-case.

use everpoint_core::{LogOffset, Micros};

use crate::text;

/// Something worth telling while a use-case runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A new step began, in words.
    Step(String),
    /// Bytes done of the current step.
    Progress {
        /// Bytes done.
        done: u64,
        /// Bytes in all, if known.
        total: Option<u64>,
    },
    /// Something that the operator should know but that does not stop the work.
    Warning(String),
    /// Capture: an attempt failed, and another one follows.
    Failing {
        /// Why, in words.
        why: String,
        /// The store has no room.
        full: bool,
    },
    /// Log is lost: nothing in it can be restored, and a new backup is needed for what follows.
    Gap {
        /// Timeline.
        timeline: u32,
        /// First position that is missing.
        from: LogOffset,
        /// First position behind.
        to: LogOffset,
        /// Why.
        reason: String,
    },
    /// A plain fact.
    Info(String),
    /// Capture: everything up to here is durable.
    Captured {
        /// Timeline.
        timeline: u32,
        /// Durable up to here.
        position: LogOffset,
        /// Nothing was committed beyond it up to this moment.
        covered_until: Option<Micros>,
    },
    /// Recovery: replay has come this far.
    Replaying {
        /// Position.
        position: LogOffset,
        /// Where it will stop.
        target: Option<LogOffset>,
        /// Time of the last commit replayed.
        time: Option<Micros>,
    },
}

impl Event {
    /// What the operator should know, in words: of warnings and gaps.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        match self {
            Self::Warning(text) => Some(text.clone()),
            Self::Gap { timeline, from, to, reason } => Some(format!(
                "the log from {} to {} of timeline {timeline} is lost ({reason}): nothing in it can be restored; \
                 take a backup now",
                text::lsn(*from),
                text::lsn(*to)
            )),
            _ => None,
        }
    }
}

/// Receives events, from any thread.
pub trait Events: Sync {
    /// Takes one.
    fn emit(&self, event: Event);
}

/// Drops all events.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Events for Quiet {
    fn emit(&self, _event: Event) {}
}
