//! Before `protect` writes anything: the server answers, with this password.

use everpoint_app::AppError;
use everpoint_pg::client::{self, Secret};
use everpoint_pg::engine::{PgEngine, PgOptions};

use crate::session::Session;

/// Asks the server of an address that is not configured yet who it is.
///
/// # Errors
/// If it can't be reached or does not let us in: a mistyped address or password must leave nothing behind.
pub(super) fn new_server(url: &str, password: Option<&str>) -> Result<(), AppError> {
    let password = password.map(Secret::new);
    let engine = PgEngine::new(PgOptions {
        address: Some(url.to_owned()),
        password: password.map(|password| client::PasswordSource::new(move || Ok(password.clone()))),
        ..PgOptions::default()
    })?;
    everpoint_engine::Engine::identify(&engine).map(drop).map_err(|error| unchanged(error.into()))
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

fn unchanged(mut error: AppError) -> AppError {
    let hint = error.hint.take().map(|hint| format!("{hint}; ")).unwrap_or_default();
    error.hint(format!("{hint}nothing was written: run it again when the server answers at this address"))
}
