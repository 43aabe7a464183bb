//! From a restored directory to a server that has replayed the log to a known record.
//!
//! [`prepare_recovery`] writes what the server needs; [`start`] runs it, watches it, verifies the position it stopped
//! at and promotes it; [`rewrite_for_copy`] changes log that a copy replays so that it creates no directories outside
//! of its own; [`local_log`] tells what log a stopped server's directory still holds.

mod alive;
mod collations;
mod command;
mod configuration;
mod copy;
mod ending;
mod guard;
mod kept;
mod layout;
mod libraries;
mod limits;
mod local;
mod local_place;
mod memory;
mod needs;
mod outside;
mod owner;
mod place;
mod prepare;
mod programs;
mod server_log;
mod start;
mod steps;
mod tablespaces;
mod watch;

pub use alive::{life_signs, tablespace_in_use};
pub(crate) use collations::compared as compare_collations;
pub(crate) use configuration::COPY_NAME;
pub(crate) use copy::COPY_SETTING;
pub use copy::forget_copy;
pub(crate) use kept::configuration as kept_configuration;
pub use layout::start_settings;
pub(crate) use libraries::replay_libraries;
pub use local::local_log;
pub use local_place::local_place;
pub use needs::unstartable;
pub use place::{directory_proof, is_log_name, tablespace_directory, takes_tablespaces_inside};
pub use prepare::prepare_recovery;
pub use programs::find_programs;
pub(crate) use programs::{noted_programs, trusted_programs};
pub use start::start;
pub use steps::{next_steps, stop_command};
pub use tablespaces::rewrite_for_copy;

use std::path::Path;

use everpoint_engine::EngineError;

/// The error of an operation on a file or directory of a copy.
fn failed(operation: &'static str, path: &Path, error: std::io::Error) -> EngineError {
    let message = "the file system refused it";
    EngineError::new("pg.files", operation, path.display().to_string(), message).cause(error)
}

/// Major version of the server that a data directory belongs to.
fn major_version(directory: &Path) -> Result<u32, EngineError> {
    let path = directory.join("PG_VERSION");
    let text = std::fs::read_to_string(&path).map_err(|error| {
        failed("read", &path, error).hint("the directory must hold a restored PostgreSQL data directory")
    })?;
    text.trim().parse().map_err(|_| {
        let message = format!("{:?} is no major version of PostgreSQL", text.trim());
        EngineError::new("pg.files", "read", path.display().to_string(), message)
    })
}
