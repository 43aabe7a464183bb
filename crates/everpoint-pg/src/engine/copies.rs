//! What tells that a server is a restored copy.

use std::path::Path;

use everpoint_core::SaysCopy;

use super::running::is_running_in;
use crate::client::{Config, Purpose, connect};
use crate::control::CONTROL_FILE;
use crate::{catalog, recovery, replication};

/// Whether the directory of the server holds a file; `None` if that can't be seen. `data_dir`: the configured directory,
/// which may be another one's meanwhile.
pub(super) fn has_file(config: &Config, data_dir: Option<&Path>, name: &str) -> Option<bool> {
    if let Some(there) = catalog::has_file(config, name) {
        return Some(there);
    }
    // Without the privilege to ask: where its directory is configured, one looks there.
    let data_dir = data_dir.filter(|data_dir| data_dir.join(CONTROL_FILE).exists())?;
    let there = std::fs::symlink_metadata(data_dir.join(name)).is_ok();
    let runs = match connect(config, Purpose::Sql) {
        Ok(mut sql) => is_running_in(&mut sql, data_dir),
        // A role that may only replicate can't ask; a server that runs there has noted it.
        Err(_) => there || data_dir.join("postmaster.pid").exists(),
    };
    runs.then_some(there)
}

/// What the server says of itself.
pub(crate) fn says_copy(config: &Config) -> SaysCopy {
    if let Some(cluster) = catalog::copy_of(config) {
        return SaysCopy::Of(cluster);
    }
    let name = replication::cluster_name(config);
    if name.is_some_and(|name| name == recovery::COPY_NAME) { SaysCopy::Named } else { SaysCopy::No }
}

/// Whether nothing that can be asked tells whether the server is a copy: then only its files do.
pub(crate) fn says_nothing(config: &Config) -> bool {
    catalog::has_file(config, recovery::COPY_SETTING).is_none() && says_copy(config) == SaysCopy::No
}
