//! The HTTP API: the use-cases of the command line for other programs, described by the document that it serves.
//!
//! One table (`routes`) holds every endpoint; router and document are made from it, so neither can lack what the other
//! has. Requests are answered on blocking threads, at most [`AT_ONCE`] at a time.

mod access;
mod answer;
mod call;
mod daemon;
mod document;
mod fields;
mod goal;
mod handlers;
mod router;
mod routes;
mod server;
mod strategy;
mod tls;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use everpoint_app::AppError;

use crate::config::api::ApiConfig;
use crate::metrics::Metrics;
use access::Access;

pub(crate) use daemon::{Ask, Daemon, FiringAlert, Job, JobFilter};
pub(crate) use server::Server;

/// Requests that are worked on at once; more are told to come again.
const AT_ONCE: usize = 16;

/// What the endpoints work with.
pub(crate) struct Api {
    pub(crate) daemon: Arc<dyn Daemon>,
    pub(crate) metrics: Arc<Metrics>,
    access: Access,
    document: String,
}

impl Api {
    fn new(config: &ApiConfig, daemon: Arc<dyn Daemon>, metrics: Arc<Metrics>) -> Result<Self, AppError> {
        let access = Access::new(config, &mut |warning| tracing::warn!("{warning}"))?;
        let document = document::document(config.tls.is_some()).to_string();
        Ok(Self { daemon, metrics, access, document })
    }
}

/// Reads the tokens and certificates of the API, and forgets them.
///
/// # Errors
/// Class `Usage`: one can't be read, or can't be used.
pub(crate) fn try_secrets(config: &ApiConfig, warn: &mut dyn FnMut(String)) -> Result<(), AppError> {
    if config.listen.is_none() {
        return Ok(());
    }
    Access::new(config, warn)?;
    config.tls.as_ref().map_or(Ok(()), |tls| tls::acceptor(tls).map(drop))
}

/// Looks whether the server of `config` could be started, but for its address.
///
/// # Errors
/// As [`start`].
pub(crate) fn try_out(config: &ApiConfig) -> Result<(), AppError> {
    let Some(address) = config.listen else { return Ok(()) };
    access::may_listen(config, address)?;
    try_secrets(config, &mut |_| ())
}

/// Starts the server of `config`; `None` if it wants none, or if the port that nobody asked for is taken.
///
/// # Errors
/// Class `Usage`: it would listen beyond this machine without tokens or TLS; a token or certificate can't be read; the
/// address that the configuration names can't be had.
pub(crate) fn start(
    config: &ApiConfig,
    daemon: Arc<dyn Daemon>,
    metrics: Arc<Metrics>,
) -> Result<Option<Server>, AppError> {
    let Some(address) = config.listen else {
        return Ok(None);
    };
    access::may_listen(config, address)?;
    let api = Api::new(config, daemon, metrics)?;
    let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
    match Server::start(address, tls, Arc::new(api)) {
        Ok(server) => Ok(Some(server)),
        // Protecting the database must not end because a port that was never asked for is taken.
        Err(error) if !config.explicit => {
            tracing::warn!("no API: {error}; say where it may listen with [api] listen = \"…\"");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
