//! Is a restored cluster exactly what PostgreSQL promised?

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use crate::history::{Ended, History};
use crate::transaction::{ACCOUNTS, Effect, Transaction};
use crate::writer::PAYLOAD;
use crate::{Record, Session};

/// Rows that the tables of the writers must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// By key: transaction, account, delta, pieces.
    pub rows: BTreeMap<i64, (u32, u32, i64, u32)>,
    /// By account.
    pub balances: BTreeMap<u32, i64>,
    /// Transactions of the writers that are in.
    pub transactions: usize,
}

/// How a restored cluster differs from what it must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Each difference in words, the first 20.
    pub differences: Vec<String>,
    /// How many there are.
    pub count: usize,
}

impl Verdict {
    /// No difference.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.count == 0
    }

    fn add(&mut self, difference: String) {
        self.count += 1;
        if self.differences.len() < 20 {
            self.differences.push(difference);
        }
    }
}

/// Judges by two records that neither Everpoint nor the restored cluster can touch: what the writers did, and the ends of
/// transactions in the source's own log.
#[derive(Debug)]
pub struct Judge {
    work: BTreeMap<u32, Transaction>,
    history: History,
}

impl Judge {
    /// Takes both records.
    ///
    /// # Errors
    /// If they contradict each other: a commit that was acknowledged is not in the log, or a rolled back one is. Then the
    /// source itself is broken, or the log is not all of it, and nothing can be judged.
    pub fn new(record: &Record, history: History) -> Result<Self> {
        let committed: BTreeSet<u32> =
            history.ends().iter().filter(|end| end.committed).map(|end| end.xid).collect();
        for (done, _) in record.acknowledged() {
            ensure!(
                committed.contains(&done.xid),
                "transaction {} was acknowledged, and the source's log does not hold its commit",
                done.xid
            );
        }
        // A crash forgets transactions of which nothing had been flushed, and their ids are given out again. What counts
        // is the last that had the id; one that was acknowledged was flushed.
        let work: BTreeMap<u32, Transaction> =
            record.transactions.iter().map(|done| (done.xid, done.clone())).collect();
        for done in work.values() {
            ensure!(
                done.told != crate::Told::RolledBack || !committed.contains(&done.xid),
                "transaction {} was rolled back, and the source's log holds its commit",
                done.xid
            );
        }
        Ok(Self { work, history })
    }

    /// The log's record.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What must be there after a recovery to the moment `at`, in microseconds of the Unix epoch.
    #[must_use]
    pub fn at_time(&self, at: i64) -> Expected {
        self.expect(self.history.until_time(at))
    }

    /// What must be there when exactly these have ended.
    #[must_use]
    pub fn expect(&self, ends: &[Ended]) -> Expected {
        let mut expected = Expected::default();
        let mut deleted = Vec::new();
        for account in 0..ACCOUNTS {
            expected.balances.insert(account, 0);
        }
        let work = ends.iter().filter(|end| end.committed).filter_map(|end| self.work.get(&end.xid));
        for done in work {
            expected.transactions += 1;
            for effect in &done.effects {
                match *effect {
                    Effect::Insert { id, account, delta, pieces } => {
                        expected.rows.insert(id, (done.xid, account, delta, pieces));
                        *expected.balances.entry(account).or_insert(0) += delta;
                    }
                    Effect::Delete { id } => deleted.push(id),
                }
            }
        }
        for id in deleted {
            expected.rows.remove(&id);
        }
        expected
    }
}

impl Expected {
    /// Compares with what a cluster holds: by its tables, and by their indexes.
    ///
    /// # Errors
    /// If the cluster can't be asked. Data that it can't read counts as a difference.
    pub fn compare(&self, session: &mut Session) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        let sql = format!("SELECT id, xid, account, delta, pieces, payload = {PAYLOAD} FROM ledger l");
        let answer = match session.query(&sql) {
            Ok(answer) => answer,
            Err(why @ crate::SqlError::Refused { .. }) => {
                verdict.add(format!("the ledger can't be read: {why}"));
                return Ok(verdict);
            }
            Err(why) => return Err(why).context("cannot read the ledger"),
        };
        let mut found = BTreeMap::new();
        for row in &answer.rows {
            let values: Vec<&str> = row.iter().map(|value| value.as_deref().unwrap_or("")).collect();
            let [id, xid, account, delta, pieces, whole] = values.as_slice() else {
                continue;
            };
            if *whole != "t" {
                verdict.add(format!("row {id} of transaction {xid} has a wrong payload"));
            }
            found.insert(
                id.parse().context("id")?,
                (
                    xid.parse().context("xid")?,
                    account.parse().context("account")?,
                    delta.parse().context("delta")?,
                    pieces.parse().context("pieces")?,
                ),
            );
        }
        if answer.rows.len() != found.len() {
            verdict.add(format!("{} rows have a key of another", answer.rows.len() - found.len()));
        }
        self.compare_rows(&found, &mut verdict);
        self.compare_balances(session, &mut verdict)?;
        compare_indexes(session, found.len(), &mut verdict)?;
        Ok(verdict)
    }

    fn compare_rows(&self, found: &BTreeMap<i64, (u32, u32, i64, u32)>, verdict: &mut Verdict) {
        for (id, row) in &self.rows {
            match found.get(id) {
                None => verdict.add(format!("row {id} of transaction {} is missing", row.0)),
                Some(other) if other != row => verdict.add(format!("row {id} is {other:?}, not {row:?}")),
                Some(_) => {}
            }
        }
        for (id, row) in found.iter().filter(|(id, _)| !self.rows.contains_key(id)) {
            verdict.add(format!("row {id} of transaction {} should not be there", row.0));
        }
    }

    fn compare_balances(&self, session: &mut Session, verdict: &mut Verdict) -> Result<()> {
        let mut found = BTreeMap::new();
        for row in session.query("SELECT id, balance FROM account")?.rows {
            let values: Vec<&str> = row.iter().map(|value| value.as_deref().unwrap_or("")).collect();
            let [id, balance] = values.as_slice() else {
                continue;
            };
            found.insert(id.parse::<u32>().context("id")?, balance.parse::<i64>().context("balance")?);
        }
        for (id, balance) in &self.balances {
            if found.get(id) != Some(balance) {
                verdict.add(format!("account {id} has {:?}, not {balance}", found.get(id)));
            }
        }
        Ok(())
    }
}

/// Counts through an index, and lets amcheck look where it is installed.
fn compare_indexes(session: &mut Session, rows: usize, verdict: &mut Verdict) -> Result<()> {
    session.query("SET enable_seqscan = off; SET enable_bitmapscan = off")?;
    let counted: usize = session.value("SELECT count(*) FROM ledger WHERE id > 0")?;
    if counted != rows {
        verdict.add(format!("the index counts {counted} rows, the table {rows}"));
    }
    // Not the check of parents: it would wait for the prepared transactions that are open in a copy.
    let known: i64 = session.value("SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'")?;
    let read_only: String = session.value("SELECT pg_is_in_recovery()")?;
    if known > 0 && read_only == "f" {
        session.query("CREATE EXTENSION IF NOT EXISTS amcheck")?;
        for index in ["ledger_pkey", "ledger_account", "account_pkey"] {
            if let Err(why) = session.query(&format!("SELECT bt_index_check('{index}', true)")) {
                verdict.add(format!("amcheck on {index}: {why}"));
            }
        }
    }
    Ok(())
}
