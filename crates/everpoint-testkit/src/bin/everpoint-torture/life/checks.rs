//! What must be true after every step. Nothing here believes what Everpoint says of itself, but its list of windows.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use everpoint_testkit::{Port, field};
use serde_json::Value;

use super::Sabotage;
use super::chronicle::Point;
use super::server::{Server, quietly};
use super::snapshot::Snapshot;
use super::world::{CLUSTER, Life};

/// Fewer files are no data directory: a snapshot of nothing would never differ.
const FEW: usize = 500;
/// Capture that takes longer than this to go on is worth a line.
const SLOW: Duration = Duration::from_secs(5);

impl Life {
    /// All that holds between two steps. With `restore`, `latest` is restored, too.
    pub(super) fn check(&mut self, restore: bool) -> Result<()> {
        let took = self.settle()?;
        if took > SLOW {
            self.say(&format!("the repository had the last commit after {:.1} s", took.as_secs_f64()));
        }
        self.read_log()?;
        let here = self.here()?;
        self.verify(&self.production, here).context("production")?;
        self.check_latest()?;
        if restore {
            self.restore_latest(here).context("a restore to latest")?;
        }
        self.run(&["check", CLUSTER]).context("check")?;
        self.check_gaps()
    }

    /// `latest` is on production's timeline.
    fn check_latest(&mut self) -> Result<()> {
        let place = self.place("dry");
        let timeline = self.production.timeline()?;
        let report = self.json(&["restore", CLUSTER, text(&place)?, "--dry-run"])?;
        let found = field(&report, "/timeline")?.as_u64();
        ensure!(found == Some(timeline.into()), "latest is not on timeline {timeline}: {report}");
        ensure!(!place.exists(), "a dry run made {}", place.display());
        Ok(())
    }

    fn check_gaps(&mut self) -> Result<()> {
        let list = self.json(&["list", CLUSTER])?;
        let gaps = field(&list, "/clusters/0/gaps")?.as_array().cloned().unwrap_or_default();
        ensure!(gaps.len() <= self.gaps, "there are gaps: {gaps:?}");
        Ok(())
    }

    /// Gaps that the last step explains are no fault afterwards.
    pub(super) fn accept_gaps(&mut self) -> Result<()> {
        let list = self.json(&["list", CLUSTER])?;
        self.gaps = field(&list, "/clusters/0/gaps")?.as_array().map_or(0, Vec::len);
        Ok(())
    }

    fn restore_latest(&mut self, here: Point) -> Result<()> {
        let place = self.place("latest");
        let copy = self.restore_copy(place, "latest", &[])?;
        self.verify(&copy, here)?;
        self.retire(copy)
    }

    /// Restores a copy and starts it.
    pub(super) fn restore_copy(&mut self, place: PathBuf, target: &str, more: &[&str]) -> Result<Server> {
        let port = Port::free()?;
        let number = port.number().to_string();
        let arguments = ["restore", CLUSTER, text(&place)?, "--to", target, "--start", "--port", &number];
        let install = self.production.install.clone();
        // From here on its server ends with us, however this ends.
        let copy = Server { install, data: place.clone(), port };
        self.json(&[&arguments[..], more].concat())?;
        ensure!(copy.runs(), "no server runs on {}", place.display());
        Ok(copy)
    }

    /// Stops a copy, reads every page of it, removes it.
    pub(super) fn retire(&self, copy: Server) -> Result<()> {
        copy.stop()?;
        check_pages(&copy)?;
        let place = copy.data.clone();
        drop(copy);
        self.remove(&place)
    }

    /// Whether a server holds exactly what it must at a point, in whole pages and indexes, and tablespaces lie where they may.
    pub(super) fn verify(&self, server: &Server, point: Point) -> Result<()> {
        let harmed = match self.sabotage {
            Some(Sabotage::ProductionRow) => server.data == self.production.data,
            Some(Sabotage::CopyRow) => server.data != self.production.data,
            _ => false,
        };
        if harmed {
            server.psql("DELETE FROM ledger WHERE id = (SELECT max(id) FROM ledger)")?;
        }
        let holding = self.chronicle.holding(point);
        let verdict = holding.rows.compare(&mut server.session()?)?;
        ensure!(
            verdict.is_exact(),
            "{}: {} differences of {} transactions: {:#?}",
            server.data.display(),
            verdict.count,
            holding.rows.transactions,
            verdict.differences
        );
        let mut found = Vec::new();
        let tables =
            "SELECT relname FROM pg_class WHERE relname LIKE 'spot\\_%' AND relkind = 'r' ORDER BY oid";
        for table in server.psql(tables)?.lines() {
            let number: u32 = table.trim_start_matches("spot_").parse().context("a table's name")?;
            let sql = format!(
                "SELECT count(*), count(*) FILTER (WHERE pad = repeat(md5(id::text), 8)), coalesce(sum(id), 0) FROM {table}"
            );
            found.push((number, server.psql(&sql).with_context(|| table.to_owned())?));
        }
        let told = |rows: &u64| format!("{rows}|{rows}|{}", rows * rows.saturating_sub(1) / 2);
        let wanted: Vec<(u32, String)> =
            holding.spots.iter().map(|(number, rows)| (*number, told(rows))).collect();
        found.sort();
        ensure!(
            found == wanted,
            "{}: tables in tablespaces are {found:?}, not {wanted:?}",
            server.data.display()
        );
        self.check_links(server)?;
        amcheck(server)
    }

    /// Below pg_tblspc is what the catalog knows and nothing else; a copy's lie inside of it.
    fn check_links(&self, server: &Server) -> Result<()> {
        let known: Vec<String> = server.tablespaces()?.into_iter().map(|(_, oid, _)| oid).collect();
        let inside = server.data.canonicalize()?;
        let mut found = Vec::new();
        for entry in fs::read_dir(server.data.join("pg_tblspc")).context("cannot list pg_tblspc")? {
            let path = entry?.path();
            found.push(path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default());
            let target = path.canonicalize().with_context(|| format!("{} leads nowhere", path.display()))?;
            let ours = server.data == self.production.data || target.starts_with(&inside);
            ensure!(ours, "the copy's {} leads outside, to {}", path.display(), target.display());
        }
        found.sort();
        let mut wanted = known;
        wanted.sort();
        ensure!(found == wanted, "{}: pg_tblspc holds {found:?}, not {wanted:?}", server.data.display());
        Ok(())
    }

    /// Production's directory and where its links lead, also those of tablespaces that are gone.
    pub(super) fn places(&self) -> Result<Vec<PathBuf>> {
        let mut places = vec![self.production.data.clone(), self.home().join("ts")];
        for entry in fs::read_dir(self.production.data.join("pg_tblspc")).context("cannot list pg_tblspc")? {
            let target = entry?.path().canonicalize().context("a link leads nowhere")?;
            if !places.iter().any(|place| target.starts_with(place)) {
                places.push(target);
            }
        }
        Ok(places)
    }

    /// Does something that does not name production: its files stay the very same. A third of the times production is
    /// stopped meanwhile, a third of the times it is at rest, and otherwise writers are at work and nothing is compared.
    pub(super) fn apart<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let way = self.random.below(3);
        if way == 2 {
            let writers = self.writers()?;
            let done = act(self);
            self.note(writers)?;
            return done;
        }
        let stopped = way == 0;
        if stopped {
            self.production.stop()?;
        } else {
            self.production.psql("CHECKPOINT")?;
        }
        let places = self.places()?;
        let before = Snapshot::of(&places, !stopped)?;
        ensure!(before.len() > FEW, "production has {} files", before.len());
        let done = act(self);
        if self.sabotage == Some(Sabotage::File) {
            let path = self.production.data.join("pg_hba.conf");
            fs::copy(&path, path.with_extension("tmp"))
                .and_then(|_| fs::rename(path.with_extension("tmp"), &path))?;
        }
        let differences = before.differences(&Snapshot::of(&places, !stopped)?);
        if !differences.is_empty() {
            bail!("production's files changed, though the step did not name it: {differences:#?}");
        }
        if stopped {
            self.production.start(&[])?;
        }
        done
    }

    /// A backup of production as it is now must be in the list: what a command promised to take.
    pub(super) fn backups(&mut self) -> Result<usize> {
        let list = self.json(&["list", CLUSTER])?;
        let backups = field(&list, "/clusters/0/backups")?.as_array().cloned().unwrap_or_default();
        Ok(backups.iter().filter(|it| it.get("status").and_then(Value::as_str) == Some("ok")).count())
    }
}

/// Reads every page of a stopped server.
pub(super) fn check_pages(server: &Server) -> Result<()> {
    let Ok(mut command) = server.install.command("pg_checksums") else { return Ok(()) };
    quietly(command.arg("--check").arg("-D").arg(&server.data))
}

/// Lets amcheck read every table and index.
fn amcheck(server: &Server) -> Result<()> {
    let Ok(mut command) = server.install.command("pg_amcheck") else { return Ok(()) };
    let pid = fs::read_to_string(server.data.join("postmaster.pid")).context("cannot read postmaster.pid")?;
    let port = pid.lines().nth(3).context("no port")?.to_owned();
    command.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", "postgres", "--heapallindexed"]);
    quietly(&mut command).with_context(|| format!("pg_amcheck of {}", server.data.display()))
}

/// A path as an argument.
pub(super) fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path is not UTF-8")
}
