//! PostgreSQL: the replication client, file capture, WAL decode, page checksums, recovery.

pub mod basebackup;
pub mod catalog;
pub mod client;
pub mod control;
pub mod engine;
mod fields;
pub mod files;
pub mod history;
pub mod lsn;
pub mod outside;
pub mod page;
mod polite;
pub mod recovery;
pub mod replication;
pub mod wal;
