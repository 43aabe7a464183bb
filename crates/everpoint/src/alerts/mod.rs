//! Alerts: conditions become messages (`everpoint_core::alert`), messages go out through sinks. No sink ever holds up the
//! protection of a database: each has a thread and a queue of its own, and what waits survives a restart.

mod ending;
mod look;
mod memory;
mod message;
mod outbox;
pub(crate) mod sink;
mod thread;

#[cfg(test)]
mod tests;

pub(crate) use look::{CONFIGURATION, Looker};
pub(crate) use outbox::Outbox;
pub(crate) use thread::Senders;
