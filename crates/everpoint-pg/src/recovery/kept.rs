//! Files of configuration in a data directory that a restore in place leaves as they are.

use std::path::{Path, PathBuf};

use everpoint_core::name::to_path;
use everpoint_engine::{ConfigurationFile, Stays};

use super::ending::{self, DIRECTORY, SETTINGS};
use super::layout::config_of;
use crate::outside::{self, CONFIG_FILE, started_here};

/// The files, as they will be when no settings of a recovery are in them.
pub(crate) fn configuration(directory: &Path, facts: &[(String, String)]) -> Vec<ConfigurationFile> {
    let mut found = outside::inside(directory, &configs(directory, facts));
    if let Ok(Some(text)) = ending::without_recovery(directory)
        && let Some(stays) = found.get_mut(Path::new(SETTINGS))
    {
        *stays = Stays::File(text);
    }
    if found.contains_key(Path::new(SETTINGS)) {
        // How an unfinished recovery's settings are told from production's.
        found.insert(PathBuf::from(DIRECTORY), Stays::Thing);
    }
    found.into_iter().map(|(path, stays)| ConfigurationFile { path, stays }).collect()
}

/// The main files of configuration that may be those of a server on a directory. A restore that was cut off has taken away what
/// the server noted, so that what is known otherwise is looked at, too.
fn configs(directory: &Path, facts: &[(String, String)]) -> Vec<PathBuf> {
    let recorded = facts.iter().find(|(name, _)| name == CONFIG_FILE).map(|(_, path)| to_path(path));
    let mut configs = vec![directory.join("postgresql.conf"), started_here(directory)];
    configs.extend(config_of(directory));
    configs.extend(recorded);
    configs.sort();
    configs.dedup();
    configs.retain(|config| config.is_file());
    configs
}
