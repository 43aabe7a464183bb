//! From parameters by name to a [`Config`]: explicit ones first, then the service, the environment, the defaults.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::config::{ChannelBindingMode, Config, Keepalives, RootCertificates, SslMode, TargetSession};
use super::conninfo::Parameters;
use super::hosts::hosts;
use super::secret::Secret;
use super::{Environment, PgError, service};

/// Parameters that we use, each with the variable that may hold it.
const KNOWN: [(&str, &str); 32] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("service", "PGSERVICE"),
    ("servicefile", "PGSERVICEFILE"),
    ("options", "PGOPTIONS"),
    ("application_name", "PGAPPNAME"),
    ("fallback_application_name", ""),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("sslmode", "PGSSLMODE"),
    ("sslnegotiation", "PGSSLNEGOTIATION"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslsni", "PGSSLSNI"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("keepalives", ""),
    ("keepalives_idle", ""),
    ("keepalives_interval", ""),
    ("keepalives_count", ""),
    ("tcp_user_timeout", ""),
    ("client_encoding", "PGCLIENTENCODING"),
    ("gssencmode", "PGGSSENCMODE"),
    ("krbsrvname", "PGKRBSRVNAME"),
    ("gsslib", "PGGSSLIB"),
    ("sslcompression", "PGSSLCOMPRESSION"),
    ("replication", ""),
];

/// Parameters of libpq that ask for a protection which we don't have: refused rather than silently dropped.
const REFUSED: [&str; 8] = [
    "sslcrl",
    "sslcrldir",
    "sslpassword",
    "requirepeer",
    "require_auth",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "sslcertmode",
];

/// Completes and checks.
pub(super) fn resolve(given: Parameters, environment: &Environment) -> Result<Config, PgError> {
    for name in given.keys() {
        check_name(name)?;
    }
    let lookup = Lookup::new(given, environment)?;
    let user = lookup
        .get("user")
        .or_else(|| environment.user().map(str::to_owned))
        .ok_or_else(|| PgError::parameter("no user name is given"))?;
    let (ssl_mode, root_certificates) = trust(&lookup, environment)?;
    Ok(Config {
        hosts: hosts(&lookup)?,
        database: lookup.get("dbname").unwrap_or_else(|| user.clone()),
        password: lookup.get("password").map(Secret::new),
        password_source: None,
        passfile: lookup.get("passfile").map(PathBuf::from).or_else(|| environment.in_home(".pgpass")),
        ssl_direct: lookup.choice("sslnegotiation", false, &[("postgres", false), ("direct", true)])?,
        client_certificate: client_certificate(&lookup, environment),
        channel_binding: lookup.choice(
            "channel_binding",
            ChannelBindingMode::Prefer,
            &[
                ("disable", ChannelBindingMode::Disable),
                ("prefer", ChannelBindingMode::Prefer),
                ("require", ChannelBindingMode::Require),
            ],
        )?,
        connect_timeout: lookup.seconds("connect_timeout")?.filter(|timeout| !timeout.is_zero()),
        application_name: lookup
            .get("application_name")
            .or_else(|| lookup.get("fallback_application_name"))
            .unwrap_or_else(|| "everpoint".to_owned()),
        options: lookup.get("options"),
        target_session: lookup.choice(
            "target_session_attrs",
            TargetSession::Any,
            &[
                ("any", TargetSession::Any),
                ("read-write", TargetSession::ReadWrite),
                ("read-only", TargetSession::ReadOnly),
                ("primary", TargetSession::Primary),
                ("standby", TargetSession::Standby),
                ("prefer-standby", TargetSession::PreferStandby),
            ],
        )?,
        keepalives: keepalives(&lookup)?,
        user,
        ssl_mode,
        root_certificates,
    })
}

fn check_name(name: &str) -> Result<(), PgError> {
    if KNOWN.iter().any(|(known, _)| *known == name) {
        return Ok(());
    }
    if REFUSED.contains(&name) {
        return Err(PgError::Parameter {
            message: format!("connection parameter `{name}` is not supported"),
            hint: Some("see the list in the documentation of the configuration".to_owned()),
        });
    }
    // Its name is not repeated: it may be a piece of a password that is not quoted.
    let known: Vec<&str> = KNOWN.iter().map(|(known, _)| *known).collect();
    Err(PgError::Parameter {
        message: "a connection parameter is not known".to_owned(),
        hint: Some(format!(
            "quote values with spaces: password='…'; write & in a URL as %26; known are {}",
            known.join(", ")
        )),
    })
}

/// The places where a parameter may come from.
pub(super) struct Lookup<'a> {
    given: Parameters,
    service: Parameters,
    environment: &'a Environment,
}

impl<'a> Lookup<'a> {
    fn new(given: Parameters, environment: &'a Environment) -> Result<Self, PgError> {
        let mut lookup = Self { given, service: Parameters::new(), environment };
        if let Some(name) = lookup.get("service") {
            let service = service::load(&name, lookup.get("servicefile").as_deref(), environment)?;
            for name in service.keys() {
                check_name(name)?;
            }
            lookup.service = service;
        }
        Ok(lookup)
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        let variable = KNOWN.iter().find(|(known, _)| *known == name).map_or("", |(_, variable)| variable);
        self.given
            .get(name)
            .or_else(|| self.service.get(name))
            .map(String::as_str)
            .or_else(|| self.environment.get(variable))
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
    }

    fn choice<T: Copy>(&self, name: &str, default: T, choices: &[(&str, T)]) -> Result<T, PgError> {
        let Some(value) = self.get(name) else {
            return Ok(default);
        };
        choices.iter().find(|(text, _)| *text == value).map(|(_, choice)| *choice).ok_or_else(|| {
            let all: Vec<_> = choices.iter().map(|(text, _)| *text).collect();
            PgError::parameter(format!("`{name}` is none of {}", all.join(", ")))
        })
    }

    fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, PgError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let parsed = value.trim().parse();
        parsed.map(Some).map_err(|_| PgError::parameter(format!("`{name}` is no fitting number")))
    }

    fn seconds(&self, name: &str) -> Result<Option<Duration>, PgError> {
        // Negative and zero mean "no limit" to libpq.
        Ok(self.number::<i64>(name)?.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
    }
}

fn trust(lookup: &Lookup<'_>, environment: &Environment) -> Result<(SslMode, RootCertificates), PgError> {
    let system = lookup.get("sslrootcert").as_deref() == Some("system");
    let default = if system { SslMode::VerifyFull } else { SslMode::Prefer };
    let mode = lookup.choice(
        "sslmode",
        default,
        &[
            ("disable", SslMode::Disable),
            ("allow", SslMode::Allow),
            ("prefer", SslMode::Prefer),
            ("require", SslMode::Require),
            ("verify-ca", SslMode::VerifyCa),
            ("verify-full", SslMode::VerifyFull),
        ],
    )?;
    if system {
        if mode != SslMode::VerifyFull {
            return Err(PgError::Parameter {
                message: "`sslrootcert=system` makes sense only with `sslmode=verify-full`".to_owned(),
                hint: Some("anybody can get a certificate for some host from a public authority".to_owned()),
            });
        }
        return Ok((mode, RootCertificates::System));
    }
    let given = lookup.get("sslrootcert").map(PathBuf::from);
    let file = given.or_else(|| environment.in_home(".postgresql/root.crt"));
    match file {
        Some(file) if file.exists() => Ok((mode, RootCertificates::File(file))),
        file if mode >= SslMode::VerifyCa => Err(PgError::Parameter {
            message: format!(
                "`sslmode` asks to verify the server's certificate, but the root certificate file {} does not exist",
                file.map_or_else(|| "~/.postgresql/root.crt".to_owned(), |file| file.display().to_string())
            ),
            hint: Some("name the file with `sslrootcert=...`, or use `sslrootcert=system`".to_owned()),
        }),
        _ => Ok((mode, RootCertificates::None)),
    }
}

fn client_certificate(lookup: &Lookup<'_>, environment: &Environment) -> Option<(PathBuf, PathBuf)> {
    let given = lookup.get("sslcert").map(PathBuf::from);
    // A file that was named must exist (connecting says so if not); the default one may be missing.
    let certificate =
        given.or_else(|| environment.in_home(".postgresql/postgresql.crt").filter(|path| path.exists()))?;
    let key = lookup
        .get("sslkey")
        .map(PathBuf::from)
        .or_else(|| environment.in_home(".postgresql/postgresql.key"))
        .unwrap_or_else(|| certificate.with_extension("key"));
    Some((certificate, key))
}

fn keepalives(lookup: &Lookup<'_>) -> Result<Keepalives, PgError> {
    let default = Keepalives::default();
    let positive =
        |value: Option<Duration>, default| value.filter(|value| !value.is_zero()).unwrap_or(default);
    Ok(Keepalives {
        enabled: lookup.number::<u8>("keepalives")?.unwrap_or(1) != 0,
        idle: positive(lookup.seconds("keepalives_idle")?, default.idle),
        interval: positive(lookup.seconds("keepalives_interval")?, default.interval),
        count: lookup.number::<u32>("keepalives_count")?.filter(|count| *count > 0).unwrap_or(default.count),
        user_timeout: Duration::from_millis(lookup.number("tcp_user_timeout")?.unwrap_or(0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(variables: &[(&str, &str)]) -> Environment {
        Environment::with(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn explicit_parameters_beat_the_service_which_beats_the_environment() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("services");
        std::fs::write(&file, "[shop]\nhost=from-service\nport=1000\nuser=from-service\n").unwrap();
        let environment = surroundings(&[
            ("PGSERVICEFILE", file.to_str().unwrap()),
            ("PGUSER", "from-environment"),
            ("PGDATABASE", "from-environment"),
            ("PGPORT", "3"),
        ]);
        let config = Config::parse_in("service=shop port=2000", &environment).unwrap();
        assert_eq!(config.to_string(), "from-service@from-service:2000/from-environment");
        assert!(Config::parse_in("service=none", &environment).is_err());
    }

    #[test]
    fn several_hosts_share_one_port_or_have_one_each() {
        let environment = surroundings(&[("USER", "me")]);
        let config = Config::parse_in("host=a,b port=7", &environment).unwrap();
        assert_eq!(config.to_string(), "me@a:7,b:7/me");
        let config = Config::parse_in("postgres://a:1,b/x", &environment).unwrap();
        assert_eq!(config.to_string(), "me@a:1,b:5432/x");
        assert!(Config::parse_in("host=a,b,c port=1,2", &environment).is_err());
        assert!(Config::parse_in("host=a hostaddr=nonsense", &environment).is_err());
    }

    #[test]
    fn the_password_is_never_printed() {
        let config = Config::parse_in("postgres://u:s3cret@h/d", &surroundings(&[])).unwrap();
        assert!(!format!("{config:?} {config}").contains("s3cret"));
        assert_eq!(config.password.map(|secret| secret.reveal().to_owned()), Some("s3cret".to_owned()));
    }

    #[test]
    fn verification_without_a_root_certificate_is_refused() {
        let environment = surroundings(&[("HOME", "/nonexistent"), ("USER", "me")]);
        for text in ["host=h sslmode=verify-full", "host=h sslmode=verify-ca sslrootcert=/nonexistent/x"] {
            assert!(matches!(Config::parse_in(text, &environment), Err(PgError::Parameter { .. })), "{text}");
        }
        assert!(Config::parse_in("host=h sslmode=require sslrootcert=system", &environment).is_err());
        let config = Config::parse_in("host=h sslrootcert=system", &environment).unwrap();
        assert_eq!(config.ssl_mode, SslMode::VerifyFull);
    }

    #[test]
    fn unknown_and_unsupported_names_are_refused() {
        let environment = surroundings(&[("USER", "me")]);
        assert!(Config::parse_in("hots=h", &environment).unwrap_err().to_string().contains("not known"));
        for text in [
            "host=h password=correct s3cret=x",
            "postgres://h:s3cret/d",
            "host=h hostaddr=s3cret",
            "host=h sslmode=s3cret",
            "host=h connect_timeout=s3cret",
            "postgres://a b?host=s3cret d",
        ] {
            let error = Config::parse_in(text, &environment).unwrap_err();
            assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
        }
        assert!(
            Config::parse_in("sslcrl=f", &environment).unwrap_err().to_string().contains("not supported")
        );
        assert!(Config::parse_in("sslmode=on", &environment).unwrap_err().to_string().contains("verify-ca"));
    }
}
