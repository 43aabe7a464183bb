//! What we read out of a certificate ourselves: names as libpq compares them, and the hash for channel binding.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use aws_lc_rs::digest;
use rustls::CertificateError;
use rustls::pki_types::UnixTime;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// A certificate that could be read.
#[derive(Debug)]
pub(super) struct Certificate {
    inner: x509_cert::Certificate,
}

impl Certificate {
    /// Reads DER; `None` if it is none.
    pub(super) fn parse(der: &[u8]) -> Option<Self> {
        x509_cert::Certificate::from_der(der).ok().map(|inner| Self { inner })
    }

    /// Refuses a certificate before or after its time.
    pub(super) fn check_validity(&self, now: UnixTime) -> Result<(), rustls::Error> {
        let now = Duration::from_secs(now.as_secs());
        let validity = &self.inner.tbs_certificate.validity;
        if now < validity.not_before.to_unix_duration() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > validity.not_after.to_unix_duration() {
            return Err(CertificateError::Expired.into());
        }
        Ok(())
    }

    /// The public key, DER.
    pub(super) fn public_key(&self) -> Result<Vec<u8>, rustls::Error> {
        let key = self.inner.tbs_certificate.subject_public_key_info.to_der();
        key.map_err(|_| CertificateError::BadEncoding.into())
    }

    fn alternative_names(&self) -> Vec<GeneralName> {
        match self.inner.tbs_certificate.get::<SubjectAltName>() {
            Ok(Some((_, names))) => names.0,
            Ok(None) | Err(_) => Vec::new(),
        }
    }

    fn common_name(&self) -> Option<String> {
        const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
        let parts = self.inner.tbs_certificate.subject.0.iter().flat_map(|part| part.0.iter());
        let mut named = parts.filter(|attribute| attribute.oid == COMMON_NAME);
        let last = named.next_back()?;
        String::from_utf8(last.value.value().to_vec()).ok()
    }
}

/// Whether the certificate names this host: an alternative name, or the common name if no alternative name is there to
/// compare with.
pub(super) fn names_host(certificate: &Certificate, host: &str) -> bool {
    let names = certificate.alternative_names();
    let address = IpAddr::from_str(host).ok();
    let mut comparable = false;
    for name in &names {
        match name {
            GeneralName::DnsName(pattern) => {
                comparable = true;
                if address.is_none() && matches_pattern(pattern.as_str(), host) {
                    return true;
                }
            }
            GeneralName::IpAddress(octets) => {
                comparable = true;
                let same = match address {
                    Some(IpAddr::V4(address)) => octets.as_bytes() == address.octets(),
                    Some(IpAddr::V6(address)) => octets.as_bytes() == address.octets(),
                    None => false,
                };
                if same {
                    return true;
                }
            }
            _ => {}
        }
    }
    !comparable && certificate.common_name().is_some_and(|name| matches_pattern(&name, host))
}

/// A `*` stands for exactly one label, the leftmost, and never for all of a name of two labels.
fn matches_pattern(pattern: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let Some(rest) = pattern.strip_prefix("*.") else {
        return false;
    };
    let Some((label, parent)) = host.split_once('.') else {
        return false;
    };
    rest.contains('.')
        && !label.is_empty()
        && parent.eq_ignore_ascii_case(rest)
        && IpAddr::from_str(host).is_err()
}

/// The hash of the certificate for `tls-server-end-point` (RFC 5929): that of its signature algorithm, SHA-256 instead of
/// MD5 and SHA-1. `None` where the algorithm has no single hash (Ed25519).
pub(super) fn end_point_hash(der: &[u8]) -> Option<Vec<u8>> {
    let certificate = Certificate::parse(der)?.inner;
    let algorithm = certificate.signature_algorithm;
    let hash = match algorithm.oid.to_string().as_str() {
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => &digest::SHA256,
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => &digest::SHA224,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &digest::SHA512,
        "1.2.840.113549.1.1.10" => pss_hash(algorithm.parameters.as_ref().map_or(&[][..], |any| any.value())),
        _ => return None,
    };
    Some(digest::digest(hash, der).as_ref().to_vec())
}

/// The hash of an RSASSA-PSS signature: field 0 of its parameters, SHA-1 (thus SHA-256 here) if it is left out.
fn pss_hash(parameters: &[u8]) -> &'static digest::Algorithm {
    // DER of the common beginning of the identifiers of SHA-256 (1), SHA-384 (2) and SHA-512 (3).
    const SHA2: [u8; 8] = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
    let which = parameters.first().filter(|tag| **tag == 0xA0).and_then(|_| {
        let at = parameters.windows(SHA2.len()).position(|window| window == SHA2)?;
        parameters.get(at + SHA2.len()).copied()
    });
    match which {
        Some(2) => &digest::SHA384,
        Some(3) => &digest::SHA512,
        _ => &digest::SHA256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        assert!(matches_pattern("DB1.example.org", "db1.EXAMPLE.org"));
        assert!(matches_pattern("*.example.org", "db1.example.org"));
        assert!(!matches_pattern("*.example.org", "a.db1.example.org"));
        assert!(!matches_pattern("*.example.org", "example.org"));
        assert!(!matches_pattern("*.org", "example.org"));
        assert!(!matches_pattern("d*.example.org", "db1.example.org"));
    }
}
