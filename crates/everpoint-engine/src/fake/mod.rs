//! A scripted engine for tests, with a log format of its own, and the suite that every [`LogSink`](crate::LogSink)
//! passes.
//!
//! Fault model. [`FakeEngine`] keeps every promise of [`Engine::capture`](crate::Engine::capture). On request it breaks
//! a connection after any number of bytes, repeats bytes after a reconnect, forgets old log, and goes over to a new
//! timeline. It never sends wrong bytes, and what it sends is decided by the script alone: no clock, no chance.

mod conformance;
mod decoder;
mod engine;
mod log;
#[cfg(test)]
mod tests;

pub use conformance::{ReadBack, log_sink};
pub use decoder::FakeDecoder;
pub use engine::{FakeEngine, FakeServer, FakeTimeline};
pub use log::{FAKE_HEADER_BYTES, FakeLog, FakeRecord};
