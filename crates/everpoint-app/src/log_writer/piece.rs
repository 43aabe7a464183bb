//! What decoding found, put together to the digest of a larger piece.

use everpoint_core::{BranchId, Digest, Micros, Span, Verdict};
use everpoint_engine::Decoded;

/// Adds what was found in the next piece to what was found so far: together they describe both pieces as one.
#[must_use]
pub(crate) fn join(before: Option<Decoded>, next: Decoded) -> Decoded {
    let Some(mut all) = before else { return next };
    if all.first_record.is_none() {
        (all.first_record, all.first_previous) = (next.first_record, next.first_previous);
    }
    // Once broken a segment stays broken: what follows was read without its context.
    if !matches!(all.verdict, Verdict::Broken { .. }) {
        all.verdict = next.verdict;
    }
    if next.system != 0 {
        all.system = next.system;
    }
    if next.log_format != 0 {
        all.log_format = next.log_format;
    }
    all.timeline = all.timeline.max(next.timeline);
    all.last_record = next.last_record.or(all.last_record);
    all.head_unknown |= next.head_unknown;
    all.records = all.records.saturating_add(next.records);
    all.events.extend(next.events);
    all
}

/// The digest of a piece of a branch.
#[must_use]
pub(crate) fn digest(
    branch: &BranchId,
    span: Span,
    content_hash: [u8; 32],
    previous_hash: Option<[u8; 32]>,
    covered_until: Option<Micros>,
    decoded: Decoded,
) -> Digest {
    Digest {
        system: decoded.system,
        timeline: branch.timeline(),
        log_format: decoded.log_format,
        span,
        content_hash,
        previous_hash,
        verdict: decoded.verdict,
        first_record: decoded.first_record,
        last_record: decoded.last_record,
        first_previous: decoded.first_previous,
        head_unknown: decoded.head_unknown,
        covered_until,
        records: decoded.records,
        events: decoded.events,
    }
}

/// What a digest says was found.
pub(crate) fn decoded(digest: Digest) -> Decoded {
    Decoded {
        system: digest.system,
        timeline: digest.timeline,
        log_format: digest.log_format,
        verdict: digest.verdict,
        first_record: digest.first_record,
        last_record: digest.last_record,
        first_previous: digest.first_previous,
        head_unknown: digest.head_unknown,
        records: digest.records,
        events: digest.events,
    }
}
