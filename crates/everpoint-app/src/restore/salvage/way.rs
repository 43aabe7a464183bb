//! The timelines on which the server of a directory was, and where it left each.

use std::io::ErrorKind;

use everpoint_core::{HistoryEntry, LogOffset, followed};
use everpoint_engine::{LocalPlace, LocalTimeline};

use super::Salvage;
use crate::AppError;
use crate::lineage::Lineage;

/// A timeline on the way of a server.
pub(super) struct Step {
    /// The timeline, and how far it was written.
    pub(super) local: LocalTimeline,
    /// Content of its history file; `None` if nobody knows it.
    pub(super) history: Option<Vec<u8>>,
    /// Where the server has left it; `None`: it is its last.
    pub(super) left_at: Option<LogOffset>,
}

impl Salvage<'_> {
    /// The way of the server, the oldest timeline first: that on which `pg_control` says it goes on, and those from which its
    /// history says it comes. What else lies in `pg_wal` is not its.
    pub(super) fn way(&self, place: &LocalPlace) -> Result<Vec<Step>, AppError> {
        let lineage = self.lineage();
        let history = match &place.history {
            Some(history) => history.clone(),
            None => self.only_stored(&lineage, place.timeline)?,
        };
        let entries = if history.is_empty() { Vec::new() } else { self.context.engine.history(&history)? };
        let (mut steps, mut begin) = (Vec::new(), LogOffset(0));
        for HistoryEntry { timeline, until } in followed(&entries) {
            let start = LogOffset(until.0 - until.0.checked_rem(self.segment_size).unwrap_or_default());
            steps.push(Step {
                local: LocalTimeline { system: place.system, timeline, begin, reached: start },
                history: self.history_of(&lineage, &history, &entries, timeline)?,
                left_at: Some(until),
            });
            begin = until;
        }
        let (system, timeline, reached) = (place.system, place.timeline, place.written);
        steps.push(Step {
            local: LocalTimeline { system, timeline, begin, reached },
            history: Some(history),
            left_at: None,
        });
        Ok(steps)
    }

    pub(super) fn lineage(&self) -> Lineage<'_> {
        Lineage {
            cluster: &self.context.cluster,
            engine: self.context.engine.as_ref(),
            identity: self.identity,
            segment_size: self.segment_size,
        }
    }

    /// The history of a timeline whose file is gone, if only one branch with that number is stored.
    fn only_stored(&self, lineage: &Lineage<'_>, timeline: u32) -> Result<Vec<u8>, AppError> {
        let mut branches = lineage.of_timeline(timeline)?;
        let only = branches.pop().filter(|_| branches.is_empty());
        let history = only.map(|branch| lineage.log(branch).history()).transpose()?;
        history.flatten().ok_or_else(|| self.no_history(timeline))
    }

    /// The history of an ancestor: as it lies beside the log, or is stored.
    fn history_of(
        &self,
        lineage: &Lineage<'_>,
        history: &[u8],
        entries: &[HistoryEntry],
        timeline: u32,
    ) -> Result<Option<Vec<u8>>, AppError> {
        if entries.first().is_some_and(|first| first.timeline == timeline) {
            return Ok(Some(Vec::new()));
        }
        let path = self.directory.join("pg_wal").join(format!("{timeline:08X}.history"));
        match std::fs::read(&path) {
            Ok(content) => return Ok(Some(content)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(AppError::io("read", &path, error)),
        }
        let stored = lineage.ancestor(history, timeline)?;
        Ok(stored.map(|branch| lineage.log(branch).history()).transpose()?.flatten())
    }
}
