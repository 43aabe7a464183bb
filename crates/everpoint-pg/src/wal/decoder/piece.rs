//! What a decoder found since its last cut.

use std::collections::BTreeMap;

use everpoint_core::{LogEvent, RecordSpan};

/// What was found since the last cut.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub(super) from: u64,
    pub(super) ended: Option<u64>,
    pub(super) first_record: Option<u64>,
    pub(super) first_previous: Option<u64>,
    pub(super) last_record: Option<RecordSpan>,
    pub(super) head_unknown: bool,
    pub(super) records: u64,
    pub(super) events: Vec<LogEvent>,
    /// The last record of each resource manager of an extension; the first one is among the events.
    extensions: BTreeMap<u8, RecordSpan>,
}

impl Piece {
    /// Nothing yet.
    pub(super) fn begin(from: u64, head_unknown: bool) -> Self {
        Self { from, head_unknown, ..Self::default() }
    }

    /// Notes a record that only an extension can replay.
    pub(super) fn note_extension(&mut self, manager: u8, record: RecordSpan) {
        if self.extensions.insert(manager, record).is_none() {
            self.events.push(LogEvent::Extension { manager: u32::from(manager), record });
        }
    }

    /// The events in the order of the log.
    pub(super) fn into_events(mut self) -> Vec<LogEvent> {
        let last = self.extensions.iter();
        let last: Vec<LogEvent> = last
            .map(|(manager, record)| LogEvent::Extension { manager: u32::from(*manager), record: *record })
            .filter(|event| !self.events.contains(event))
            .collect();
        if !last.is_empty() {
            self.events.extend(last);
            self.events.sort_by_key(|event| event.record().start);
        }
        self.events
    }
}

#[cfg(test)]
mod tests {
    use everpoint_core::LogOffset;

    use super::*;

    #[test]
    fn of_an_extensions_records_the_first_and_the_last_are_told_in_the_order_of_the_log() {
        let at = |start: u64| RecordSpan { start: LogOffset(start), end: LogOffset(start + 40) };
        let mut piece = Piece::default();
        for start in (0..1000).step_by(40) {
            piece.note_extension(128, at(start));
        }
        piece.events.push(LogEvent::SegmentSwitch { record: at(1040) });
        piece.note_extension(200, at(1080));
        piece.note_extension(128, at(1120));
        let told: Vec<u64> = piece.into_events().iter().map(|event| event.record().start.0).collect();
        assert_eq!(told, [0, 1040, 1080, 1120]);
    }
}
