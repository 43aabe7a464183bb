//! Real servers, writers and judges for the tests; never shipped.
//!
//! Nothing here uses a crate of Everpoint: what judges must not share a mistake with what is judged.
//!
//! - [`PgInstall`] finds the programs of a PostgreSQL version, [`PgCluster`] runs a cluster of it.
//! - [`Session`] is a small SQL connection.

mod account;
mod builder;
mod cluster;
mod install;
mod port;
mod scratch;
mod session;

pub use account::Account;
pub use builder::PgClusterBuilder;
pub use cluster::{PgCluster, StopMode};
pub use install::{PgInstall, SUPPORTED, cache_dir};
pub use port::Port;
pub use scratch::Scratch;
pub use session::{Address, Answer, Session, SqlError};
