//! Certificates made with openssl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority in a directory, and what it signs.
pub(crate) struct Authority {
    directory: PathBuf,
}

/// What kind of key a certificate has.
#[derive(Clone, Copy)]
pub(crate) enum Key {
    Rsa,
    RsaPss,
    Ec,
    Ed25519,
}

impl Authority {
    pub(crate) fn new(directory: &Path, key: Key) -> Self {
        fs::create_dir_all(directory).unwrap();
        let authority = Self { directory: directory.to_owned() };
        authority.make_key("root", key);
        authority.openssl(&[
            "req",
            "-x509",
            "-new",
            "-key",
            "root.key",
            "-out",
            "root.crt",
            "-days",
            "30",
            "-subj",
            "/CN=test root",
        ]);
        authority
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.join("root.crt")
    }

    /// A certificate and its key. `names` as in subjectAltName (`DNS:x,IP:y`); without any: version 1, only the common name.
    pub(crate) fn sign(
        &self,
        name: &str,
        common_name: &str,
        names: &str,
        digest: &str,
    ) -> (PathBuf, PathBuf) {
        self.make_key(name, Key::Ec);
        let (key, request, certificate) =
            (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        self.openssl(&[
            "req",
            "-new",
            "-key",
            &key,
            "-out",
            &request,
            "-subj",
            &format!("/CN={common_name}"),
        ]);
        let extensions = format!("{name}.ext");
        fs::write(self.directory.join(&extensions), format!("subjectAltName={names}\n")).unwrap();
        let mut arguments = vec![
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "root.crt",
            "-CAkey",
            "root.key",
            "-CAcreateserial",
            "-out",
            &certificate,
            "-days",
            "30",
        ];
        if !digest.is_empty() {
            arguments.push(digest);
        }
        if !names.is_empty() {
            arguments.extend(["-extfile", &extensions]);
        }
        self.openssl(&arguments);
        (self.directory.join(certificate), self.directory.join(key))
    }

    fn make_key(&self, name: &str, key: Key) {
        let file = format!("{name}.key");
        let kind: &[&str] = match key {
            Key::Rsa => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            Key::RsaPss => &["-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"],
            Key::Ec => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Key::Ed25519 => &["-algorithm", "ED25519"],
        };
        self.openssl(&[&["genpkey", "-out", &file], kind].concat());
    }

    fn openssl(&self, arguments: &[&str]) {
        let done = Command::new("openssl").current_dir(&self.directory).args(arguments).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}
