//! A full image over the replication protocol (BASE_BACKUP): nothing but a role with REPLICATION is needed.
//!
//! The server sends one tar archive for the data directory and one for each tablespace; they are taken apart as they come,
//! in parts that worker threads check, compress and store. The log from start to stop is captured beside it.
//! Protocol: PostgreSQL documentation, "Streaming Replication Protocol", command BASE_BACKUP.

mod archives;
mod command;
mod passed_over;
mod run;
mod spaces;
mod split;
mod tar;
mod torn;
mod worker;

pub(crate) use passed_over::WARNED;
pub use run::base_backup;
pub(crate) use run::beside;
pub use tar::{Entry, EntryKind, TarError, TarEvent, TarReader};
