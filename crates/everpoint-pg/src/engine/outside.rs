//! What `check` says of configuration outside of the data directory.

use std::path::Path;

use everpoint_engine::{CheckLine, CheckState};

use super::session::line;
use crate::basebackup::{WARNED, beside};
use crate::client::Config;
use crate::files::ODD;
use crate::outside::{LACKS, grants};

/// Reasons with this word are mended by a right.
const OF_ROLE: &str = "the role";

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

/// What there is to tell of an image, by its facts, and what mends it.
pub(super) fn warnings(config: Option<&Config>, facts: &[(String, String)]) -> Vec<String> {
    let told = |prefix: &str| -> Vec<String> {
        let named =
            |(name, text): &(String, String)| Some(format!("{} ({text})", name.strip_prefix(prefix)?));
        facts.iter().filter_map(named).collect()
    };
    let (lacks, odd) = (told(LACKS), told(ODD));
    let mut warnings = Vec::new();
    if !lacks.is_empty() {
        let granted = lacks.iter().any(|lack| lack.contains(OF_ROLE));
        let mends =
            config.filter(|_| granted).map_or_else(String::new, |it| format!("; {}", grants(&it.user)));
        warnings.push(format!("the image lacks {}{mends}", lacks.join(", ")));
    }
    if !odd.is_empty() {
        warnings.push(format!("whole, but odd: {}", odd.join(", ")));
    }
    let said = facts.iter().filter(|(name, _)| name.starts_with(WARNED));
    warnings.extend(said.map(|(_, text)| format!("the server warned during the backup: {text}")));
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_lacks_and_what_is_odd_are_told_apart() {
        let fact = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let facts = [
            fact("lacks lost+found", "it can't be read"),
            fact("odd base/5/1", "3 bytes follow"),
            fact("server warning 1", "beware"),
            fact("wal_level", "replica"),
        ];
        let told = warnings(None, &facts);
        assert_eq!(told.len(), 3);
        assert_eq!(told.first().map(String::as_str), Some("the image lacks lost+found (it can't be read)"));
        let config = Config::parse("postgres://u@h/d").unwrap();
        let mends =
            |reason: &str| warnings(Some(&config), &[fact("lacks x", reason)]).concat().contains("GRANT");
        assert!(mends("the role may not read it") && !mends("it is a link to nowhere"));
    }
}
