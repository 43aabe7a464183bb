//! Tells a page that was torn while being read from one that is damaged.

use std::sync::{Mutex, PoisonError};

use everpoint_core::LogOffset;

use crate::client::{Config, PgError};
use crate::replication::Replication;

/// Judges pages whose checksum is wrong. During a backup every first change of a page after a checkpoint puts the whole page
/// into the log, so a page that was written meanwhile is healed by replay. Its LSN then lies between the start of the
/// backup and the end of the log at this moment: a page is never written before the log that changed it.
pub(super) struct TornJudge<'a> {
    config: &'a Config,
    start: LogOffset,
    /// The log is known to reach to here, and the connection by which we learn more.
    known: Mutex<(LogOffset, Option<Replication>)>,
}

impl<'a> TornJudge<'a> {
    pub(super) const fn new(config: &'a Config, start: LogOffset) -> Self {
        Self { config, start, known: Mutex::new((start, None)) }
    }

    /// Whether replay heals a page with this LSN. If the server can't be asked, it is not taken to be healed.
    pub(super) fn is_torn(&self, lsn: LogOffset) -> bool {
        if lsn < self.start {
            return false;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if lsn > known.0 {
            match self.ask(&mut known.1) {
                Ok(end) => known.0 = end,
                Err(error) => {
                    tracing::warn!(%error, "end of the log unknown; a torn page is taken for damaged")
                }
            }
        }
        lsn <= known.0
    }

    fn ask(&self, connection: &mut Option<Replication>) -> Result<LogOffset, PgError> {
        let mut replication = match connection.take() {
            Some(replication) => replication,
            None => Replication::open(self.config)?,
        };
        let end = replication.identify()?.position;
        *connection = Some(replication);
        Ok(end)
    }
}
