//! One session that writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::Duration;

use crate::transaction::{ACCOUNTS, Effect, Told, Transaction, now};
use crate::writers::{Shared, roll_back_prepared};
use crate::{Random, Session, SqlError};

/// Expression of a payload, of the columns `id` and `pieces`.
pub(crate) const PAYLOAD: &str =
    "(SELECT string_agg(md5(l.id || ':' || i), '' ORDER BY i) FROM generate_series(1, l.pieces) i)";

pub(crate) struct Writer {
    shared: Arc<Shared>,
    number: u32,
    random: Random,
    next: i64,
    /// Rows that this session knows to be committed and has not deleted.
    own: Vec<i64>,
}

/// How a transaction shall end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Commit,
    Rollback,
    CommitPrepared,
    RollbackPrepared,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, number: u32, seed: u64) -> Self {
        let random = Random::new(seed ^ u64::from(number).wrapping_mul(0x5851_F42D_4C95_7F2D));
        Self { shared, number, random, next: i64::from(number) * 1_000_000_000_000 + 1, own: Vec::new() }
    }

    /// Writes until told to stop; connects again whenever the connection breaks.
    pub(crate) fn run(mut self) {
        let mut session = None;
        while !self.shared.stop.load(Ordering::SeqCst) {
            let mut connected = match session.take() {
                Some(connected) => connected,
                None => match self.connect() {
                    Ok(connected) => connected,
                    Err(_) => {
                        sleep(Duration::from_millis(50));
                        continue;
                    }
                },
            };
            match self.transaction(&mut connected) {
                Ok(()) => session = Some(connected),
                Err(SqlError::Refused { state, message }) => {
                    // A shutdown or a full disk is weather; a refusal of the statements themselves is a defect.
                    self.shared.note_refusal(&state, &message);
                    let back = connected.query("ROLLBACK");
                    session = back.is_ok().then_some(connected);
                }
                Err(SqlError::Lost(_)) => self.shared.note_loss(),
            }
            let pause = self.random.below(self.shared.pause_ms.saturating_mul(2).saturating_add(1));
            sleep(Duration::from_millis(pause));
        }
    }

    /// Connects, and ends the prepared transactions that a broken connection of this session left.
    fn connect(&self) -> Result<Session, SqlError> {
        let mut session = Session::connect(&self.shared.address, &self.shared.database)?;
        roll_back_prepared(&mut session, &format!("writer-{}-%", self.number))?;
        Ok(session)
    }

    fn transaction(&mut self, session: &mut Session) -> Result<(), SqlError> {
        let (inserts, slow) = match self.random.below(100) {
            0..70 => (1, false),
            70..92 => (self.random.between(3, 20), false),
            _ => (self.random.between(2, 6), true),
        };
        let ending = match self.random.below(100) {
            0..85 => Ending::Commit,
            85..93 => Ending::Rollback,
            93..97 if self.shared.prepared => Ending::CommitPrepared,
            97..99 if self.shared.prepared => Ending::RollbackPrepared,
            _ => Ending::Commit,
        };
        session.query("BEGIN")?;
        let xid: u64 = session.value("SELECT pg_current_xact_id()::text")?;
        let xid = u32::try_from(xid & u64::from(u32::MAX)).unwrap_or(0);
        // Money is moved on one account in a transaction: two sessions can wait for each other, never in a circle.
        let account = u32::try_from(self.random.below(u64::from(ACCOUNTS))).unwrap_or(0);
        let mut effects = Vec::new();
        let mut deleted = None;
        for step in 0..inserts {
            let savepoint = self.random.chance(10);
            if savepoint {
                session.query("SAVEPOINT s")?;
            }
            let effect = self.insert(session, xid, account)?;
            if savepoint && self.random.chance(50) {
                session.query("ROLLBACK TO SAVEPOINT s")?;
            } else {
                effects.push(effect);
            }
            if slow && step > 0 {
                sleep(Duration::from_millis(self.random.below(80)));
            }
        }
        if self.random.chance(15) && !self.own.is_empty() {
            let place = usize::try_from(self.random.below(self.own.len() as u64)).unwrap_or(0);
            let id = self.own.swap_remove(place);
            deleted = Some(id);
            session.query(&format!("DELETE FROM ledger WHERE id = {id}"))?;
            effects.push(Effect::Delete { id });
        }
        let done = Transaction { xid, session: self.number, sent: now(), told: Told::Nothing, effects };
        self.end(session, done, ending, deleted)
    }

    fn insert(&mut self, session: &mut Session, xid: u32, account: u32) -> Result<Effect, SqlError> {
        let id = self.next;
        self.next += 1;
        let delta = self.random.between(-1000, 1000);
        // Most rows are small, some are moved out of line and compressed.
        let pieces = u32::try_from(match self.random.below(20) {
            0 => self.random.between(200, 600),
            _ => self.random.between(1, 12),
        });
        let pieces = pieces.unwrap_or(1);
        session.query(&format!(
            "INSERT INTO ledger SELECT l.*, {PAYLOAD} FROM (VALUES ({id}::bigint, {}, {xid}::bigint, {account}, \
             {delta}::bigint, {pieces})) l(id, session, xid, account, delta, pieces)",
            self.number
        ))?;
        session.query(&format!("UPDATE account SET balance = balance + {delta} WHERE id = {account}"))?;
        Ok(Effect::Insert { id, account, delta, pieces })
    }

    /// Ends a transaction as wished, and records what came of it, whatever came of it.
    fn end(
        &mut self,
        session: &mut Session,
        mut done: Transaction,
        ending: Ending,
        deleted: Option<i64>,
    ) -> Result<(), SqlError> {
        let answer = self.finish(session, &mut done, ending);
        done.told = match &answer {
            Ok(tag) if tag.starts_with("COMMIT") => Told::Committed(now()),
            Ok(_) | Err(SqlError::Refused { .. }) => Told::RolledBack,
            Err(SqlError::Lost(_)) => Told::Nothing,
        };
        match done.told {
            Told::Committed(_) => self.own.extend(done.effects.iter().filter_map(|effect| match effect {
                Effect::Insert { id, .. } => Some(*id),
                Effect::Delete { .. } => None,
            })),
            Told::RolledBack => self.own.extend(deleted),
            // Its rows are left alone from now on: whether they exist is unknown.
            Told::Nothing => {}
        }
        self.shared.record(done);
        answer.map(|_| ())
    }

    fn finish(
        &mut self,
        session: &mut Session,
        done: &mut Transaction,
        ending: Ending,
    ) -> Result<String, SqlError> {
        let gid = format!("writer-{}-{}", self.number, done.xid);
        match ending {
            Ending::Commit | Ending::Rollback => {
                done.sent = now();
                let sql = if ending == Ending::Commit { "COMMIT" } else { "ROLLBACK" };
                let answer = session.query(sql)?;
                self.shared.note_warnings(&answer);
                Ok(answer.tag)
            }
            Ending::CommitPrepared | Ending::RollbackPrepared => {
                let prepared = session.query(&format!("PREPARE TRANSACTION '{gid}'"))?.tag;
                if prepared != "PREPARE TRANSACTION" {
                    return Ok(prepared);
                }
                sleep(Duration::from_millis(self.random.below(100)));
                done.sent = now();
                let verb = if ending == Ending::CommitPrepared { "COMMIT" } else { "ROLLBACK" };
                let answer = session.query(&format!("{verb} PREPARED '{gid}'"))?;
                self.shared.note_warnings(&answer);
                Ok(answer.tag)
            }
        }
    }
}
