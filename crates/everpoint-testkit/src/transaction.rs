//! What a writer did and what it was told.

use std::time::{SystemTime, UNIX_EPOCH};

/// How many accounts the writers move money between.
pub const ACCOUNTS: u32 = 64;

/// One effect of a transaction, as it stands if the transaction commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// A row of `ledger`, and `delta` added to the balance of its account.
    Insert {
        /// Key of the row: no two transactions use the same.
        id: i64,
        /// From 0 to [`ACCOUNTS`] - 1.
        account: u32,
        /// What is added to the balance.
        delta: i64,
        /// Its payload has this many pieces of 32 characters.
        pieces: u32,
    },
    /// A row of `ledger` deleted; balances stay.
    Delete {
        /// Its key.
        id: i64,
    },
}

/// What the writer was told about the end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The server said COMMIT, at this time (microseconds of the Unix epoch, read after its answer).
    Committed(i64),
    /// The server said ROLLBACK, or refused the commit.
    RolledBack,
    /// No answer came: it may have committed or not.
    Nothing,
}

/// One transaction of a writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Its transaction id, the low 32 bits.
    pub xid: u32,
    /// Number of its session, from 0.
    pub session: u32,
    /// When its COMMIT was sent (microseconds of the Unix epoch, read before).
    pub sent: i64,
    /// How it ended.
    pub told: Told,
    /// What it did, without what it rolled back to a savepoint.
    pub effects: Vec<Effect>,
}

impl Transaction {
    /// One line for the file of acknowledged work: `<xid> <session> <sent> <told> <effects>`.
    #[must_use]
    pub fn line(&self) -> String {
        let told = match self.told {
            Told::Committed(at) => format!("committed@{at}"),
            Told::RolledBack => "rolled-back".to_owned(),
            Told::Nothing => "unknown".to_owned(),
        };
        let effects: Vec<String> = self
            .effects
            .iter()
            .map(|effect| match effect {
                Effect::Insert { id, account, delta, pieces } => format!("+{id}/{account}/{delta}/{pieces}"),
                Effect::Delete { id } => format!("-{id}"),
            })
            .collect();
        format!("{} {} {} {told} {}", self.xid, self.session, self.sent, effects.join(","))
    }
}

/// The time now, in microseconds of the Unix epoch.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
