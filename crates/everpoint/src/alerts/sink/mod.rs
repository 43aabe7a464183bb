//! Where messages go.

mod http;
mod log;
mod mail;
mod span;

use everpoint_app::AppError;
use everpoint_core::FailureClass;

use super::message::Message;
use crate::config::alerts::{SecretText, SinkConfig, SinkKind, is_url};
use crate::config::secret::Secret;
use crate::trace::Traces;

/// Why a message was not taken. The text never holds an address: those of webhooks are secrets.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) message: String,
    /// It may be taken later.
    pub(super) may_pass: bool,
}

/// Sends one message.
pub(super) trait Sink: Send {
    fn send(&self, message: &Message) -> Result<(), Failure>;
}

/// Opens a sink: secrets are read now, so that a missing one shows at the start and not in the night.
///
/// # Errors
/// Class `Usage`: a secret or an address can't be used.
pub(super) fn open(
    config: &SinkConfig,
    traces: &Traces,
    warn: &mut dyn FnMut(String),
) -> Result<Box<dyn Sink>, AppError> {
    Ok(match &config.kind {
        SinkKind::Log => Box::new(log::Log),
        SinkKind::Otel => Box::new(span::Spans(traces.clone())),
        SinkKind::Slack { url } => {
            Box::new(http::Http::new(&config.name, address(&config.name, url, warn)?, None, http::slack)?)
        }
        SinkKind::Webhook { url, token } => {
            let address = address(&config.name, url, warn)?;
            let what = format!("the token of the sink {}", config.name);
            let token = token.as_ref().map(|token| token.read(&what, warn)).transpose()?;
            Box::new(http::Http::new(&config.name, address, token, http::webhook)?)
        }
        SinkKind::Smtp(smtp) => Box::new(mail::Mail::new(&config.name, smtp, warn)?),
    })
}

fn address(name: &str, url: &SecretText, warn: &mut dyn FnMut(String)) -> Result<Secret, AppError> {
    let secret = match url {
        SecretText::Given(secret) => secret.clone(),
        SecretText::From(source) => source.read(&format!("the address of the sink {name}"), warn)?,
    };
    if is_url(secret.expose()) {
        Ok(secret)
    } else {
        Err(unusable(name, "its address does not begin with https:// or http://".to_owned()))
    }
}

/// Reads the secrets of a sink, and forgets them.
///
/// # Errors
/// Class `Usage`, as [`open`].
pub(crate) fn try_secrets(config: &SinkConfig, warn: &mut dyn FnMut(String)) -> Result<(), AppError> {
    match &config.kind {
        SinkKind::Log | SinkKind::Otel => Ok(()),
        SinkKind::Slack { url } => address(&config.name, url, warn).map(drop),
        SinkKind::Webhook { url, token } => {
            address(&config.name, url, warn)?;
            let what = format!("the token of the sink {}", config.name);
            token.as_ref().map_or(Ok(()), |token| token.read(&what, warn).map(drop))
        }
        SinkKind::Smtp(smtp) => {
            let what = format!("the password of the sink {}", config.name);
            smtp.password.as_ref().map_or(Ok(()), |password| password.read(&what, warn).map(drop))
        }
    }
}

/// An error about the configuration of a sink.
fn unusable(name: &str, message: String) -> AppError {
    AppError::new("alerts.sink", FailureClass::Usage, "send alerts through the sink", name, message)
}
