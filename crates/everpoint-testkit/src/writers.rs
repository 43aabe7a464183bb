//! Sessions that write at once, and remember what they were told.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use crate::transaction::{ACCOUNTS, Told, Transaction};
use crate::writer::Writer;
use crate::{Address, Answer, Session, SqlError};

/// How to write.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// Sessions at once.
    pub sessions: u32,
    /// Number of the first session. Writers that follow others on the same server need numbers of their own.
    pub first_session: u32,
    /// Determines what they do (not when).
    pub seed: u64,
    /// Milliseconds that a session rests between two transactions, on average.
    pub pause_ms: u64,
    /// Some transactions are prepared first; needs `max_prepared_transactions`.
    pub prepared: bool,
    /// A file that gets a line for each transaction as soon as its end is known.
    pub record: Option<PathBuf>,
    /// Database to write to.
    pub database: String,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            sessions: 4,
            first_session: 0,
            seed: 1,
            pause_ms: 5,
            prepared: false,
            record: None,
            database: "postgres".to_owned(),
        }
    }
}

/// What all writers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) address: Address,
    pub(crate) database: String,
    pub(crate) pause_ms: u64,
    pub(crate) prepared: bool,
    pub(crate) stop: AtomicBool,
    done: Mutex<Vec<Transaction>>,
    file: Mutex<Option<File>>,
    committed: AtomicU64,
    losses: AtomicU64,
    refusals: Mutex<BTreeMap<String, u64>>,
    warned: AtomicU64,
}

impl Shared {
    pub(crate) fn record(&self, transaction: Transaction) {
        if matches!(transaction.told, Told::Committed(_)) {
            self.committed.fetch_add(1, Ordering::SeqCst);
        }
        if let Some(file) = lock(&self.file).as_mut() {
            // The record in memory is the one that is judged; the file is for a reader after a crash of the test.
            let _ = writeln!(file, "{}", transaction.line());
        }
        lock(&self.done).push(transaction);
    }

    pub(crate) fn note_loss(&self) {
        self.losses.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn note_refusal(&self, state: &str, message: &str) {
        *lock(&self.refusals).entry(format!("{state} {message}")).or_insert(0) += 1;
    }

    pub(crate) fn note_warnings(&self, answer: &Answer) {
        if !answer.notices.is_empty() {
            self.warned.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Writers at work. Dropping them stops them too.
#[derive(Debug)]
pub struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What writers did.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// All transactions, in the order in which their end became known.
    pub transactions: Vec<Transaction>,
    /// How often a connection broke.
    pub losses: u64,
    /// What the server refused, and how often.
    pub refusals: BTreeMap<String, u64>,
    /// Commits that came with a warning, as one that no standby confirmed does.
    pub warned: u64,
}

impl Record {
    /// Adds what writers did that followed.
    pub fn extend(&mut self, later: Self) {
        self.transactions.extend(later.transactions);
        self.losses += later.losses;
        self.warned += later.warned;
        for (refusal, count) in later.refusals {
            *self.refusals.entry(refusal).or_insert(0) += count;
        }
    }

    /// Transactions that the server said were committed, with the time of that answer.
    pub fn acknowledged(&self) -> impl Iterator<Item = (&Transaction, i64)> {
        self.transactions.iter().filter_map(|done| match done.told {
            Told::Committed(at) => Some((done, at)),
            _ => None,
        })
    }
}

impl Writers {
    /// Makes the tables that the writers need, in the database that the session is connected to.
    ///
    /// # Errors
    /// If the server refuses.
    pub fn prepare(session: &mut Session) -> Result<()> {
        session.query(
            "CREATE TABLE ledger (id bigint PRIMARY KEY, session int NOT NULL, xid bigint NOT NULL, \
             account int NOT NULL, delta bigint NOT NULL, pieces int NOT NULL, payload text NOT NULL)",
        )?;
        session.query("CREATE INDEX ledger_account ON ledger (account)")?;
        session.query(
            "CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL) WITH (fillfactor = 60)",
        )?;
        session
            .query(&format!("INSERT INTO account SELECT g, 0 FROM generate_series(0, {}) g", ACCOUNTS - 1))?;
        Ok(())
    }

    /// Starts writing to a server on which [`Writers::prepare`] has run.
    ///
    /// # Errors
    /// If the file of the record can't be made.
    pub fn start(address: Address, options: &WriterOptions) -> Result<Self> {
        let file = match &options.record {
            Some(path) => {
                Some(File::create(path).with_context(|| format!("cannot make {}", path.display()))?)
            }
            None => None,
        };
        let shared = Arc::new(Shared {
            address,
            database: options.database.clone(),
            pause_ms: options.pause_ms,
            prepared: options.prepared,
            stop: AtomicBool::new(false),
            done: Mutex::new(Vec::new()),
            file: Mutex::new(file),
            committed: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            refusals: Mutex::new(BTreeMap::new()),
            warned: AtomicU64::new(0),
        });
        let mut threads = Vec::new();
        for number in options.first_session..options.first_session.saturating_add(options.sessions) {
            let writer = Writer::new(Arc::clone(&shared), number, options.seed);
            let thread = std::thread::Builder::new().name(format!("writer {number}"));
            threads.push(thread.spawn(|| writer.run()).context("cannot start a writer")?);
        }
        Ok(Self { shared, threads })
    }

    /// How many commits were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.shared.committed.load(Ordering::SeqCst)
    }

    /// What was done so far.
    #[must_use]
    pub fn so_far(&self) -> Record {
        Record {
            transactions: lock(&self.shared.done).clone(),
            losses: self.shared.losses.load(Ordering::SeqCst),
            refusals: lock(&self.shared.refusals).clone(),
            warned: self.shared.warned.load(Ordering::SeqCst),
        }
    }

    /// Lets every session finish its transaction, and returns what all of them did. Prepared transactions that broken
    /// connections left are rolled back, if the server can be reached.
    #[must_use]
    pub fn stop(mut self) -> Record {
        self.halt();
        if let Ok(mut session) = Session::connect(&self.shared.address, &self.shared.database) {
            // Those that stay hold locks, and the log tells how each of them ended: nothing is judged wrongly.
            let _ = roll_back_prepared(&mut session, "writer-%");
        }
        self.so_far()
    }

    fn halt(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // A writer that panicked left its record complete up to then.
            let _ = thread.join();
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Rolls back the prepared transactions whose name is like a pattern.
pub(crate) fn roll_back_prepared(session: &mut Session, pattern: &str) -> Result<(), SqlError> {
    for row in session.query(&format!("SELECT gid FROM pg_prepared_xacts WHERE gid LIKE '{pattern}'"))?.rows {
        if let Some(Some(gid)) = row.first() {
            session.query(&format!("ROLLBACK PREPARED '{gid}'"))?;
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
