//! What of the log that a stopped server's directory holds has to be stored before the directory is written over.

use crate::position::{LogOffset, Span};

/// A server counts the bytes that it leaves free behind a record as written; a run ends with its last record.
const PADDING: u64 = 7;

/// What a directory holds of one timeline on which its server was.
#[derive(Debug, Clone, Copy)]
pub struct HeldLog<'a> {
    /// Unbroken runs of it, in order.
    pub runs: &'a [Span],
    /// Where it should lie and can't be read.
    pub odd: &'a [Span],
    /// The server has written it up to here, at least.
    pub reached: LogOffset,
    /// Where the server has left the timeline; `None`: it is the one that it goes on with.
    pub left_at: Option<LogOffset>,
}

/// What is to be done about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unsaved {
    /// To be stored, in order.
    pub spans: Vec<Span>,
    /// Log that the server has written, and that is neither stored nor there.
    pub missing: Option<Span>,
    /// Log behind the place where a server that is started there would stop reading: no server ever replays it.
    pub stray: Option<Span>,
    /// Log that ends where more is stored already: if that is not the same, the two went apart before.
    pub known: Option<Span>,
}

/// Finds what is not stored of it; `stored` is where the stored log of that branch ends.
///
/// # Errors
/// Log that production has written, is not stored, is there, and can't be read.
pub fn unsaved(held: &HeldLog<'_>, stored: Option<LogOffset>) -> Result<Unsaved, Span> {
    let stored = stored.unwrap_or_default();
    if let Some(odd) = held.odd.iter().find(|odd| odd.to > stored && odd.from < held.reached) {
        return Err(*odd);
    }
    // The run that holds what the server has surely written ends where its log ends.
    let limit = held.left_at.unwrap_or(held.reached);
    let is_last = held.left_at.is_none();
    // What lies between may be gone, as long as it is stored.
    let joins = |run: &Span| is_last && run.from <= stored && run.to > stored;
    let known = held.runs.iter().rfind(|run| run.from < limit).copied();
    let known = known.filter(|run| is_last && run.to <= stored);
    let (own, behind): (Vec<Span>, Vec<Span>) =
        held.runs.iter().partition(|run| run.from < limit || joins(run));
    let cut = |to: LogOffset| held.left_at.map_or(to, |left| to.min(left));
    let spans: Vec<Span> = own
        .into_iter()
        .map(|run| Span { from: run.from.max(stored), to: cut(run.to) })
        .filter(|span| span.from < span.to)
        .collect();
    let end = spans.last().map_or(stored, |span| span.to.max(stored));
    let is_missing = end.0.saturating_add(PADDING) < held.reached.0;
    let missing = is_missing.then_some(Span { from: end, to: held.reached });
    let stray = behind.first().copied().filter(|run| is_last && run.to > stored);
    Ok(Unsaved { spans, missing, stray, known })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn span(from: u64, to: u64) -> Span {
        Span { from: LogOffset(from), to: LogOffset(to) }
    }

    fn of(runs: &[Span], odd: &[Span], left_at: Option<u64>, stored: Option<u64>) -> Result<Unsaved, Span> {
        let left_at = left_at.map(LogOffset);
        let held = HeldLog { runs, odd, reached: LogOffset(250), left_at };
        unsaved(&held, stored.map(LogOffset))
    }

    fn just(spans: &[Span]) -> Result<Unsaved, Span> {
        Ok(Unsaved { spans: spans.to_vec(), ..Unsaved::default() })
    }

    #[test]
    fn what_lies_behind_the_stored_log_is_saved() {
        let runs = [span(100, 320)];
        assert_eq!(of(&runs, &[], None, Some(270)), just(&[span(270, 320)]));
        assert_eq!(of(&runs, &[], None, None), just(&[span(100, 320)]));
    }

    #[test]
    fn what_ends_within_the_stored_log_has_to_be_the_same() {
        let runs = [span(100, 320)];
        let known = Ok(Unsaved { known: Some(runs[0]), ..Unsaved::default() });
        assert_eq!(of(&runs, &[], None, Some(320)), known);
        assert_eq!(of(&runs, &[], None, Some(900)), known, "captured further than the directory goes");
        assert_eq!(of(&runs, &[], None, Some(319)).unwrap().known, None, "compared when it is stored");
    }

    #[test]
    fn what_joins_the_stored_log_is_saved_although_what_lies_before_is_gone() {
        assert_eq!(of(&[span(300, 450)], &[], None, Some(300)), just(&[span(300, 450)]));
        let cut = of(&[span(100, 200), span(300, 450)], &[], None, Some(310)).unwrap();
        assert_eq!((cut.spans, cut.known), (vec![span(310, 450)], Some(span(100, 200))));
        let hole = of(&[span(300, 450)], &[], None, Some(299)).unwrap();
        assert_eq!((hole.spans, hole.stray), (vec![], Some(span(300, 450))));
    }

    #[test]
    fn a_timeline_that_was_left_is_saved_up_to_there() {
        let runs = [span(100, 200), span(200, 320)];
        assert_eq!(of(&runs, &[], Some(280), Some(120)), just(&[span(120, 200), span(200, 280)]));
        assert_eq!(of(&runs, &[], Some(280), Some(290)), just(&[]));
    }

    #[test]
    fn what_no_server_would_replay_is_told_and_what_is_gone_too() {
        let runs = [span(100, 320), span(400, 450)];
        let found = of(&runs, &[], None, Some(120)).unwrap();
        assert_eq!((found.spans, found.stray), (vec![span(120, 320)], Some(span(400, 450))));
        let gone = of(&[span(100, 200)], &[], None, Some(120)).unwrap();
        assert_eq!((gone.spans, gone.missing), (vec![span(120, 200)], Some(span(200, 250))));
        assert_eq!(of(&[], &[], None, Some(120)).unwrap().missing, Some(span(120, 250)));
    }

    #[test]
    fn nothing_is_missing_wherever_the_last_record_ends() {
        for end in 201..=320 {
            let reached = u64::next_multiple_of(end, 8);
            for stored in [None, Some(LogOffset(100)), Some(LogOffset(end)), Some(LogOffset(reached))] {
                for runs in [&[span(100, end)][..], &[]] {
                    let held = HeldLog { runs, odd: &[], reached: LogOffset(reached), left_at: None };
                    let found = unsaved(&held, stored).unwrap();
                    let has = !runs.is_empty() || stored >= Some(LogOffset(end));
                    assert_eq!(found.missing.is_none(), has, "{end} {stored:?} {runs:?}");
                }
            }
            let held = HeldLog { runs: &[], odd: &[], reached: LogOffset(end + 8), left_at: None };
            assert!(unsaved(&held, Some(LogOffset(end))).unwrap().missing.is_some(), "a record is more");
        }
    }

    #[test]
    fn what_is_there_and_cannot_be_read_refuses_unless_it_is_stored() {
        let odd = [span(200, 300)];
        assert_eq!(of(&[span(100, 200)], &odd, None, Some(200)), Err(span(200, 300)));
        assert_eq!(of(&[span(100, 200)], &odd, None, Some(300)).unwrap().spans, []);
        // Files behind what the server has written are made ready for later use.
        assert_eq!(of(&[span(100, 260)], &[span(300, 400)], None, Some(260)).unwrap().spans, []);
    }
}
