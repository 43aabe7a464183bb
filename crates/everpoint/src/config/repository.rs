//! `[repository.NAME]`.

use std::path::{Path, PathBuf};

use super::Variables;
use super::mistake::{Mistake, plain_or_name};
use super::retention::Retention;
use super::section::Section;

/// One repository.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RepositoryConfig {
    /// Its name in the file.
    pub(crate) name: String,
    /// Where it is: an absolute path or a URL.
    pub(crate) url: String,
    /// Where its key comes from.
    pub(crate) key: KeySource,
    /// What it keeps.
    pub(crate) retention: Retention,
}

/// Where a repository's key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeySource {
    /// First line of a file.
    File(PathBuf),
    /// First line of what a shell command prints.
    Command(String),
    /// `$EVERPOINT_KEY`; not encrypted if that is not set.
    Environment,
}

impl RepositoryConfig {
    pub(super) fn read(
        name: &str,
        section: &mut Section<'_>,
        base: &Path,
        variables: Variables<'_>,
    ) -> Option<Self> {
        let url = section.expanded("url", variables);
        let retention = Retention::read(section);
        let file = section.path("key_file", base);
        let command = section.text("key_command");
        let key = match (file, command) {
            (Some(_), Some(command)) => {
                let message = "`key_command` and `key_file` can't both be given";
                section.mistake(Mistake::new(command.at, message).hint("keep one of them"));
                return None;
            }
            (Some(file), None) => KeySource::File(file),
            (None, Some(command)) => KeySource::Command(command.value),
            (None, None) => KeySource::Environment,
        };
        let Some(url) = url else {
            let at = section.at();
            section.mistake(
                Mistake::new(at, format!("[repository.{}] has no valid `url`", plain_or_name(name)))
                    .hint("add: url = \"/var/lib/everpoint\""),
            );
            return None;
        };
        if is_no_path(&url.value) {
            let hint = "write a path such as \"/var/lib/everpoint\", or an address with its scheme";
            section.mistake(Mistake::new(url.at, "`url` is neither a path nor an address").hint(hint));
            return None;
        }
        Some(Self { name: name.to_owned(), url: absolute(&url.value, base), key, retention })
    }
}

/// `user:password@host/path`: a path of it would be shown. (A path like that is written `./…`.)
pub(crate) fn is_no_path(url: &str) -> bool {
    !url.contains("://")
        && !url.starts_with(['/', '.'])
        && url.split_once('@').is_some_and(|(before, _)| before.contains(':'))
}

/// A path becomes absolute, seen from `base`; a URL stays as it is.
pub(crate) fn absolute(url: &str, base: &Path) -> String {
    if url.contains("://") {
        return url.to_owned();
    }
    let joined = base.join(url);
    std::path::absolute(&joined).unwrap_or(joined).display().to_string()
}
