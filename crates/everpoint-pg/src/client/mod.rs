//! A blocking PostgreSQL client: connection parameters as libpq reads them, TLS, authentication, the simple query protocol,
//! copy in both directions. Protocol: PostgreSQL documentation, chapter "Frontend/Backend Protocol".

mod authentication;
mod certificate;
pub mod config;
mod connection;
mod conninfo;
mod environment;
mod error;
mod hosts;
mod limits;
mod open;
mod passfile;
mod query;
mod refused;
mod resolve;
mod secret;
mod service;
mod settings;
mod socket;
mod tls;

pub use config::{Config, Host, Keepalives, PasswordSource, RootCertificates, SslMode, TargetSession};
pub use connection::{Canceller, Connection, Frame};
pub use environment::Environment;
pub(crate) use error::{NO_DATABASE, POOLER_HINT};
pub use error::{PgError, ServerError};
pub use open::{Purpose, connect};
pub use query::{Rows, quote_identifier, quote_literal};
pub(crate) use query::{Until, exact_row, row};
pub use secret::Secret;
