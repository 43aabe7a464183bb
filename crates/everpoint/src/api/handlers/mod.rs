//! The endpoints, by what they are about. Each reads its fields, calls the use-case, gives its report.

pub(crate) mod backups;
pub(crate) mod clusters;
pub(crate) mod health;
pub(crate) mod jobs;
pub(crate) mod keeping;
pub(crate) mod offsite;
pub(crate) mod restores;

use crate::config::valid_name;

use super::fields::Rule;

/// Name of a cluster.
pub(crate) const NAME: Rule =
    Rule(valid_name, "a name has up to 63 of a-z 0-9 . _ - and begins with a letter or digit");

/// A short word, such as the kind of a job.
pub(crate) const WORD: Rule = Rule(
    |text| (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
    "it must be a word of a-z and _, at most 32",
);
