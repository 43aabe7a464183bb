//! Real servers, writers and judges for the tests; never shipped.
//!
//! Nothing here uses a crate of Everpoint: what judges must not share a mistake with what is judged.
//!
//! - [`PgInstall`] finds the programs of a PostgreSQL version, [`PgCluster`] runs a cluster of it.
//! - [`Session`] is a small SQL connection.
//! - [`Writers`] write from many sessions at once and remember what they were told; a [`Judge`] computes from that and from
//!   the source's own log what a recovery to a moment must bring back, and compares.

mod account;
mod builder;
mod cluster;
mod copy;
mod everpoint;
mod history;
mod host;
mod install;
mod judge;
mod pgbench;
mod port;
mod process;
mod random;
mod scratch;
mod session;
mod transaction;
mod webhook;
mod writer;
mod writers;
mod xact_log;

pub use account::Account;
pub use builder::PgClusterBuilder;
pub use cluster::{PgCluster, StopMode};
pub use copy::RunningCopy;
pub use everpoint::{Background, Everpoint, Ran, field, say, text};
pub use history::{Ended, History, parse_lsn, print_lsn, print_time};
pub use host::{NO_HOME, NO_SYSTEM_CONFIG, clean, foreign_variables};
pub use install::{PgInstall, SUPPORTED, cache_dir, server_tool, test_tool};
pub use judge::{Expected, Judge, Verdict};
pub use pgbench::Pgbench;
pub use port::Port;
pub use process::{Usage, signal_child};
pub use random::Random;
pub use scratch::Scratch;
pub use session::{Address, Answer, Session, SqlError};
pub use transaction::{ACCOUNTS, Effect, Told, Transaction, now};
pub use webhook::Webhook;
pub use writers::{Record, WriterOptions, Writers};
