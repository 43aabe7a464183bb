//! One database with its applications.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use everpoint_testkit::{
    Everpoint, History, Judge, PgCluster, Record, RunningCopy, WriterOptions, Writers, parse_lsn,
};
use serde_json::Value;

/// A cluster that applications write to.
#[derive(Debug)]
pub(crate) struct Shop {
    // Dropped first: they are clients of the server.
    writers: Option<Writers>,
    record: Record,
    pub(crate) name: &'static str,
    pub(crate) cluster: PgCluster,
    log_start: u64,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disaster {
    /// A table is dropped.
    Drop,
    /// Rows are overwritten and deleted.
    Wreck,
}

/// A disaster that has happened. Times are those of the server, in microseconds of the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Damage {
    /// The transaction that did it.
    pub(crate) xid: u32,
    /// A moment before it began.
    pub(crate) before: i64,
    /// When it had been committed.
    pub(crate) at: i64,
    /// Which of both kinds: a drop is undone to before its transaction, a wreck to before its time.
    pub(crate) kind: Disaster,
}

/// What a judgement found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) rows: usize,
    pub(crate) balances: usize,
    pub(crate) acknowledged: usize,
}

impl Shop {
    pub(crate) fn open(name: &'static str, major: u32, seed: u64) -> Result<Self> {
        let cluster = PgCluster::builder()
            .major(major)
            .settings([("max_prepared_transactions", "20"), ("wal_keep_size", "4GB")])
            .start()?;
        Writers::prepare(&mut cluster.session()?)?;
        let start = cluster.psql("SELECT redo_lsn FROM pg_control_checkpoint()")?;
        let log_start = parse_lsn(&start).context("no position")?;
        let options = WriterOptions { sessions: 6, seed, prepared: true, ..WriterOptions::default() };
        let writers = Some(Writers::start(cluster.address(), &options)?);
        Ok(Self { writers, record: Record::default(), name, cluster, log_start })
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.writers.as_ref().map_or(0, Writers::acknowledged)
    }

    /// Does the damage, while the applications go on.
    pub(crate) fn suffer(&self, kind: Disaster) -> Result<Damage> {
        const CLOCK: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        let mut session = self.cluster.session()?;
        let before = session.value(CLOCK)?;
        session.query("BEGIN")?;
        let xid: u64 = session.value("SELECT pg_current_xact_id()::text")?;
        session.query(match kind {
            Disaster::Drop => "DROP TABLE ledger",
            Disaster::Wreck => "UPDATE account SET balance = 0; DELETE FROM ledger WHERE id % 3 = 0",
        })?;
        session.query("COMMIT")?;
        Ok(Damage { xid: u32::try_from(xid)?, before, at: session.value(CLOCK)?, kind })
    }

    /// Ends the applications' work.
    pub(crate) fn close(&mut self) {
        if let Some(writers) = self.writers.take() {
            self.record = writers.stop();
        }
    }

    /// Compares the copy that runs on `place` with what must be there, then stops it and checks its pages.
    pub(crate) fn judge(&self, place: &Path, damage: &Damage) -> Result<Found> {
        let wal = self.cluster.data_dir().join("pg_wal");
        let until = self.cluster.flushed()?;
        let history = History::read(self.cluster.install(), &wal, 1, self.log_start, until)?;
        let judge = Judge::new(&self.record, history)?;
        let ends = match damage.kind {
            Disaster::Drop => {
                let drop = judge.history().ends().iter().find(|end| end.xid == damage.xid && end.committed);
                judge.history().before_lsn(drop.context("the source's log does not hold the drop")?.lsn)
            }
            Disaster::Wreck => judge.history().until_time(damage.before),
        };
        // What an application was told before the disaster began is not open to interpretation.
        let told: Vec<u32> = self
            .record
            .acknowledged()
            .filter(|(_, at)| *at < damage.before)
            .map(|(done, _)| done.xid)
            .collect();
        ensure!(!told.is_empty(), "nothing was acknowledged before the disaster");
        let held: std::collections::BTreeSet<u32> =
            ends.iter().filter(|end| end.committed).map(|end| end.xid).collect();
        let missing = told.iter().filter(|xid| !held.contains(xid)).count();
        ensure!(missing == 0, "{missing} acknowledged commits lie beyond the target");
        let expected = judge.expect(ends);
        let copy = RunningCopy::on(place)?;
        let verdict = expected.compare(&mut copy.session()?)?;
        ensure!(
            verdict.is_exact(),
            "{}: {} differences: {:#?}",
            self.name,
            verdict.count,
            verdict.differences
        );
        copy.stop_and_check(self.cluster.install())?;
        ensure!(self.cluster.psql("SELECT 1")? == "1", "production does not answer any more");
        Ok(Found { rows: expected.rows.len(), balances: expected.balances.len(), acknowledged: told.len() })
    }
}

/// The newest position of a cluster that a restore can reach.
pub(crate) fn stored_until(everpoint: &Everpoint, cluster: &str) -> Result<u64> {
    let list = everpoint.json(&["list", cluster])?;
    let windows = list.pointer("/clusters/0/windows").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(windows.iter().filter_map(|window| parse_lsn(window.get("to_lsn")?.as_str()?)).max().unwrap_or(0))
}
