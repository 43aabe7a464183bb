//! Authentication: none, cleartext, MD5, SCRAM-SHA-256 with and without channel binding.

use std::time::Duration;

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;

use super::certificate::end_point_hash;
use super::config::ChannelBindingMode;
use super::secret::Secret;
use super::{Connection, Frame, PgError, Purpose};

/// Carries the exchange out that the server asks for.
pub(super) fn authenticate(
    connection: &mut Connection,
    purpose: Purpose,
    timeout: Duration,
) -> Result<(), PgError> {
    let must_bind = connection.config().channel_binding == ChannelBindingMode::Require;
    let mut bound = false;
    loop {
        let message = next(connection, timeout)?;
        if must_bind && !bound && !matches!(message, Message::AuthenticationSasl(_)) {
            return Err(refused("channel binding is required, but the server does not ask for SCRAM"));
        }
        match message {
            Message::AuthenticationOk => return Ok(()),
            Message::AuthenticationCleartextPassword => {
                let password = password(connection, purpose)?;
                answer_password(connection, password.reveal().as_bytes())?;
            }
            Message::AuthenticationMd5Password(body) => {
                let password = password(connection, purpose)?;
                let user = connection.config().user.clone();
                let hash = md5_hash(user.as_bytes(), password.reveal().as_bytes(), body.salt());
                answer_password(connection, hash.as_bytes())?;
            }
            Message::AuthenticationSasl(body) => {
                let password = password(connection, purpose)?;
                bound = scram(connection, &body, &password, timeout)?;
            }
            _ => {
                return Err(PgError::Authentication {
                    message: "the server asks for a kind of authentication that is not supported".to_owned(),
                    hint: Some("use scram-sha-256 or cert in pg_hba.conf for this user".to_owned()),
                });
            }
        }
    }
}

fn next(connection: &mut Connection, timeout: Duration) -> Result<Message, PgError> {
    match connection.receive(Some(timeout))?.ok_or(PgError::Timeout(timeout))? {
        Frame::Message(message) => Ok(message),
        Frame::Error(error) => Err(PgError::Server(error)),
        Frame::CopyBoth => Err(PgError::Protocol("copy while authenticating".to_owned())),
    }
}

fn refused(message: impl Into<String>) -> PgError {
    PgError::Authentication { message: message.into(), hint: None }
}

fn password(connection: &Connection, purpose: Purpose) -> Result<Secret, PgError> {
    let found = connection.config().password_for(connection.host(), purpose == Purpose::Replication)?;
    found.ok_or_else(|| PgError::Authentication {
        message: "the server asks for a password, but none is given".to_owned(),
        hint: Some(
            "add a line host:port:*:user:password to ~/.pgpass (chmod 600), or set PGPASSWORD; \
             the database of a replication connection is called `replication` there"
                .to_owned(),
        ),
    })
}

fn answer_password(connection: &mut Connection, answer: &[u8]) -> Result<(), PgError> {
    connection.queue(|out| frontend::password_message(answer, out))?;
    connection.flush()
}

/// SCRAM; returns whether the channel is bound.
fn scram(
    connection: &mut Connection,
    offer: &AuthenticationSaslBody,
    password: &Secret,
    timeout: Duration,
) -> Result<bool, PgError> {
    let protocol = |error: std::io::Error| PgError::Protocol(error.to_string());
    let offered: Vec<String> =
        offer.mechanisms().map(|name| Ok(name.to_owned())).collect().map_err(protocol)?;
    let (mechanism, binding) = choose(connection, &offered)?;
    let mut exchange = ScramSha256::new(password.reveal().as_bytes(), binding);
    connection.queue(|out| frontend::sasl_initial_response(mechanism, exchange.message(), out))?;
    connection.flush()?;
    let Message::AuthenticationSaslContinue(body) = next(connection, timeout)? else {
        return Err(PgError::Protocol("SCRAM was not continued".to_owned()));
    };
    exchange.update(body.data()).map_err(|error| refused(format!("SCRAM failed: {error}")))?;
    connection.queue(|out| frontend::sasl_response(exchange.message(), out))?;
    connection.flush()?;
    let Message::AuthenticationSaslFinal(body) = next(connection, timeout)? else {
        return Err(PgError::Protocol("SCRAM was not finished".to_owned()));
    };
    // The server proves here that it knows the password, too.
    exchange
        .finish(body.data())
        .map_err(|error| refused(format!("the server failed to prove itself: {error}")))?;
    Ok(mechanism == SCRAM_SHA_256_PLUS)
}

fn choose(connection: &Connection, offered: &[String]) -> Result<(&'static str, ChannelBinding), PgError> {
    let mode = connection.config().channel_binding;
    let has = |name: &str| offered.iter().any(|mechanism| mechanism == name);
    let hash = connection.certificate().and_then(end_point_hash);
    if mode != ChannelBindingMode::Disable && has(SCRAM_SHA_256_PLUS) {
        if let Some(hash) = hash {
            return Ok((SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash)));
        }
    } else if mode == ChannelBindingMode::Prefer && hash.is_some() && has(SCRAM_SHA_256) {
        // Says "we could, but you did not offer": a server that did offer notices that somebody took the offer away.
        return Ok((SCRAM_SHA_256, ChannelBinding::unrequested()));
    }
    if mode == ChannelBindingMode::Require {
        return Err(refused("channel binding is required, but not possible on this connection"));
    }
    if has(SCRAM_SHA_256) {
        return Ok((SCRAM_SHA_256, ChannelBinding::unsupported()));
    }
    Err(refused(format!("none of the offered SASL mechanisms is supported: {}", offered.join(", "))))
}
