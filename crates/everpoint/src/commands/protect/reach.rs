//! Before `protect` writes anything: the server answers, with this password.

use everpoint_app::{AppError, held, twin};
use everpoint_engine::{Engine as _, ServerIdentity};
use everpoint_pg::client::{self, Secret};
use everpoint_pg::engine::{PgEngine, PgOptions};

use crate::commands::anew::{Newcomer, is_made};
use crate::config::{Config, RepositoryConfig};
use crate::session::{Session, others_of_new, stored_of_new};

/// Asks the server of an address that is not configured yet who it is.
///
/// # Errors
/// If it can't be reached or does not let us in: a mistyped address or password must leave nothing behind.
pub(super) fn new_server(url: &str, password: Option<&str>) -> Result<(PgEngine, ServerIdentity), AppError> {
    let password = password.map(Secret::new);
    let engine = PgEngine::new(PgOptions {
        address: Some(url.to_owned()),
        password: password.map(|password| client::PasswordSource::new(move || Ok(password.clone()))),
        ..PgOptions::default()
    })?;
    let server = engine.identify().map_err(|error| unchanged(error.into()))?;
    Ok((engine, server))
}

/// Refuses an address that is not configured yet and whose database does not exist.
///
/// # Errors
/// If it does not.
pub(super) fn has_database(engine: &PgEngine) -> Result<(), AppError> {
    engine.has_database().map_err(|error| {
        let mut error = AppError::from(error);
        let hint = error.hint.take().unwrap_or_default();
        error.hint(format!("{hint}; nothing was written"))
    })
}

/// As [`new_server`], of a cluster that is configured, with the password that it has there.
///
/// # Errors
/// As [`new_server`].
pub(super) fn known_server(
    session: &Session,
    config: &std::path::Path,
    cluster: &str,
) -> Result<(), AppError> {
    let global = crate::cli::Global { config: Some(config.to_owned()), ..session.global.clone() };
    let (engine, _) = Session::new(global).server(cluster)?;
    engine.identify().map(drop).map_err(|error| unchanged(error.into()))
}

/// Refuses a server that is protected under another name, or whose slot is another repository's. Where nothing is stored of a
/// configured one, its server is asked.
///
/// # Errors
/// If it is.
pub(super) fn refuse_others(
    session: &Session,
    existing: Option<&Config>,
    repository: &RepositoryConfig,
    newcomer: Newcomer<'_>,
    server: &ServerIdentity,
) -> Result<(), AppError> {
    let (name, engine) = (newcomer.name, newcomer.engine);
    let slots = engine.log_keeping().map(|keeping| keeping.slots).unwrap_or_default();
    let others = others_of_new(name, existing, repository, &slots);
    let stored = |name: &String| {
        let known = others.iter().find(|other| other.name() == name);
        known.is_some_and(|known| known.identities().is_ok_and(|known| !known.is_empty()))
    };
    let ask = |config: &Config, name: &String| {
        let global = crate::cli::Global { config: Some(config.path.clone()), ..session.global.clone() };
        Session::new(global).server(name).ok()?.0.identify().ok()
    };
    let asked: Vec<(String, ServerIdentity)> = existing
        .into_iter()
        .flat_map(|config| config.clusters.keys().map(move |name| (config, name)))
        .filter(|(_, name)| !stored(name))
        .filter_map(|(config, name)| Some((name.clone(), ask(config, name)?)))
        .collect();
    twin::refuse_new(name, server, &others, &asked)?;
    // One that is there and can't be opened is told as that.
    match stored_of_new(name, repository) {
        None if is_made(&repository.url) => Ok(()),
        stored => held::refuse(name, newcomer.slot, (engine, server), stored.as_ref()),
    }
}

fn unchanged(mut error: AppError) -> AppError {
    let hint = error.hint.take().map(|hint| format!("{hint}; ")).unwrap_or_default();
    error.hint(format!("{hint}nothing was written: run it again when the server answers at this address"))
}
