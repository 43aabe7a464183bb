//! Log that ends where more is stored already must be the same as that: a server that was set back writes other log.

use std::io::Read;

use everpoint_core::{LogOffset, Span};
use everpoint_repo::LogStore;

use super::Salvage;
use super::way::Step;
use crate::archive_get::{self, Choice};
use crate::lineage::branch_id;
use crate::log_writer::diverged;
use crate::{AppError, Event, text};

/// So many bytes at its end are compared: servers that went apart before them differ in them too.
const WINDOW: u64 = 64 << 10;

impl Salvage<'_> {
    /// Compares the last bytes of a run that ends within what is stored, as far as that is stored.
    pub(super) fn compare(&self, step: &Step, history: &[u8], run: Span) -> Result<(), AppError> {
        let log = self.lineage().log(branch_id(step.local.timeline, history));
        let mut from = LogOffset(run.to.0.saturating_sub(WINDOW)).max(run.from);
        let mut held = self.held(&log, Span { from, to: run.to })?;
        // Behind a switch of segments nothing tells servers apart.
        if held.iter().all(|byte| *byte == 0) {
            from = log.segment_start(LogOffset(run.to.0.saturating_sub(1))).max(run.from);
            held = self.held(&log, Span { from, to: run.to })?;
        }
        let mut start = log.segment_start(from);
        while start < run.to {
            let (into, before) = (in_memory(start.since(from)), in_memory(from.since(start)));
            let held = held.get(into..).unwrap_or_default();
            let stored = self.stored(&log, start)?;
            let stored = stored.get(before..).unwrap_or_default();
            if let Some(at) = held.iter().zip(stored).position(|(held, stored)| held != stored)
                && !self.was_given(&log, history, start, before, held)?
            {
                let at = start.max(from).plus(at as u64);
                let message =
                    "the directory holds other bytes than those that are stored for the same position";
                return Err(diverged("compare", step.local.timeline, at, message).into());
            }
            start = start.plus(self.segment_size);
        }
        Ok(())
    }

    /// Whether these bytes are what a restore has handed out: with records that name places of tablespaces rewritten. A server
    /// that was stopped in its recovery has nothing else.
    fn was_given(
        &self,
        log: &LogStore,
        history: &[u8],
        start: LogOffset,
        before: usize,
        held: &[u8],
    ) -> Result<bool, AppError> {
        let choice = Choice::of(self.lineage(), log.branch().clone(), history.to_vec());
        let given = archive_get::segment(self.context, &choice, log, start, true)?.unwrap_or_default();
        Ok(held.iter().zip(given.get(before..).unwrap_or_default()).all(|(held, given)| held == given))
    }

    /// What is stored from the start of a segment on; nothing, if that can't be read any more.
    fn stored(&self, log: &LogStore, start: LogOffset) -> Result<Vec<u8>, AppError> {
        match log.read_stored(start, 1) {
            Ok(stored) => Ok(stored.map(|(bytes, _)| bytes).unwrap_or_default()),
            Err(error) if error.is_damaged() => {
                self.events.emit(Event::Warning(format!(
                    "what is stored at {} can't be compared with what {} holds: {error}",
                    text::lsn(start),
                    self.directory.join("pg_wal").display()
                )));
                Ok(Vec::new())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What the directory holds.
    fn held(&self, log: &LogStore, span: Span) -> Result<Vec<u8>, AppError> {
        let (mut bytes, mut at) = (Vec::new(), span.from);
        while at < span.to {
            let name = log.segment_name(at);
            let until = log.segment_start(at).plus(self.segment_size).min(span.to);
            let mut piece = vec![0; in_memory(until.since(at))];
            self.open(&name, at)?.read_exact(&mut piece).map_err(|error| self.io(&name, error))?;
            bytes.append(&mut piece);
            at = until;
        }
        Ok(bytes)
    }
}

fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
