//! The engine of a cluster, made from its configuration.

use std::path::PathBuf;
use std::sync::Arc;

use everpoint_app::AppError;
use everpoint_core::{FailureClass, Micros};
use everpoint_engine::Engine;
use everpoint_pg::engine::{PgEngine, PgOptions};

use crate::config::secret;
use crate::config::{ClusterConfig, Limits, PasswordSource, PostgresConfig, Source};

/// The engine. A cluster without configuration can only be restored.
pub(super) fn build(
    cluster: Option<&ClusterConfig>,
    limits: &Limits,
    warn: &mut dyn FnMut(String),
) -> Result<Arc<dyn Engine>, AppError> {
    let options = match cluster.map(|cluster| (&cluster.source, cluster)) {
        None => PgOptions::default(),
        Some((Source::Postgres(postgres), cluster)) => PgOptions {
            address: Some(postgres.url.clone()),
            password: password(postgres, warn)?,
            data_dir: postgres.data_dir.clone(),
            programs: postgres.pg_bin.clone(),
            application_name: Some(cluster.slot.clone()),
            standby_lag: limits.standby_lag.map(Micros),
        },
        Some((Source::MongoDb, cluster)) => return Err(not_yet(&cluster.name)),
    };
    Ok(Arc::new(PgEngine::new(options)?))
}

fn password(
    postgres: &PostgresConfig,
    warn: &mut dyn FnMut(String),
) -> Result<Option<everpoint_pg::client::Secret>, AppError> {
    let secret = match &postgres.password {
        None => return Ok(None),
        Some(PasswordSource::File(path)) => secret::from_file("the password", path, warn)?,
        Some(PasswordSource::Command(command)) => secret::from_command("the password", command)?,
    };
    Ok(Some(everpoint_pg::client::Secret::new(secret.expose())))
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
