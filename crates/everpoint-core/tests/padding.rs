//! The rest of a segment behind a switch holds nothing: where it is not stored, nothing is missing.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use everpoint_core::{
    BranchFacts, BranchId, Digest, LogEvent, LogFacts, LogOffset, PieceFacts, RecordSpan, Span, Verdict, gaps,
};

const SEGMENT: u64 = 1000;

/// A piece whose only record ends at its end, or not at all.
fn piece(from: u64, to: u64, record: Option<(u64, u64)>, switch: bool) -> PieceFacts {
    let record = record.map(|(start, end)| RecordSpan { start: LogOffset(start), end: LogOffset(end) });
    let events = record.filter(|_| switch).map(|record| LogEvent::SegmentSwitch { record });
    PieceFacts::from(&Digest {
        system: 1,
        timeline: 1,
        log_format: 1,
        span: Span { from: LogOffset(from), to: LogOffset(to) },
        content_hash: [0; 32],
        previous_hash: None,
        verdict: Verdict::Intact,
        first_record: record.map(|record| record.start),
        last_record: record,
        first_previous: None,
        head_unknown: false,
        covered_until: None,
        records: u64::from(record.is_some()),
        events: events.into_iter().collect(),
    })
}

fn holes(pieces: Vec<PieceFacts>) -> Vec<(u64, u64)> {
    let branch = BranchFacts {
        identity: 1,
        id: BranchId::new(1, [0; 8]),
        timeline: 1,
        segment_size: SEGMENT,
        parent: None,
        pieces,
        covered: None,
        gaps: Vec::new(),
        expired: None,
    };
    let log = LogFacts { branches: vec![branch], sightings: Vec::new() };
    gaps(&log).iter().map(|gap| (gap.span.from.0, gap.span.to.0)).collect()
}

#[test]
fn padding_that_is_not_stored_is_no_hole() {
    let before = |switch| piece(1000, 1100, Some((1050, 1100)), switch);
    let next = || piece(2000, 2100, Some((2040, 2100)), false);
    assert_eq!(holes(vec![before(true), next()]), []);
    assert_eq!(holes(vec![before(true), piece(1100, 1700, None, false), next()]), []);
    assert_eq!(holes(vec![before(false), next()]), [(1100, 2000)]);
    // Something was written behind it that is not there, or more than one segment.
    let later = piece(2300, 2400, Some((2300, 2400)), false);
    assert_eq!(holes(vec![before(true), later]), [(1100, 2300)]);
    let far = piece(3000, 3100, Some((3040, 3100)), false);
    assert_eq!(holes(vec![before(true), far]), [(1100, 3000)]);
    // The switch was before: then a record.
    let again = piece(2000, 2100, Some((2040, 2100)), false);
    assert_eq!(holes(vec![before(true), again, piece(3000, 3100, None, false)]), [(2100, 3000)]);
}
