//! Offsite providers as the configuration has them, and their ledgers.

use everpoint_app::{AppError, ClusterContext, offsite, package};
use everpoint_core::{FailureClass, LogNeed};
use everpoint_offsite::{
    CommandOptions, CommandProvider, FilesystemProvider, HttpOptions, HttpProvider, Provider, ProviderError,
    S3Options, S3Provider,
};
use everpoint_repo::{OffsiteLedger, Repository};

use super::{Opened, Session};
use crate::config::expand::expand;
use crate::config::mistake::plain_or_name;
use crate::config::offsite::{CommandPlace, HeaderSource, HttpPlace, OffsiteConfig, OffsitePlace, S3Place};
use crate::config::secret::{Secret, SecretSource};
use crate::config::{Config, RepositoryConfig};

/// The ledger of a provider and the repository that holds it.
pub(crate) struct Ledger {
    pub(crate) repository: Repository,
    /// Where it is and how its key is found.
    pub(crate) place: RepositoryConfig,
    pub(crate) ledger: OffsiteLedger,
}

/// What a package is made of and for whom.
pub(crate) struct Parcels {
    /// The clusters, by priority.
    pub(crate) clusters: Vec<ClusterContext>,
    /// What can't go in, in words.
    pub(crate) left_out: Vec<String>,
    pub(crate) recipients: Vec<age::x25519::Recipient>,
    /// Opens what is made, where that is possible here.
    pub(crate) identity: Option<age::x25519::Identity>,
}

impl Session {
    /// The provider of this name, or the only one.
    ///
    /// # Errors
    /// Class `Usage`: there is none, or several.
    pub(crate) fn offsite(&self, name: Option<&str>) -> Result<&OffsiteConfig, AppError> {
        let config = self.config()?;
        let known = || config.offsite.keys().map(String::as_str);
        if let Some(name) = name {
            return config.offsite.get(name).ok_or_else(|| {
                let message = format!("there is no [offsite.{}]", plain_or_name(name));
                none(config, message).hint(everpoint_core::words::known(name, "providers", known()))
            });
        }
        let mut enabled = config.offsite.values().filter(|provider| provider.enabled);
        match (enabled.next(), enabled.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(none(config, "it has no [offsite.NAME] that is enabled".to_owned())
                .hint("add a table: [offsite.vault] with type = \"http\" and url = \"https://…\"")),
            (Some(_), Some(_)) => {
                let enabled = config.offsite.values().filter(|provider| provider.enabled);
                let names = enabled.map(|provider| provider.name.as_str()).collect::<Vec<_>>().join(", ");
                Err(none(config, format!("there are several: {names}")).hint("name one with --provider"))
            }
        }
    }

    /// As [`Session::offsite`], of those to which something may be sent.
    ///
    /// # Errors
    /// Class `Usage`: as there, or it is not enabled.
    pub(crate) fn offsite_enabled(&self, name: Option<&str>) -> Result<&OffsiteConfig, AppError> {
        let provider = self.offsite(name)?;
        if provider.enabled {
            return Ok(provider);
        }
        let message = format!("[offsite.{}] says enabled = false: nothing is sent", provider.name);
        let hint = "take that line away, and make a new backup: no log was kept for its sake meanwhile";
        Err(none(self.config()?, message).hint(hint))
    }

    /// Where packages go, in words; secrets are not asked for.
    pub(crate) fn describe(&self, config: &OffsiteConfig) -> String {
        let made: Result<Box<dyn Provider>, ProviderError> = match &config.place {
            OffsitePlace::Http(place) => http(config, place, Vec::new()).map(|made| Box::new(made) as _),
            OffsitePlace::S3(place) => S3Provider::new(S3Options {
                endpoint: place.endpoint.clone(),
                region: place.region.clone(),
                bucket: place.bucket.clone(),
                prefix: place.prefix.clone(),
                path_style: place.path_style,
                access_key: String::new(),
                secret_key: String::new(),
                session_token: None,
                counts: config.counts,
                timeout: config.timeout,
                idle: config.idle,
            })
            .map(|made| Box::new(made) as _),
            OffsitePlace::Filesystem { path, keep, .. } => Ok(Box::new(FilesystemProvider::new(path, *keep))),
            OffsitePlace::Command(place) => command(config, place).map(|made| Box::new(made) as _),
        };
        made.map_or_else(|_| format!("[offsite.{}]", config.name), |made| made.describe())
    }

    /// Makes the provider; sends nothing.
    ///
    /// # Errors
    /// Class `Usage`: a secret can't be read, or an address can't be one.
    pub(crate) fn provider(&self, config: &OffsiteConfig) -> Result<Box<dyn Provider>, AppError> {
        Ok(match &config.place {
            OffsitePlace::Filesystem { path, below, keep } => {
                Box::new(FilesystemProvider::new(path, *keep).made_below(below.clone()))
            }
            OffsitePlace::Http(place) => Box::new(
                http(config, place, self.headers(config, place)?).map_err(|error| unusable(config, error))?,
            ),
            OffsitePlace::S3(place) => {
                let options = self.s3(config, place)?;
                Box::new(S3Provider::new(options).map_err(|error| unusable(config, error))?)
            }
            OffsitePlace::Command(place) => {
                Box::new(command(config, place).map_err(|error| unusable(config, error))?)
            }
        })
    }

    fn headers(&self, config: &OffsiteConfig, place: &HttpPlace) -> Result<Vec<(String, String)>, AppError> {
        let read = |(name, source): &(String, HeaderSource)| {
            let what = format!("the header {name} of [offsite.{}]", config.name);
            let value = match source {
                HeaderSource::From(source) => {
                    source.read(&what, &mut |warning| self.warn(&warning))?.expose().to_owned()
                }
                HeaderSource::Text(text) => expand(text.expose(), &|name| std::env::var(name).ok())
                    .map_err(|why| AppError::new("config.secret", FailureClass::Usage, "read", what, why))?,
            };
            Ok((name.clone(), value))
        };
        place.headers.iter().map(read).collect()
    }

    fn s3(&self, config: &OffsiteConfig, place: &S3Place) -> Result<S3Options, AppError> {
        let read = |source: &SecretSource, what: &str| -> Result<String, AppError> {
            let what = format!("the {what} of [offsite.{}]", config.name);
            Ok(source.read(&what, &mut |warning| self.warn(&warning))?.expose().to_owned())
        };
        Ok(S3Options {
            endpoint: place.endpoint.clone(),
            region: place.region.clone(),
            bucket: place.bucket.clone(),
            prefix: place.prefix.clone(),
            path_style: place.path_style,
            access_key: read(&place.access_key, "access key")?,
            secret_key: read(&place.secret_key, "secret key")?,
            session_token: place
                .session_token
                .as_ref()
                .map(|token| read(token, "session token"))
                .transpose()?,
            counts: config.counts,
            timeout: config.timeout,
            idle: config.idle,
        })
    }

    /// Opens the ledger of a provider.
    ///
    /// # Errors
    /// If the repository can't be opened.
    pub(crate) fn ledger(&self, config: &OffsiteConfig) -> Result<Ledger, AppError> {
        let place = self.repository_config(config.repository.as_ref().map(|name| name.value.as_str()))?;
        let repository = self.open(&place)?;
        let ledger = repository.offsite(&config.name)?;
        Ok(Ledger { repository, place, ledger })
    }

    /// The log of a cluster that some provider has not got yet, and that has to stay for it.
    ///
    /// # Errors
    /// If a ledger can't be read: then nothing may be let go.
    pub(crate) fn offsite_needs(&self, opened: &Opened) -> Result<Vec<LogNeed>, AppError> {
        let repository = &opened.context.repository;
        let providers = match self.config.get() {
            Some(config) => self.providers_from(config, opened)?,
            // Who is still sent to can't be known: all that ever were.
            None => repository.offsite_providers()?,
        };
        let mut needs = Vec::new();
        for provider in providers {
            let ledger = repository.offsite(&provider)?;
            needs.extend(offsite::needs(&opened.context, &offsite::contents(&ledger)?)?);
        }
        Ok(needs)
    }

    /// Names of the enabled providers that get packages of this repository, whichever way its address is written.
    fn providers_from(&self, config: &Config, opened: &Opened) -> Result<Vec<String>, AppError> {
        let mut found = Vec::new();
        for provider in config.offsite.values().filter(|provider| provider.enabled) {
            let named = provider.repository.as_ref().map(|name| config.repositories.get(&name.value));
            let Some(place) = named.unwrap_or_else(|| config.repositories.values().next()) else { continue };
            let same = place.url == opened.repository.url
                || match self.open(place) {
                    Ok(other) => other.id() == opened.context.repository.id(),
                    Err(error) => {
                        self.warn(&format!(
                            "taken for another repository: {} of the configuration: {error}",
                            place.name
                        ));
                        false
                    }
                };
            if same {
                found.push(provider.name.clone());
            }
        }
        Ok(found)
    }

    /// What goes into the package of a provider: the clusters of its repository.
    ///
    /// # Errors
    /// If the key can't be read, or the configuration names none.
    pub(crate) fn parcels(&self, config: &OffsiteConfig, ledger: &Ledger) -> Result<Parcels, AppError> {
        let mut names = self.cluster_names(None)?;
        let rank = |name: &String| config.priority.iter().position(|wanted| wanted.value == *name);
        names.sort_by_key(|name| rank(name).unwrap_or(usize::MAX));
        let (mut clusters, mut left_out) = (Vec::new(), Vec::new());
        for name in names {
            match self.cluster(&name) {
                Ok(opened) if opened.context.repository.id() == ledger.repository.id() => {
                    clusters.push(opened.context);
                }
                Ok(_) => {}
                Err(error) => left_out.push(format!("{name}: it is left out: {error}")),
            }
        }
        let key = self.key_of(&ledger.place)?;
        let recipients = package::recipients(&config.recipients, key.as_ref())?;
        // Only what is encrypted to the key itself can be opened here.
        let own = key.as_ref().filter(|_| config.recipients.is_empty());
        let identity = own.map(package::identity_of_key).transpose()?;
        Ok(Parcels { clusters, left_out, recipients, identity })
    }
}

fn http(
    config: &OffsiteConfig,
    place: &HttpPlace,
    headers: Vec<(String, String)>,
) -> Result<HttpProvider, ProviderError> {
    let text = |secret: &Secret| secret.expose().to_owned();
    HttpProvider::new(HttpOptions {
        download_url: place.download_url.as_ref().map(text),
        list_url: place.list_url.as_ref().map(text),
        health_url: place.health_url.as_ref().map(text),
        method: place.method,
        headers,
        counts: config.counts,
        timeout: config.timeout,
        idle: config.idle,
        ..HttpOptions::new(text(&place.url))
    })
}

fn command(config: &OffsiteConfig, place: &CommandPlace) -> Result<CommandProvider, ProviderError> {
    CommandProvider::new(CommandOptions {
        upload: place.upload.clone(),
        download: place.download.clone(),
        list: place.list.clone(),
        health: place.health.clone(),
        counts: config.counts,
        timeout: config.timeout,
    })
}

fn none(config: &Config, message: String) -> AppError {
    let object = config.path.display().to_string();
    AppError::new("config.no_offsite", FailureClass::Usage, "find the offsite provider in", object, message)
}

fn unusable(config: &OffsiteConfig, error: ProviderError) -> AppError {
    let cause = error.cause.as_ref().map(ToString::to_string).unwrap_or_default();
    let object = format!("[offsite.{}]", config.name);
    AppError::new("config.offsite", FailureClass::Usage, "use", object, format!("{error}: {cause}"))
}
