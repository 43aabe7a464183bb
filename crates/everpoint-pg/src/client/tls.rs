//! TLS: whom to trust, which name a certificate must hold, client certificates.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
};

use super::PgError;
use super::certificate::{Certificate, names_host};
use super::config::{Config, Host, RootCertificates, SslMode};
use super::socket::Plain;

/// Shakes hands over a socket on which the server has agreed to TLS.
pub(super) fn handshake(
    mut plain: Plain,
    host: &Host,
    config: &Config,
) -> Result<StreamOwned<ClientConnection, Plain>, PgError> {
    let settings = settings(host, config)?;
    let name = match ServerName::try_from(host.name.clone()) {
        Ok(name) => name,
        // A name that is no DNS name is checked by our verifier all the same; here it only means "send no SNI".
        Err(_) => ServerName::from(plain.peer().unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into())),
    };
    let mut connection = ClientConnection::new(Arc::new(settings), name).map_err(|error| failure(&error))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut plain).map_err(|error| {
            match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(inner) => failure(inner),
                None => PgError::Io(error),
            }
        })?;
    }
    Ok(StreamOwned::new(connection, plain))
}

fn settings(host: &Host, config: &Config) -> Result<ClientConfig, PgError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Verifier::new(host, config, &provider)?);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failure(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut settings = match &config.client_certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            builder.with_client_auth_cert(chain, private_key(key)?).map_err(|error| failure(&error))?
        }
    };
    if config.ssl_direct {
        settings.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(settings)
}

fn failure(error: &rustls::Error) -> PgError {
    let hint = match error {
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer => {
                Some("sslrootcert must hold the certificate of the authority that signed the server's")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Some("connect by a name that the certificate holds, or get a certificate for this name")
            }
            CertificateError::Other(_) | CertificateError::BadEncoding => Some(
                "an X.509 version 1 certificate can't be verified: issue it with extensions (subjectAltName)",
            ),
            _ => None,
        },
        rustls::Error::AlertReceived(_) => {
            Some("the server refused: a client certificate (sslcert) may be missing")
        }
        _ => None,
    };
    PgError::Tls { message: format!("TLS failed: {error}"), hint: hint.map(str::to_owned) }
}

/// Reads all certificates of a PEM file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PgError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found =
        read.map_err(|error| PgError::parameter(format!("certificate file {}: {error}", path.display())))?;
    if found.is_empty() {
        return Err(PgError::parameter(format!("certificate file {} holds no certificate", path.display())));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PgError> {
    let unreadable =
        |error: String| PgError::parameter(format!("private key file {}: {error}", path.display()));
    let facts = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    // As libpq: nobody else may read it, except that root's file may be readable for a group.
    let forbidden = if facts.uid() == 0 { 0o037 } else { 0o077 };
    if facts.permissions().mode() & forbidden != 0 {
        return Err(PgError::Parameter {
            message: format!("private key file {} can be read by others", path.display()),
            hint: Some(format!("chmod 600 {}", path.display())),
        });
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| unreadable(error.to_string()))
}

/// Checks the server's certificate as `sslmode` asks.
#[derive(Debug)]
struct Verifier {
    /// `None`: any certificate will do.
    roots: Option<Roots>,
    /// The name that the certificate must hold.
    host: Option<String>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
struct Roots {
    store: RootCertStore,
    /// A server's self-signed certificate may itself be what is trusted.
    certificates: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn new(host: &Host, config: &Config, provider: &CryptoProvider) -> Result<Self, PgError> {
        // A root certificate that is present is used with `require`, too, as libpq does.
        let roots =
            if config.ssl_mode >= SslMode::Require { roots(&config.root_certificates)? } else { None };
        Ok(Self {
            roots,
            host: (config.ssl_mode == SslMode::VerifyFull).then(|| host.name.clone()),
            algorithms: provider.signature_verification_algorithms,
        })
    }
}

fn roots(source: &RootCertificates) -> Result<Option<Roots>, PgError> {
    let certificates = match source {
        RootCertificates::None => return Ok(None),
        RootCertificates::File(path) => certificates(path)?,
        RootCertificates::System => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                return Err(PgError::Tls {
                    message: "the operating system offers no trusted root certificates".to_owned(),
                    hint: Some(
                        "install the package ca-certificates, or name a file with sslrootcert".to_owned(),
                    ),
                });
            }
            found.certs
        }
    };
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates.iter().cloned());
    Ok(Some(Roots { store, certificates }))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            if roots.certificates.iter().any(|root| root.as_ref() == end_entity.as_ref()) {
                parsed(end_entity)?.check_validity(now)?;
            } else {
                verify_server_cert_signed_by_trust_anchor(
                    &ParsedCertificate::try_from(end_entity)?,
                    &roots.store,
                    intermediates,
                    now,
                    self.algorithms.all,
                )?;
            }
        }
        match &self.host {
            Some(host) if !names_host(&parsed(end_entity)?, host) => {
                Err(CertificateError::NotValidForName.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.roots.is_some() {
            return verify_tls13_signature(message, certificate, signature, &self.algorithms);
        }
        // Certificates of version 1 (older `openssl x509 -req` makes them) are common on servers that nobody verifies;
        // the usual function refuses to read them, so give it the key alone.
        let key = parsed(certificate)?.public_key()?;
        let key = SubjectPublicKeyInfoDer::from(key);
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn parsed(certificate: &CertificateDer<'_>) -> Result<Certificate, rustls::Error> {
    Certificate::parse(certificate).ok_or_else(|| CertificateError::BadEncoding.into())
}
