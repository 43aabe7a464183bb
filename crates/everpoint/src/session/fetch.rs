//! The beginning of the restore_command that a restored server gets.

use std::path::Path;

use everpoint_app::AppError;
use everpoint_core::shell;

use super::Session;
use crate::config::{self, KeySource, RepositoryConfig};

/// This program with the options that lead to the repository, quoted for a shell, and with `%` doubled as
/// PostgreSQL's settings of commands want it. `via`: the socket of a process that fetches for it.
pub(crate) fn fetch_program(
    session: &Session,
    repository: &RepositoryConfig,
    via: Option<&Path>,
) -> Result<String, AppError> {
    let program =
        std::env::current_exe().map_err(|error| AppError::io("find", Path::new("this program"), error))?;
    let mut words = vec![program.display().to_string()];
    if let Some(socket) = via {
        words.extend(["--fetch-via".to_owned(), socket.display().to_string()]);
    }
    words.extend(leading_arguments(session, repository)?);
    Ok(words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "))
}

/// The options with which another process finds the same repository.
pub(crate) fn leading_arguments(
    session: &Session,
    repository: &RepositoryConfig,
) -> Result<Vec<String>, AppError> {
    let mut words = Vec::new();
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    let configured = config::find(session.global.config.as_deref()).filter(|_| session.has_config());
    if let Some(path) = configured {
        let path = std::path::absolute(&path).map_err(|error| AppError::io("find", &path, error))?;
        option("--config", path.display().to_string());
    }
    if session.global.repo.is_some() {
        let by_name = session.has_config() && session.config()?.repositories.contains_key(&repository.name);
        option("--repo", if by_name { repository.name.clone() } else { repository.url.clone() });
    }
    if let (Some(_), KeySource::File(path)) = (&session.global.key_file, &repository.key) {
        option("--key-file", path.display().to_string());
    }
    Ok(words)
}

fn quote(word: &str) -> String {
    shell::word(&word.replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn words_survive_a_shell_and_a_setting() {
        assert_eq!(quote("/usr/bin/everpoint"), "/usr/bin/everpoint");
        assert_eq!(quote("/a b/it's"), r"'/a b/it'\''s'");
        assert_eq!(quote("/100%/x"), "/100%%/x");
        assert_eq!(quote(""), "''");
    }
}
