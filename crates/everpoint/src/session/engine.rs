//! The engine of a cluster, made from its configuration.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use everpoint_app::AppError;
use everpoint_core::{FailureClass, Micros};
use everpoint_engine::Engine;
use everpoint_pg::client;
use everpoint_pg::engine::{PgEngine, PgOptions};

use crate::config::secret::{self, Secret};
use crate::config::{ClusterConfig, Limits, PasswordSource, Source};

/// The engine. A cluster without configuration can only be restored.
pub(super) fn build(cluster: Option<&ClusterConfig>, limits: &Limits) -> Result<Arc<dyn Engine>, AppError> {
    let options = match cluster.map(|cluster| (&cluster.source, cluster)) {
        None => PgOptions::default(),
        Some((Source::Postgres(postgres), cluster)) => PgOptions {
            address: Some(postgres.url.clone()),
            password: postgres.password.clone().map(asked_when_needed),
            data_dir: postgres.data_dir.clone(),
            programs: postgres.pg_bin.clone(),
            application_name: Some(cluster.slot.clone()),
            standby_lag: limits.standby_lag.map(Micros),
        },
        Some((Source::MongoDb, cluster)) => return Err(not_yet(&cluster.name)),
    };
    Ok(Arc::new(PgEngine::new(options)?))
}

/// The engine for a command that asks no server: it knows no more than where the files are.
pub(super) fn serverless(cluster: Option<&ClusterConfig>) -> Result<Arc<dyn Engine>, AppError> {
    let options = match cluster.map(|cluster| &cluster.source) {
        Some(Source::Postgres(postgres)) => {
            PgOptions { data_dir: postgres.data_dir.clone(), ..PgOptions::default() }
        }
        _ => PgOptions::default(),
    };
    Ok(Arc::new(PgEngine::new(options)?))
}

/// The password of a cluster, as a source that is asked once, when a server wants it: a command may ask a person or a vault.
fn asked_when_needed(source: PasswordSource) -> client::PasswordSource {
    let known: OnceLock<client::Secret> = OnceLock::new();
    client::PasswordSource::new(move || {
        if let Some(known) = known.get() {
            return Ok(known.clone());
        }
        let secret = read_password(&source, &mut |warning| tracing::warn!("{warning}"))
            .map_err(|error| (error.to_string(), error.hint))?;
        Ok(known.get_or_init(|| client::Secret::new(secret.expose())).clone())
    })
}

/// Reads the password of a cluster.
///
/// # Errors
/// Class `Usage`: its source gives nothing.
pub(crate) fn read_password(
    source: &PasswordSource,
    warn: &mut dyn FnMut(String),
) -> Result<Secret, AppError> {
    match source {
        PasswordSource::File(path) => secret::from_file("the password", path, warn),
        PasswordSource::Command(command) => secret::from_command("the password", command),
    }
}

fn not_yet(cluster: &str) -> AppError {
    let message = "it is a MongoDB cluster, which this version can't protect yet; a later one will";
    AppError::new("config.mongodb", FailureClass::Usage, "work with", cluster, message)
        .hint("leave its table in the configuration if you like, and name the clusters that you mean")
}

/// Where the server's programs are, if the configuration says.
pub(super) fn programs(cluster: &ClusterConfig) -> Option<PathBuf> {
    match &cluster.source {
        Source::Postgres(postgres) => postgres.pg_bin.clone(),
        Source::MongoDb => None,
    }
}
