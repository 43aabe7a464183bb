//! TLS of the server: certificate and key from PEM files, read again when they change.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use everpoint_app::AppError;
use everpoint_core::FailureClass;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::api::TlsConfig;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Gives the acceptor for the next connection.
pub(crate) struct Tls {
    config: TlsConfig,
    current: Mutex<Current>,
}

struct Current {
    acceptor: TlsAcceptor,
    changed: Option<SystemTime>,
    looked: Instant,
}

/// Reads certificate and key.
///
/// # Errors
/// Class `Usage`: they can't be read or don't belong together.
pub(crate) fn acceptor(config: &TlsConfig) -> Result<Tls, AppError> {
    let current = Current { acceptor: load(config)?, changed: changed(config), looked: Instant::now() };
    Ok(Tls { config: config.clone(), current: Mutex::new(current) })
}

impl Tls {
    /// A certificate that was renewed is used without a restart; one that can't be used is left aside.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK_EVERY {
            current.looked = Instant::now();
            let now = changed(&self.config);
            if now != current.changed {
                match load(&self.config) {
                    Ok(acceptor) => {
                        current.acceptor = acceptor;
                        current.changed = now;
                        tracing::info!("the API uses its new certificate");
                    }
                    Err(error) => tracing::warn!("the API keeps its old certificate: {error}"),
                }
            }
        }
        current.acceptor.clone()
    }
}

fn changed(config: &TlsConfig) -> Option<SystemTime> {
    let of = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified()).ok();
    of(&config.cert).max(of(&config.key))
}

fn load(config: &TlsConfig) -> Result<TlsAcceptor, AppError> {
    let wrong = |path: &Path, message: String| {
        AppError::new("api.tls", FailureClass::Usage, "use for TLS", path.display().to_string(), message)
    };
    let certs = CertificateDer::pem_file_iter(&config.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(&config.cert, error.to_string()))?;
    if certs.is_empty() {
        return Err(wrong(&config.cert, "it holds no certificate".to_owned()));
    }
    let key =
        PrivateKeyDer::from_pem_file(&config.key).map_err(|error| wrong(&config.key, error.to_string()))?;
    let mut server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certs, key))
        .map_err(|error| wrong(&config.cert, error.to_string()))?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}
