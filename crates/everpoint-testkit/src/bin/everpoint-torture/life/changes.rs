//! The steps that change what production is: failover, standbys, adoption, upgrade, tablespaces.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use everpoint_testkit::{Account, PgInstall, Port, now, parse_lsn, print_lsn};

use super::checks::text;
use super::chronicle::{Change, Deed};
use super::server::{Server, quietly};
use super::world::{CLUSTER, Life};

impl Life {
    /// A standby of production by pg_basebackup, which must start, stream and follow.
    fn standby(&mut self) -> Result<Server> {
        let data = self.place("prod");
        let port = Port::free()?;
        let production = self.production.port.number();
        let mut command =
            Account::of_servers()?.command(self.production.install.client_tool("pg_basebackup")?);
        command.args(["-U", "postgres", "-c", "fast", "-X", "stream", "-R", "-h", "127.0.0.1"]);
        command.arg("-p").arg(production.to_string()).arg("-D").arg(&data);
        for (_, _, location) in self.production.tablespaces()? {
            if location.is_absolute() {
                let new = self.place("ts/moved");
                command.arg("-T").arg(format!("{}={}", location.display(), new.display()));
            }
        }
        quietly(&mut command)?;
        // A newer pg_basebackup writes words into the connection string that an older server does not know.
        let auto = data.join("postgresql.auto.conf");
        let old = fs::read_to_string(&auto).context("cannot read postgresql.auto.conf")?;
        fs::write(
            &auto,
            format!("{old}primary_conninfo = 'user=postgres host=127.0.0.1 port={production}'\n"),
        )
        .context("cannot write postgresql.auto.conf")?;
        let standby = Server { install: self.production.install.clone(), data, port };
        standby.start(&[("port", standby.port.number().to_string())]).context("a standby of production")?;
        self.wait_for_standby(&standby)?;
        Ok(standby)
    }

    /// Waits until a standby streams and has all that production has.
    fn wait_for_standby(&self, standby: &Server) -> Result<()> {
        self.production.psql("INSERT INTO marker VALUES (2)")?;
        let end = print_lsn(self.production.flushed()?);
        let streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name = 'walreceiver'";
        standby
            .wait("the standby streams", || Ok(self.production.number(streams)? > 0))
            .and_then(|()| {
                let caught_up = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
                standby.wait("the standby has caught up", || Ok(standby.psql(&caught_up)? == "t"))
            })
            .with_context(|| format!("the standby says:\n{}", standby.said()))
    }

    pub(super) fn new_standby(&mut self) -> Result<()> {
        let writers = self.writers()?;
        let standby = self.standby();
        self.note(writers)?;
        let standby = standby?;
        let moved: Vec<PathBuf> = standby.tablespaces()?.into_iter().map(|(_, _, place)| place).collect();
        standby.stop()?;
        let data = standby.data.clone();
        drop(standby);
        self.remove(&data)?;
        moved.iter().filter(|place| place.is_absolute()).try_for_each(|place| self.remove(place))
    }

    /// A standby takes over production's address; the old server's machine is gone.
    pub(super) fn failover(&mut self, crash: bool) -> Result<()> {
        let standby = self.standby()?;
        if crash {
            self.crash_under_writers()?;
        } else {
            self.write(300)?;
            self.wait_for_standby(&standby)?;
            self.read_log()?;
            self.production.stop()?;
        }
        ensure!(standby.psql("SELECT pg_promote(true, 60)")? == "t", "the standby was not promoted");
        standby.wait_writable()?;
        standby.stop()?;
        let old = self.take_over(standby.data.clone());
        drop(standby);
        self.production.start(&[])?;
        let timeline = self.production.timeline()?;
        let (_, fork) = self.production.fork(timeline)?;
        let wanted = self.chronicle.before(self.era, fork)?;
        ensure!(crash || wanted == self.here()?, "the standby had caught up, and lacks something");
        self.new_era(wanted)?;
        self.lose(&old)?;
        self.point_here()?;
        if self.random.chance(50) {
            self.restart_capture()?;
        }
        self.write(300)
    }

    /// Production is another directory from now on, at the same address.
    fn take_over(&mut self, data: PathBuf) -> PathBuf {
        std::mem::replace(&mut self.production.data, data)
    }

    /// The machine of an old production is gone, with the places of all tablespaces that it ever had: also those to which none
    /// of its links led any more, as a restore to before they were made leaves them.
    fn lose(&self, old: &Path) -> Result<()> {
        let links = fs::read_dir(self.production.data.join("pg_tblspc")).context("cannot list pg_tblspc")?;
        let kept: Vec<PathBuf> = links.flatten().filter_map(|link| fs::read_link(link.path()).ok()).collect();
        for entry in fs::read_dir(self.home().join("ts")).context("cannot list places")? {
            let place = entry?.path();
            if !kept.contains(&place) {
                self.remove(&place)?;
            }
        }
        self.remove(old)
    }

    /// Production is lost, and a copy of it takes its place.
    pub(super) fn adopt(&mut self) -> Result<()> {
        self.settle()?;
        self.read_log()?;
        let here = self.here()?;
        let place = self.place("prod");
        let copy = self.restore_copy(place.clone(), "latest", &[])?;
        self.verify(&copy, here).context("the copy that is to become production")?;
        copy.stop()?;
        drop(copy);
        self.production.stop()?;
        let kept = ["postgresql.conf", "pg_hba.conf"];
        for name in kept {
            fs::copy(self.production.data.join(name), place.join(name))
                .context("cannot copy configuration")?;
        }
        fs::write(place.join("postgresql.auto.conf"), "").context("cannot empty postgresql.auto.conf")?;
        let old = self.take_over(place.clone());
        // The tablespaces that the log made are directories inside of a copy.
        let line = "allow_in_place_tablespaces = on\n";
        if !self.conf.contains(line) {
            self.conf.push_str(line);
            self.write_conf(&place)?;
        }
        self.lose(&old)?;
        self.point_here()?;
        self.production.start(&[])?;
        self.production.wait_writable()?;
        self.new_era(here)?;
        let backups = self.backups()?;
        self.run(&["adopt", CLUSTER, text(&place)?])?;
        ensure!(self.backups()? > backups, "adopt took no backup");
        ensure!(!place.join("everpoint.copy").exists(), "the adopted directory is still marked as a copy");
        if self.random.chance(50) {
            self.restart_capture()?;
        }
        self.write(300)
    }

    /// pg_upgrade to another version, in a new directory at the same address.
    pub(super) fn upgrade(&mut self, version: u32) -> Result<()> {
        self.drop_tables_inside()?;
        self.read_log()?;
        let here = self.here()?;
        self.production.stop()?;
        let (old, from) = (self.production.data.clone(), self.production.install.clone());
        let (to, data) = (PgInstall::find(version)?, self.place("prod"));
        initdb(&to, &data)?;
        self.write_conf(&data)?;
        let ports = [Port::free()?, Port::free()?];
        let mut command = to.command("pg_upgrade")?;
        command
            .current_dir(self.home())
            .args(["-U", "postgres", "-b"])
            .arg(from.bin())
            .arg("-B")
            .arg(to.bin());
        command.arg("-d").arg(&old).arg("-D").arg(&data).arg("-s").arg(self.home().join("s"));
        for (option, port) in ["-p", "-P"].iter().zip(&ports) {
            command.arg(option).arg(port.number().to_string());
        }
        quietly(&mut command)?;
        self.take_over(data);
        self.production.install = to;
        self.production.start(&[])?;
        let start = self.production.psql("SELECT redo_lsn FROM pg_control_checkpoint()")?;
        let start = parse_lsn(&start).context("no position")?;
        self.generation += 1;
        let timeline = self.production.timeline()?;
        self.era = self.chronicle.begin(timeline, self.generation, Some(here), start);
        if let Some(copy) = self.copy.take() {
            let data = copy.data.clone();
            drop(copy);
            self.remove(&data)?;
        }
        self.point_here()?;
        self.run(&["adopt", CLUSTER])?;
        self.restart_capture()?;
        if self.mode.archives() {
            // Until the adoption nothing could be archived: it is tried again with the next segment, or a minute later.
            self.production.psql("SELECT pg_switch_wal()")?;
            let archives = "SELECT failed_count = 0 OR coalesce(last_archived_time > last_failed_time, false) FROM pg_stat_archiver";
            let server = &self.production;
            server.wait("what failed is archived", || Ok(server.psql(archives)? == "t"))?;
        }
        // What the manual says comes next.
        self.backup(&[])?;
        self.settle()?;
        self.accept_gaps()?;
        self.chronicle.era_mut(self.era)?.since = now();
        self.write(300)
    }

    /// pg_upgrade takes no tablespace that lies inside the data directory.
    fn drop_tables_inside(&mut self) -> Result<()> {
        for (name, _, place) in self.production.tablespaces()? {
            if !place.is_absolute() || place.starts_with(&self.production.data) {
                let number = name.trim_start_matches("ts_").parse().context("a tablespace's name")?;
                self.drop_spot(number)?;
            }
        }
        Ok(())
    }

    /// A tablespace in a directory outside, and a table in it. Sometimes its place is one that a dropped one left.
    pub(super) fn tablespace_created(&mut self) -> Result<()> {
        let place = self.reusable()?.map_or_else(
            || {
                let place = self.place("ts/place");
                self.make_place(&place).map(|()| place)
            },
            Ok,
        )?;
        let number = self.chronicle.next_spot();
        let rows = 500 + self.random.below(1500);
        self.production.psql(&format!("CREATE TABLESPACE ts_{number} LOCATION '{}'", text(&place)?))?;
        let table = format!(
            "CREATE TABLE spot_{number} (id bigint PRIMARY KEY USING INDEX TABLESPACE ts_{number}, pad text) TABLESPACE ts_{number}"
        );
        self.deed(number, Change::Create(rows), &format!("{table}; {}", fill(number, 0, rows)))?;
        sleep(Duration::from_millis(self.random.below(200)));
        self.write(200)
    }

    /// An empty directory that a dropped tablespace left.
    fn reusable(&mut self) -> Result<Option<PathBuf>> {
        if self.random.chance(50) {
            return Ok(None);
        }
        for entry in fs::read_dir(self.home().join("ts")).context("cannot list places")? {
            let path = entry?.path();
            if fs::read_dir(&path).is_ok_and(|mut inside| inside.next().is_none()) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    pub(super) fn tablespace_filled(&mut self) -> Result<()> {
        let spots = self.chronicle.holding(self.here()?).spots;
        let Some((&number, &rows)) = spots.last_key_value() else { return self.tablespace_created() };
        let more = 300 + self.random.below(1000);
        self.deed(number, Change::Fill(more), &fill(number, rows, more))?;
        self.write(200)
    }

    pub(super) fn tablespace_dropped(&mut self) -> Result<()> {
        let spots = self.chronicle.holding(self.here()?).spots;
        let Some((&number, _)) = spots.first_key_value() else { return self.tablespace_created() };
        self.drop_spot(number)?;
        self.write(200)
    }

    fn drop_spot(&mut self, number: u32) -> Result<()> {
        self.deed(number, Change::Drop, &format!("DROP TABLE spot_{number}"))?;
        self.production.psql(&format!("DROP TABLESPACE ts_{number}")).map(drop)
    }

    /// Commits something and takes note of it.
    fn deed(&mut self, number: u32, change: Change, sql: &str) -> Result<()> {
        let mut session = self.production.session()?;
        session.query("BEGIN")?;
        let xid: u64 = session.value("SELECT pg_current_xact_id()::text")?;
        session.query(sql).with_context(|| sql.to_owned())?;
        session.query("COMMIT")?;
        let xid = u32::try_from(xid & u64::from(u32::MAX))?;
        self.chronicle.add_deed(self.era, xid, Deed::Spot(number, change))?;
        self.read_log()
    }
}

fn fill(number: u32, from: u64, rows: u64) -> String {
    let to = (from + rows).saturating_sub(1);
    format!(
        "INSERT INTO spot_{number} SELECT g, repeat(md5(g::text), 8) FROM generate_series({from}, {to}) g"
    )
}

/// Makes an empty cluster.
pub(super) fn initdb(install: &PgInstall, data: &Path) -> Result<()> {
    let mut command = install.command("initdb")?;
    command.arg("-D").arg(data).args(["-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"]);
    quietly(command.args(["--wal-segsize=1", "--data-checksums"]))
}
