//! The use-cases, one file each: `run(context, request, events) -> Result<Report, AppError>`.
//!
//! Four callers (command line, daemon, HTTP API, dashboard) share them and their one JSON shape: reports serialize as
//! docs/CLI describes. Progress is a stream of [`Event`]s that each caller renders its own way.

pub mod adopt;
pub mod advice;
pub mod archive_get;
pub mod archive_push;
pub mod backup;
pub mod belongings;
pub mod bundle;
pub mod capture;
pub mod captured;
pub mod caught;
pub mod check;
pub mod context;
pub mod coverage;
pub mod disks;
pub mod drop_branch;
pub mod error;
pub mod event;
pub mod expire;
pub mod facts;
pub mod health;
pub mod held;
pub mod hold;
pub mod init;
pub mod key;
pub mod lineage;
pub mod list;
pub mod log_file;
pub mod log_writer;
pub mod offsite;
mod other_system;
pub mod package;
pub mod prefetch;
pub mod production;
pub mod reading;
pub mod restore;
pub mod restore_point;
pub mod restore_points;
pub mod status;
#[cfg(test)]
mod testing;
pub mod text;
mod timelines;
pub mod twin;
pub mod upkeep;
mod writable;

pub use context::ClusterContext;
pub use error::AppError;
pub use event::{Event, Events, Quiet};
