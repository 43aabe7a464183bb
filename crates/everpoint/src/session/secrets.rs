//! What a daemon must be able to read before it begins, asked alike by `check`: else the one fails where the other is content.

use everpoint_app::AppError;
use everpoint_repo::code;

use super::{Session, engine, key};
use crate::alerts::sink;
use crate::api;
use crate::config::Source;

impl Session {
    /// Reads keys, passwords, tokens and certificates of the configuration, and forgets them again.
    ///
    /// # Errors
    /// Class `Usage`: one can't be read, or can't be what it should be.
    pub(crate) fn try_secrets(&self) -> Result<(), AppError> {
        let config = self.config()?;
        // What is open to others is warned about by those who use it.
        let mut silent = |_| {};
        for repository in self.repository_configs()? {
            key::read(&repository, &mut silent)?;
        }
        for cluster in config.clusters.values() {
            if let Source::Postgres(postgres) = &cluster.source
                && let Some(source) = &postgres.password
            {
                engine::read_password(source, &mut silent)
                    .map_err(|error| of_cluster(error, &cluster.name))?;
            }
        }
        api::try_secrets(&config.api, &mut silent)?;
        config.alerts.sinks.iter().try_for_each(|one| sink::try_secrets(one, &mut silent))
    }

    /// Looks whether the keys open their repositories. One that can't be reached now says nothing about its key.
    ///
    /// # Errors
    /// If a key is another repository's, or missing, or there where none is needed.
    pub(crate) fn try_keys(&self) -> Result<(), AppError> {
        const OF_KEYS: [&str; 3] = [code::WRONG_KEY, code::KEY_MISSING, code::NOT_ENCRYPTED];
        for repository in self.repository_configs()? {
            match self.open(&repository) {
                Err(error) if OF_KEYS.contains(&error.code.as_str()) => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }
}

fn of_cluster(mut error: AppError, cluster: &str) -> AppError {
    error.object = format!("{} ([cluster.{cluster}])", error.object);
    error
}
