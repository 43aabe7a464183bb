//! What `check` says of configuration outside of the data directory.

use std::path::Path;

use everpoint_engine::{CheckLine, CheckState};

use super::line;
use crate::basebackup::beside;
use crate::client::Config;
use crate::outside::{LACKS, grants};

/// Whether a backup would hold all of the configuration. `data_dir`: backups read the server's files there.
pub(super) fn check(config: &Config, data_dir: Option<&Path>) -> CheckLine {
    let name = "configuration";
    let mut outside = beside(config, data_dir);
    let hint = || Some(grants(&config.user));
    if !outside.known {
        let message = "whether configuration lies outside of the data directory can't be seen by this role; a backup \
                       would lack it";
        return line(name, CheckState::Warning, message.to_owned(), hint());
    }
    // What lies inside comes with the directory, whether this role may read it or not.
    outside.missed_inside(|_| true);
    if let Some(lacking) = outside.lacking() {
        return line(name, CheckState::Warning, format!("a backup would lack {lacking}"), hint());
    }
    let place = outside.config_file().unwrap_or_default();
    let message = match outside.files.len() {
        0 => "lies in the data directory".to_owned(),
        1 => format!("{place}; 1 file outside of the data directory is taken along"),
        count => format!("{place}; {count} files outside of the data directory are taken along"),
    };
    line(name, CheckState::Ok, message, None)
}

/// What an image lacks, by its facts, and what mends it.
pub(super) fn warnings(config: Option<&Config>, facts: &[(String, String)]) -> Vec<String> {
    let lacks: Vec<String> = facts
        .iter()
        .filter_map(|(name, reason)| Some(format!("{} ({reason})", name.strip_prefix(LACKS)?)))
        .collect();
    if lacks.is_empty() {
        return Vec::new();
    }
    let mends = config.map_or_else(String::new, |config| format!("; {}", grants(&config.user)));
    vec![format!("the image lacks {}{mends}", lacks.join(", "))]
}
