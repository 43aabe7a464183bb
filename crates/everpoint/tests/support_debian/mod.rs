//! A cluster laid out as Debian's packages do it, with everything below one scratch directory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use everpoint_testkit::{Account, Address, Everpoint, PgInstall, Port, Session};

/// Name of the protected cluster.
pub(crate) const CLUSTER: &str = "order-db";

/// Debian's programs of PostgreSQL 15, and its tool that starts clusters.
const DEBIAN_BIN: &str = "/usr/lib/postgresql/15/bin";
const DEBIAN_TOOL: &str = "/usr/bin/pg_ctlcluster";

/// What stands in for `pg_ctlcluster VERSION NAME start|stop` where it is not installed.
const STAND_IN: &str = r#"#!/bin/sh
config=$PG_CLUSTER_CONF_ROOT/$1/$2/postgresql.conf
data=$(sed -n "s/^data_directory = '\(.*\)'.*/\1/p" "$config")
exec pg_ctl -D "$data" -w -l "$data.log" -o "-c config_file=$config" "$3"
"#;

/// A running server with its configuration in `etc/15/<name>`, protected, with a table `lost_table` of three rows.
pub(crate) struct Debian {
    pub(crate) everpoint: Everpoint,
    pub(crate) data: PathBuf,
    pub(crate) install: PgInstall,
    /// Its name for Debian's tools, which write a log that is named after it to `/var/log`.
    pub(crate) name: String,
    bin: PathBuf,
    port: Port,
}

impl Debian {
    pub(crate) fn new() -> Self {
        let everpoint = Everpoint::new(Path::new(env!("CARGO_BIN_EXE_everpoint")), &[]).unwrap();
        let install = PgInstall::find(15).unwrap();
        let is_debian = Path::new(DEBIAN_TOOL).exists() && Path::new(DEBIAN_BIN).join("initdb").exists();
        let bin = if is_debian { PathBuf::from(DEBIAN_BIN) } else { install.bin() };
        let home = everpoint.home().path().to_owned();
        if !is_debian {
            let tool = home.join("pg_ctlcluster");
            fs::write(&tool, STAND_IN).unwrap();
            fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let data = home.join("lib/15/main");
        let name = home.file_name().unwrap().to_str().unwrap().replace('-', "_");
        let debian = Self { everpoint, data, install, name, bin, port: Port::free().unwrap() };
        debian.make();
        debian
    }

    fn make(&self) {
        let (home, data) = (self.home(""), self.data.display());
        self.shell(&format!(
            "mkdir -p lib/15 {etc}/conf.d etc/ssl\n\
             initdb -D {data} -U postgres -A trust -N -k -E UTF8 --locale=C --wal-segsize=1\n\
             mv {data}/postgresql.conf {data}/pg_hba.conf {data}/pg_ident.conf {etc}/\n\
             echo auto > {etc}/start.conf\n\
             echo app > {etc}/people\n\
             echo secret > etc/ssl/server.key\n\
             chmod 0640 etc/ssl/server.key",
            etc = self.etc("").display()
        ));
        let etc = self.etc("");
        let shown = etc.display();
        let mut text = fs::read(etc.join("postgresql.conf")).unwrap();
        // A remark in Latin-1, as old files have them.
        text.extend_from_slice(b"\n# Gr\xfc\xdfe\n");
        let more = format!(
            "data_directory = '{data}'\nhba_file = '{shown}/pg_hba.conf'\nident_file = '{shown}/pg_ident.conf'\n\
             external_pid_file = '{home}/main.pid'\nunix_socket_directories = '{home}'\nport = {}\n\
             listen_addresses = '127.0.0.1'\nfsync = off\nwal_level = replica\ninclude_dir = 'conf.d'\n\
             include_if_exists = '../shared.conf'\n\
             log_timezone = 'UTC'\nshared_buffers = '16MB'\n",
            self.port.number(),
            home = home.display(),
        );
        text.extend_from_slice(more.as_bytes());
        fs::write(etc.join("postgresql.conf"), text).unwrap();
        fs::write(self.home("etc/15/shared.conf"), "maintenance_work_mem = '8MB'\n").unwrap();
        fs::write(etc.join("conf.d/local.conf"), "work_mem = '7MB'\nautovacuum = off\n").unwrap();
        let rules = fs::read_to_string(etc.join("pg_hba.conf")).unwrap();
        fs::write(etc.join("pg_hba.conf"), format!("local none @people reject\n{rules}")).unwrap();
        symlink(self.home("etc/ssl/server.key"), self.data.join("server.key")).unwrap();
        Account::of_servers().unwrap().own(self.everpoint.home().path()).unwrap();
        self.ctl("start");
        let table = format!(
            "\n[cluster.{CLUSTER}]\npostgres = \"postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable\"\n\
             data_dir = \"{data}\"\npg_bin = \"{}\"\n",
            self.port.number(),
            self.bin.display()
        );
        self.everpoint.configure(&table).unwrap();
        self.everpoint.run(&["init"]).unwrap();
        self.sql("CREATE TABLE lost_table AS SELECT 'row ' || g AS word FROM generate_series(1, 3) g");
    }

    /// A path below the scratch directory.
    pub(crate) fn home(&self, name: &str) -> PathBuf {
        let home = self.everpoint.home().path();
        if name.is_empty() { home.to_owned() } else { home.join(name) }
    }

    /// A file of its configuration; empty: their directory.
    pub(crate) fn etc(&self, name: &str) -> PathBuf {
        let etc = self.home("etc/15").join(&self.name);
        if name.is_empty() { etc } else { etc.join(name) }
    }

    /// Starts or stops it.
    pub(crate) fn ctl(&self, verb: &str) {
        self.shell(&format!("pg_ctlcluster 15 {} {verb}", self.name));
    }

    /// Types commands; returns what they printed.
    pub(crate) fn shell(&self, commands: &str) -> String {
        let commands = format!("export PG_CLUSTER_CONF_ROOT={}\n{commands}", self.home("etc").display());
        let ran = self.everpoint.shell(&commands, &self.bin).unwrap();
        let ran = ran.wait(Duration::from_secs(120)).unwrap();
        assert!(ran.status.success(), "{commands}\n{}\n{}", ran.out, ran.err);
        ran.out
    }

    /// Runs SQL on the server; rows as `psql -At` prints them.
    pub(crate) fn sql(&self, sql: &str) -> String {
        let mut session = Session::connect(&Address::Loopback(self.port.number()), "postgres").unwrap();
        session.query(sql).unwrap().to_string()
    }

    /// Changes the text of Everpoint's configuration.
    pub(crate) fn configure(&self, change: impl FnOnce(String) -> String) {
        let path = self.home("everpoint.toml");
        fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
    }

    /// All files of the cluster's configuration and what they hold.
    pub(crate) fn configuration(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let etc = self.etc("");
        for directory in [etc.clone(), etc.join("conf.d")] {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                if entry.file_type().unwrap().is_file() {
                    files.insert(entry.path(), fs::read(entry.path()).unwrap());
                }
            }
        }
        files
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        // Whatever runs on one of its directories ends with the test.
        for place in ["lib/15/main", "new", "copy"] {
            let _ = everpoint_testkit::RunningCopy::on(&self.home(place));
        }
        let _ = fs::remove_file(format!("/var/log/postgresql/postgresql-15-{}.log", self.name));
    }
}
