//! Connections as libpq makes them: TLS, authentication, parameters from everywhere, several hosts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "client_rig/certificates.rs"]
mod certificates;

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use certificates::{Authority, Key};
use everpoint_pg::client::{Config, Connection, Environment, PgError, Purpose, connect};
use everpoint_testkit::{Account, PgCluster};

/// A server with TLS whose certificate is for `db.test`, and the authority that signed it.
struct Secure {
    cluster: PgCluster,
    authority: Authority,
}

fn install(cluster: &PgCluster, from: &Path, name: &str) -> String {
    let to = cluster.data_dir().join(name);
    fs::copy(from, &to).unwrap();
    fs::set_permissions(&to, Permissions::from_mode(0o600)).unwrap();
    Account::of_servers().unwrap().own(&to).unwrap();
    name.to_owned()
}

fn secure(major: u32, key: Key, digest: &str, names: &str) -> Secure {
    let hba = [
        "hostssl all cert_user 127.0.0.1/32 cert",
        "hostssl all,replication scram_user 127.0.0.1/32 scram-sha-256",
        "hostnossl all scram_user 127.0.0.1/32 reject",
        "host all plain_user 127.0.0.1/32 scram-sha-256",
        "host all md5_user 127.0.0.1/32 md5",
        "host all clear_user 127.0.0.1/32 password",
    ];
    let mut cluster = PgCluster::builder().major(major).hba(&hba.join("\n")).create().unwrap();
    let authority = Authority::new(&cluster.home().path().join("ca"), key);
    let (certificate, key) = authority.sign("server", "db.test", names, digest);
    install(&cluster, &certificate, "server.crt");
    install(&cluster, &key, "server.key");
    install(&cluster, &authority.root(), "root.crt");
    let mut conf = File::options().append(true).open(cluster.data_dir().join("postgresql.conf")).unwrap();
    writeln!(conf, "ssl = on\nssl_ca_file = 'root.crt'").unwrap();
    cluster.start().unwrap();
    cluster.psql("SET password_encryption = 'md5'; CREATE ROLE md5_user LOGIN PASSWORD 'geheim'").unwrap();
    for user in ["scram_user", "plain_user", "clear_user"] {
        let sql = format!(
            "SET password_encryption = 'scram-sha-256'; CREATE ROLE {user} LOGIN REPLICATION PASSWORD 'geheim'"
        );
        cluster.psql(&sql).unwrap();
    }
    cluster.psql("CREATE ROLE cert_user LOGIN").unwrap();
    Secure { cluster, authority }
}

impl Secure {
    fn open(&self, parameters: &str) -> Result<Connection, PgError> {
        let text = format!(
            "hostaddr=127.0.0.1 port={} dbname=postgres password=geheim {parameters}",
            self.cluster.port()
        );
        let nowhere = Environment::with([("HOME".to_owned(), "/nonexistent".to_owned())]);
        connect(&Config::parse_in(&text, &nowhere)?, Purpose::Sql)
    }

    fn root(&self) -> String {
        format!("sslrootcert={}", self.authority.root().display())
    }
}

/// Whether the server sees TLS on this session.
fn is_encrypted(connection: &mut Connection) -> bool {
    let rows = connection.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").unwrap();
    assert_eq!(rows.single() == Some("t"), connection.is_encrypted());
    connection.is_encrypted()
}

#[test]
fn sslmode_decides_who_is_trusted() {
    let server = secure(15, Key::Rsa, "-sha256", "DNS:db.test,DNS:*.wild.test,IP:127.0.0.1");
    let other = Authority::new(&server.cluster.home().path().join("other"), Key::Ec);
    let (own, wrong) = (server.root(), format!("sslrootcert={}", other.root().display()));
    let good = [
        format!("host=db.test sslmode=verify-full {own}"),
        format!("host=127.0.0.1 sslmode=verify-full {own}"),
        format!("host=a.wild.test sslmode=verify-full {own}"),
        format!("host=other.test sslmode=verify-ca {own}"),
        format!("host=other.test sslmode=require {own}"),
        "host=other.test sslmode=require".to_owned(),
        "host=other.test sslmode=prefer".to_owned(),
        "host=other.test".to_owned(),
    ];
    for parameters in good {
        let mut connection = server.open(&format!("user=plain_user {parameters}")).unwrap();
        assert!(is_encrypted(&mut connection), "{parameters}");
    }
    for parameters in ["host=x sslmode=disable", "host=x sslmode=allow"] {
        let mut connection = server.open(&format!("user=plain_user {parameters}")).unwrap();
        assert!(!is_encrypted(&mut connection), "{parameters}");
    }
    let bad = [
        format!("host=other.test sslmode=verify-full {own}"),
        format!("host=a.b.wild.test sslmode=verify-full {own}"),
        format!("host=127.0.0.2 sslmode=verify-full {own}"),
        format!("host=db.test sslmode=verify-full {wrong}"),
        format!("host=db.test sslmode=verify-ca {wrong}"),
        format!("host=db.test sslmode=require {wrong}"),
    ];
    for parameters in bad {
        let error = server.open(&format!("user=plain_user {parameters}")).unwrap_err();
        assert!(matches!(error, PgError::Tls { .. }), "{parameters}: {error:?}");
        assert!(!error.is_retryable());
    }
}

#[test]
fn a_server_without_tls_is_refused_where_tls_is_wanted() {
    let cluster = PgCluster::builder().start().unwrap();
    let url = |mode: &str| format!("{}?sslmode={mode}", cluster.url());
    for mode in ["disable", "allow", "prefer"] {
        assert!(!connect(&Config::parse(&url(mode)).unwrap(), Purpose::Sql).unwrap().is_encrypted());
    }
    let error = connect(&Config::parse(&url("require")).unwrap(), Purpose::Sql).unwrap_err();
    assert!(matches!(error, PgError::Tls { .. }), "{error:?}");
}

#[test]
fn the_other_way_is_tried_where_pg_hba_wants_it() {
    let server = secure(16, Key::Ec, "-sha256", "DNS:db.test");
    // scram_user may come with TLS only.
    let mut connection = server.open("user=scram_user host=db.test sslmode=allow").unwrap();
    assert!(is_encrypted(&mut connection));
    let error = server.open("user=scram_user host=db.test sslmode=disable").unwrap_err();
    assert_eq!(error.sqlstate(), Some("28000"));
    assert_eq!(error.at("connect to", "x").code, "pg.authentication");
}

#[test]
fn the_channel_is_bound_whatever_hash_signed_the_certificate() {
    for (major, key, digest) in [
        (13, Key::Rsa, "-sha1"),
        (14, Key::Rsa, "-sha512"),
        (15, Key::Ec, "-sha384"),
        (17, Key::RsaPss, "-sha256"),
        (18, Key::RsaPss, "-sha384"),
    ] {
        let server = secure(major, key, digest, "DNS:db.test");
        for purpose in ["require", "prefer", "disable"] {
            let parameters =
                format!("user=scram_user host=db.test sslmode=require channel_binding={purpose}");
            server.open(&parameters).unwrap_or_else(|error| panic!("{major} {digest} {purpose}: {error}"));
        }
        let error =
            server.open("user=plain_user host=db.test sslmode=disable channel_binding=require").unwrap_err();
        assert!(matches!(error, PgError::Authentication { .. }), "{error:?}");
        // Trust proves nothing about the server: with binding required, it is refused.
        let error =
            server.open("user=postgres host=db.test sslmode=require channel_binding=require").unwrap_err();
        assert!(matches!(error, PgError::Authentication { .. }), "{error:?}");
        let error =
            server.open("user=clear_user host=db.test sslmode=require channel_binding=require").unwrap_err();
        assert!(matches!(error, PgError::Authentication { .. }), "{error:?}");
    }
}

#[test]
fn a_certificate_without_a_hash_is_used_without_binding() {
    let server = secure(15, Key::Ed25519, "", "DNS:db.test");
    let parameters = format!("user=scram_user host=db.test sslmode=verify-full {}", server.root());
    assert!(server.open(&parameters).unwrap().is_encrypted());
    assert!(server.open(&format!("{parameters} channel_binding=require")).is_err());
}

#[test]
fn old_certificates_with_a_common_name_only_encrypt_and_say_why_they_can_not_be_verified() {
    let server = secure(14, Key::Rsa, "-sha256", "");
    let mut connection =
        server.open("user=scram_user host=db.test sslmode=require channel_binding=require").unwrap();
    assert!(is_encrypted(&mut connection));
    let error = server.open(&format!("user=scram_user host=db.test sslmode=verify-full {}", server.root()));
    let PgError::Tls { hint, .. } = error.unwrap_err() else { panic!("no TLS error") };
    assert!(hint.unwrap().contains("version 1"));
}

#[test]
fn passwords_go_by_every_method_and_wrong_ones_are_refused() {
    let server = secure(18, Key::Ec, "-sha256", "DNS:db.test");
    for user in ["scram_user", "plain_user", "md5_user", "clear_user"] {
        let parameters = format!("user={user} host=db.test sslmode=prefer");
        server.open(&parameters).unwrap_or_else(|error| panic!("{user}: {error}"));
        let error = server.open(&format!("{parameters} password=wrong")).unwrap_err();
        assert_eq!(error.sqlstate(), Some("28P01"), "{user}");
        assert!(!error.is_retryable());
    }
}

#[test]
fn a_client_certificate_is_shown_and_its_key_kept_private() {
    let server = secure(15, Key::Rsa, "-sha256", "DNS:db.test");
    let (certificate, key) = server.authority.sign("client", "cert_user", "DNS:client", "-sha256");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let base = "user=cert_user host=db.test sslmode=require";
    let with = format!("{base} sslcert={} sslkey={}", certificate.display(), key.display());
    assert!(server.open(&with).unwrap().is_encrypted());
    assert!(server.open(base).is_err());
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let error = server.open(&with).unwrap_err();
    assert!(error.to_string().contains("can be read by others"), "{error}");
}

#[test]
fn direct_tls_needs_no_asking() {
    let server = secure(17, Key::Rsa, "-sha256", "DNS:db.test");
    let parameters =
        format!("user=scram_user host=db.test sslmode=verify-full {} sslnegotiation=direct", server.root());
    assert!(server.open(&parameters).unwrap().is_encrypted());
}

#[test]
fn parameters_come_from_password_and_service_files() {
    let server = secure(15, Key::Rsa, "-sha256", "DNS:db.test");
    let port = server.cluster.port();
    let home = tempfile::tempdir().unwrap();
    let pass = home.path().join(".pgpass");
    fs::write(
        &pass,
        format!("db.test:{port}:replication:scram_user:geheim\n*:*:postgres:plain_user:geheim\n"),
    )
    .unwrap();
    fs::set_permissions(&pass, Permissions::from_mode(0o600)).unwrap();
    let service = home.path().join(".pg_service.conf");
    let common = format!("host=db.test\nhostaddr=127.0.0.1\nport={port}\ndbname=postgres\nsslmode=require");
    fs::write(&service, format!("[a]\n{common}\nuser=scram_user\n[b]\n{common}\nuser=plain_user\n")).unwrap();
    let environment = Environment::with([
        ("HOME".to_owned(), home.path().to_str().unwrap().to_owned()),
        ("PGSERVICE".to_owned(), "b".to_owned()),
    ]);
    let open = |text: &str, purpose| connect(&Config::parse_in(text, &environment).unwrap(), purpose);
    open("", Purpose::Sql).unwrap();
    open("service=a", Purpose::Replication).unwrap();
    let error = open("service=a", Purpose::Sql).unwrap_err();
    assert!(error.to_string().contains("none is given"), "{error}");
    fs::set_permissions(&pass, Permissions::from_mode(0o644)).unwrap();
    assert!(open("", Purpose::Sql).is_err(), "a password file that others may read");
}

#[test]
fn hosts_are_tried_in_turn_until_one_is_of_the_wanted_kind() {
    let primary = PgCluster::builder().start().unwrap();
    let standby = primary.standby().unwrap();
    for (wanted, purpose, expected) in [
        ("any", Purpose::Sql, standby.port()),
        ("primary", Purpose::Sql, primary.port()),
        ("read-write", Purpose::Replication, primary.port()),
        ("standby", Purpose::Replication, standby.port()),
        ("prefer-standby", Purpose::Sql, standby.port()),
    ] {
        let text = format!(
            "postgres://postgres@127.0.0.1:1,127.0.0.1:{},127.0.0.1:{}/postgres?target_session_attrs={wanted}",
            standby.port(),
            primary.port()
        );
        let connection = connect(&Config::parse(&text).unwrap(), purpose).unwrap();
        assert_eq!(connection.host().port, expected, "{wanted}");
    }
    let only = format!("{}?target_session_attrs=standby", primary.url());
    assert!(connect(&Config::parse(&only).unwrap(), Purpose::Sql).unwrap_err().is_retryable());
}

#[test]
fn sockets_in_directories_work_and_commands_are_cancelled() {
    let cluster = PgCluster::builder().start().unwrap();
    let text = format!(
        "host={} port={} user=postgres dbname=postgres",
        cluster.socket_dir().display(),
        cluster.port()
    );
    let mut connection = connect(&Config::parse(&text).unwrap(), Purpose::Sql).unwrap();
    assert_eq!(
        connection.query("SELECT 1 + 1, NULL, ''").unwrap().0,
        [[Some("2".into()), None, Some(String::new())]]
    );
    assert_eq!(connection.query("SELECT 1/0").unwrap_err().sqlstate(), Some("22012"));
    let canceller = connection.canceller().unwrap();
    let cancelling = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        canceller.cancel().unwrap();
    });
    assert_eq!(connection.query("SELECT pg_sleep(60)").unwrap_err().sqlstate(), Some("57014"));
    cancelling.join().unwrap();
    assert_eq!(connection.query("SELECT 'on'").unwrap().single(), Some("on"));
}

#[test]
fn a_server_that_is_not_there_is_a_retryable_error_with_its_cause() {
    let config = Config::parse("postgres://postgres@127.0.0.1:1/postgres").unwrap();
    let error = connect(&config, Purpose::Sql).unwrap_err().at("connect to", config.to_string());
    assert_eq!((error.code, error.retryable), ("pg.connection", true));
    assert!(error.hint.unwrap().contains("listen_addresses") && error.cause.is_some());
}
