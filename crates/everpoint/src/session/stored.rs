//! Clusters that no configuration names and a repository holds: after `forget`, or with a configuration that was written anew.

use everpoint_app::AppError;
use everpoint_core::FailureClass;
use everpoint_core::words::known;

use super::names::check_cluster;
use super::{Opened, Session};
use crate::config::RepositoryConfig;

impl Session {
    /// As [`Session::cluster`]; one that is not configured is looked for in the repositories.
    ///
    /// # Errors
    /// Class `Usage`: neither the configuration nor a repository knows it, or several hold one of this name.
    pub(crate) fn stored_cluster(&self, name: &str) -> Result<Opened, AppError> {
        check_cluster(name)?;
        if self.by_hand() || self.config()?.clusters.contains_key(name) {
            return self.cluster(name);
        }
        let (mut holding, mut names) = (Vec::new(), Vec::new());
        self.each_repository(|repository| {
            let opened = self.opened(name, None, repository)?;
            let there = opened.context.repository.clusters()?;
            if there.iter().any(|known| known == name) {
                holding.push(opened);
            }
            names.extend(there);
            Ok(())
        })?;
        if holding.len() > 1 {
            let urls = holding.iter().map(|opened| everpoint_store::shown_url(&opened.repository.url));
            let urls: Vec<String> = urls.collect();
            let message =
                format!("it is not configured, and several repositories hold it: {}", urls.join(", "));
            return Err(AppError::new(
                "config.no_cluster",
                FailureClass::Usage,
                "find the cluster",
                name,
                message,
            )
            .hint("say which one you mean: --repo NAME"));
        }
        let config = self.config()?;
        holding.pop().ok_or_else(|| {
            names.extend(config.clusters.keys().cloned());
            names.sort();
            names.dedup();
            let message =
                format!("{} has no [cluster.{name}], and no repository holds it", config.path.display());
            let hint = match names.is_empty() {
                true => "there is no cluster yet; add one with: everpoint protect postgres://…".to_owned(),
                false => known(name, "clusters", names.iter().map(String::as_str)),
            };
            AppError::new("config.no_cluster", FailureClass::Usage, "find the cluster", name, message)
                .hint(hint)
        })
    }

    /// Whether a configuration is there and does not name the cluster.
    pub(crate) fn lacks(&self, name: &str) -> bool {
        !self.by_hand() && self.config().is_ok_and(|config| !config.clusters.contains_key(name))
    }

    /// All clusters that the repositories of the configuration hold and it does not name.
    ///
    /// # Errors
    /// If the configuration can't be read, or such a cluster can't be opened.
    pub(crate) fn only_stored(&self) -> Result<Vec<Opened>, AppError> {
        let config = self.config()?;
        let mut found = Vec::new();
        self.each_repository(|repository| {
            let there = self.open(&repository)?.clusters()?;
            for name in there.iter().filter(|name| !config.clusters.contains_key(*name)) {
                found.push(self.opened(name, None, repository.clone())?);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// One of several that can't be read hides nothing of the others.
    fn each_repository(
        &self,
        mut look: impl FnMut(RepositoryConfig) -> Result<(), AppError>,
    ) -> Result<(), AppError> {
        let all = self.repository_configs()?;
        let only = all.len() == 1;
        for repository in all {
            let url = everpoint_store::shown_url(&repository.url);
            match look(repository) {
                Err(error) if only => return Err(error),
                Err(error) => self.warn(&format!("what {url} holds is not known: {error}")),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}
