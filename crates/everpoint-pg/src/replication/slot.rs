//! Replication slots over the replication protocol.

use everpoint_core::LogOffset;

use super::Replication;
use super::identity::{lsn, number};
use crate::client::{PgError, Purpose, Rows, connect, quote_identifier, quote_literal};

/// SQLSTATE: the slot exists already.
const DUPLICATE_OBJECT: &str = "42710";
/// SQLSTATE: the slot does not exist.
const UNDEFINED_OBJECT: &str = "42704";

/// What is known about a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotPosition {
    /// The oldest log position that it keeps; `None` if it keeps none: never used, or invalidated.
    pub restart: Option<LogOffset>,
    /// Timeline of `restart`, where the server tells.
    pub timeline: Option<u32>,
}

impl Replication {
    /// Makes a physical slot that keeps the log from now on. Returns `false` if it existed already.
    ///
    /// # Errors
    /// If the server refuses (no free slot, no privilege).
    pub fn create_slot(&mut self, name: &str, temporary: bool) -> Result<bool, PgError> {
        let temporary = if temporary { " TEMPORARY" } else { "" };
        let command =
            format!("CREATE_REPLICATION_SLOT {}{temporary} PHYSICAL RESERVE_WAL", quote_identifier(name));
        match self.connection.query(&command) {
            Ok(_) => Ok(true),
            Err(error) if error.sqlstate() == Some(DUPLICATE_OBJECT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a physical slot that lasts, unless it is there. That is asked first where the server tells it: a slot that exists
    /// already would be an error in its log.
    ///
    /// # Errors
    /// As [`Replication::create_slot`].
    pub fn ensure_slot(&mut self, name: &str) -> Result<bool, PgError> {
        match self.look_up_slot(name)? {
            Some(Some(_)) => Ok(false),
            Some(None) | None => self.create_slot(name, false),
        }
    }

    /// Drops a slot. Returns `false` if there was none.
    ///
    /// # Errors
    /// If it is in use.
    pub fn drop_slot(&mut self, name: &str) -> Result<bool, PgError> {
        if self.look_up_slot(name)? == Some(None) {
            return Ok(false);
        }
        match self.connection.query(&format!("DROP_REPLICATION_SLOT {}", quote_identifier(name))) {
            Ok(_) => Ok(true),
            Err(error) if error.sqlstate() == Some(UNDEFINED_OBJECT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Where a slot stands; `None` if there is none. Servers before 15 tell it by SQL only: without an ordinary
    /// connection, `Some` with an unknown position is returned for them.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn read_slot(&mut self, name: &str) -> Result<Option<SlotPosition>, PgError> {
        let unknown = SlotPosition { restart: None, timeline: None };
        Ok(self.look_up_slot(name)?.unwrap_or(Some(unknown)))
    }

    /// The same; `None` if nobody tells.
    fn look_up_slot(&mut self, name: &str) -> Result<Option<Option<SlotPosition>>, PgError> {
        if !self.tells_of_slots() {
            return Ok(self.look_up_by_sql(name));
        }
        let rows = self.connection.query(&format!("READ_REPLICATION_SLOT {}", quote_identifier(name)))?;
        if rows.get(0, 0).is_none() {
            return Ok(Some(None));
        }
        Ok(Some(Some(SlotPosition {
            restart: rows.get(0, 1).map(lsn).transpose()?,
            timeline: rows.get(0, 2).map(number).transpose()?,
        })))
    }

    /// Whether the server tells over this protocol where a slot stands.
    pub(crate) fn tells_of_slots(&self) -> bool {
        self.connection.major() >= 15
    }

    fn look_up_by_sql(&self, name: &str) -> Option<Option<SlotPosition>> {
        let query = format!(
            "SELECT restart_lsn FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
            quote_literal(name)
        );
        let asked = connect(self.connection.config(), Purpose::Sql).and_then(|mut sql| sql.query(&query));
        let rows = asked.inspect_err(|error| {
            tracing::debug!(%error, "no ordinary connection to ask for the slot's position");
        });
        let rows = rows.ok()?;
        let position = |rows: &Rows| SlotPosition {
            restart: rows.single().and_then(|text| lsn(text).ok()),
            timeline: None,
        };
        Some(rows.0.first().map(|_| position(&rows)))
    }
}
