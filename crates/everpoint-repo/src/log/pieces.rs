//! What is stored of a branch, from one listing.

use std::ops::ControlFlow;

use everpoint_core::{LogOffset, Span};

use super::LogStore;
use crate::RepoError;
use crate::names::{self, SegmentNames};

/// What kind of object holds a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PieceKind {
    /// A whole segment, of its own or in a bundle.
    Segment,
    /// Part of a segment that is not whole yet.
    Tail,
}

/// A stored piece of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The bytes to take from it.
    pub span: Span,
    /// The bytes that its object holds: all of `span`, and more where tails overlap.
    pub stored: Span,
    /// What it is.
    pub kind: PieceKind,
    /// Whether its digest is stored. A segment without one was left by a crash, and is repaired when it is stored again.
    pub has_digest: bool,
}

/// All that is known of one segment after its names were seen.
#[derive(Debug, Default)]
pub(super) struct Found {
    start: LogOffset,
    segment: bool,
    digest: bool,
    tails: Vec<Span>,
}

impl LogStore {
    /// All pieces of the branch in log order. The pieces of one segment follow each other without overlap, and without a
    /// hole where what is stored has none. Memory: 56 bytes a segment.
    ///
    /// # Errors
    /// If the listing failed.
    pub fn pieces(&self) -> Result<Vec<Piece>, RepoError> {
        self.pieces_between(LogOffset(0), LogOffset(u64::MAX))
    }

    /// As [`LogStore::pieces`], but only of segments that hold bytes of `from..to`.
    ///
    /// # Errors
    /// If the listing failed.
    pub fn pieces_between(&self, from: LogOffset, to: LogOffset) -> Result<Vec<Piece>, RepoError> {
        self.chosen(from, to, choose)
    }

    /// As [`LogStore::pieces_between`], for those who only read: of a segment without digest, which is being stored or was
    /// left by a crash, what its tails hold comes first, and only the rest as a piece without digest.
    ///
    /// # Errors
    /// If the listing failed.
    pub fn readable_between(&self, from: LogOffset, to: LogOffset) -> Result<Vec<Piece>, RepoError> {
        self.chosen(from, to, choose_readable)
    }

    fn chosen(&self, from: LogOffset, to: LogOffset, choose: Choose) -> Result<Vec<Piece>, RepoError> {
        let wanted = Span { from: self.names.start(from), to };
        // In this order: a bundle is there before the segments that it replaces go.
        let singles = self.singles(from, to, choose)?;
        let known = self.with_bundled(wanted, &singles);
        if covers(&known, wanted) {
            return Ok(known);
        }
        self.bundles()?;
        Ok(self.with_bundled(wanted, &singles))
    }

    /// The pieces and those that known bundles hold, which hide others of the same segments.
    fn with_bundled(&self, wanted: Span, singles: &[Piece]) -> Vec<Piece> {
        let size = self.names.size.max(1);
        let mut bundled: Vec<Piece> = Vec::new();
        for bundle in self.known_bundles(wanted) {
            let first =
                bundle.span.from.max(wanted.from).max(bundled.last().map_or(LogOffset(0), |it| it.span.to));
            let last = bundle.span.to.min(wanted.to);
            let starts = (0..last.since(first).div_ceil(size)).map(|number| first.plus(number * size));
            bundled.extend(starts.map(|start| whole(start, size)));
        }
        let hidden = |piece: &Piece| {
            let start = self.names.start(piece.span.from);
            bundled.binary_search_by_key(&start, |known| known.span.from).is_ok()
        };
        let mut all: Vec<Piece> = singles.iter().filter(|piece| !hidden(piece)).copied().collect();
        if !bundled.is_empty() {
            all.append(&mut bundled);
            all.sort_by_key(|piece| piece.span.from);
        }
        all
    }

    /// The pieces that are objects of their own.
    pub(super) fn singles(
        &self,
        from: LogOffset,
        to: LogOffset,
        choose: Choose,
    ) -> Result<Vec<Piece>, RepoError> {
        let (mut pieces, mut current) = (Vec::new(), Found::default());
        self.each_single(from, &mut |start, part| {
            if start >= to {
                return ControlFlow::Break(());
            }
            if start != current.start {
                let done = std::mem::replace(&mut current, Found { start, ..Found::default() });
                choose(&done, self.names.size, &mut pieces);
            }
            match part {
                Part::Segment => current.segment = true,
                Part::Digest => current.digest = true,
                Part::Tail(span) => current.tails.push(span),
            }
            ControlFlow::Continue(())
        })?;
        choose(&current, self.names.size, &mut pieces);
        Ok(pieces)
    }

    /// Visits the objects of segments from that of `from` on, with the start of each one's segment.
    pub(super) fn each_single(
        &self,
        from: LogOffset,
        visit: &mut dyn FnMut(LogOffset, Part) -> ControlFlow<()>,
    ) -> Result<(), RepoError> {
        let prefix = format!("{}/", self.base);
        let first = self.names.start(from);
        // Everything of the segment before sorts before this: its object, its digest, its tails.
        let after =
            first.0.checked_sub(1).map(|before| format!("{prefix}{}.u", self.names.name(LogOffset(before))));
        self.shared.store.list(&prefix, after.as_deref(), &mut |info| {
            let relative = info.name.strip_prefix(&prefix).unwrap_or_default();
            // Segments begin with a digit or a capital letter; everything else of a branch sorts behind them.
            if relative.starts_with(|first: char| first.is_ascii_lowercase()) {
                return ControlFlow::Break(());
            }
            match classify(self.names, relative) {
                Some((start, part)) => visit(start, part),
                None => ControlFlow::Continue(()),
            }
        })?;
        Ok(())
    }
}

/// A whole segment with its digest.
fn whole(start: LogOffset, size: u64) -> Piece {
    let span = Span { from: start, to: start.plus(size) };
    Piece { span, stored: span, kind: PieceKind::Segment, has_digest: true }
}

/// Whether verified pieces hold all of it.
fn covers(pieces: &[Piece], wanted: Span) -> bool {
    let mut end = wanted.from;
    for piece in pieces.iter().filter(|piece| piece.has_digest) {
        if piece.span.from > end {
            return false;
        }
        end = end.max(piece.span.to);
    }
    end >= wanted.to
}

/// What an object of a segment is.
pub(super) enum Part {
    Segment,
    Digest,
    Tail(Span),
}

/// What an object of a segment is, by its name below that of the branch, and where the segment begins.
pub(super) fn classify(names: SegmentNames, relative: &str) -> Option<(LogOffset, Part)> {
    let (segment, rest) = relative.split_at_checked(24)?;
    let start = names.parse(segment)?;
    match rest {
        "" => Some((start, Part::Segment)),
        ".digest" => Some((start, Part::Digest)),
        _ => {
            let span = names::parse_span(rest.strip_prefix(".tail/")?)?;
            let inside = span.from >= start && span.to.since(start) <= names.size;
            inside.then_some((start, Part::Tail(span)))
        }
    }
}

/// Chooses what of the objects of one segment are pieces, and appends those.
pub(super) type Choose = fn(&Found, u64, &mut Vec<Piece>);

/// Appends the pieces of one segment.
pub(super) fn choose(found: &Found, size: u64, pieces: &mut Vec<Piece>) {
    let whole = Span { from: found.start, to: found.start.plus(size) };
    let segment = Piece { span: whole, stored: whole, kind: PieceKind::Segment, has_digest: found.digest };
    if found.segment && found.digest {
        pieces.push(segment);
        return;
    }
    let chain = chain(found.start, &found.tails);
    // A segment without digest is not verified yet: tails that hold all of it say more.
    let complete = chain.first().is_some_and(|piece| piece.span.from == whole.from)
        && chain.last().is_some_and(|piece| piece.span.to == whole.to)
        && chain.windows(2).all(|pair| matches!(pair, [a, b] if a.span.to == b.span.from));
    if found.segment && !complete {
        pieces.push(segment);
    } else {
        pieces.extend(chain);
    }
}

/// Appends the pieces of one segment for those who only read.
fn choose_readable(found: &Found, size: u64, pieces: &mut Vec<Piece>) {
    if !found.segment || found.digest {
        return choose(found, size, pieces);
    }
    let stored = Span { from: found.start, to: found.start.plus(size) };
    let mut end = found.start;
    for piece in chain(found.start, &found.tails) {
        // Beyond a hole in the tails only the segment knows more.
        if piece.span.from > end {
            break;
        }
        end = piece.span.to;
        pieces.push(piece);
    }
    if end < stored.to {
        let span = Span { from: end, to: stored.to };
        pieces.push(Piece { span, stored, kind: PieceKind::Segment, has_digest: false });
    }
}

/// Chooses among the tails of a segment: they follow each other as far as possible; beyond a hole again.
fn chain(start: LogOffset, tails: &[Span]) -> Vec<Piece> {
    let mut sorted: Vec<Span> = tails.to_vec();
    sorted.sort_unstable_by_key(|span| (span.from, std::cmp::Reverse(span.to)));
    let (mut chosen, mut position) = (Vec::new(), start);
    while let Some(next) = sorted.iter().find(|span| span.to > position) {
        position = position.max(next.from);
        let run = exact_run(position, &sorted).unwrap_or_else(|| overlapping_run(position, &sorted));
        let Some(last) = run.last() else { break };
        position = last.span.to;
        chosen.extend(run);
    }
    chosen
}

/// The run of tails without overlap from `position` that reaches as far as any run does; `None` if only overlapping ones
/// reach so far.
fn exact_run(position: LogOffset, sorted: &[Span]) -> Option<Vec<Piece>> {
    let goal = overlapping_run(position, sorted).last()?.span.to;
    // For each tail, from the last to the first: how far runs that begin with it reach, and by which tail next.
    let mut reach: Vec<(LogOffset, Option<usize>)> = vec![(LogOffset(0), None); sorted.len()];
    for (at, span) in sorted.iter().enumerate().rev() {
        let begin = sorted.partition_point(|other| other.from < span.to);
        let follower = (begin..sorted.len())
            .take_while(|next| sorted.get(*next).is_some_and(|other| other.from == span.to))
            .max_by_key(|next| (reach.get(*next).map(|known| known.0), std::cmp::Reverse(*next)));
        let far = follower.and_then(|next| reach.get(next)).map_or(span.to, |known| known.0);
        *reach.get_mut(at)? = (far, follower);
    }
    let begin = sorted.partition_point(|span| span.from < position);
    let first = (begin..sorted.len())
        .take_while(|at| sorted.get(*at).is_some_and(|span| span.from == position))
        .find(|at| reach.get(*at).is_some_and(|known| known.0 == goal))?;
    let mut run = Vec::new();
    let mut next = Some(first);
    while let Some(at) = next {
        let span = *sorted.get(at)?;
        run.push(Piece { span, stored: span, kind: PieceKind::Tail, has_digest: true });
        next = reach.get(at)?.1;
    }
    Some(run)
}

/// The greedy run: always the tail that reaches farthest, its head trimmed where it overlaps.
fn overlapping_run(position: LogOffset, sorted: &[Span]) -> Vec<Piece> {
    let (mut run, mut position) = (Vec::new(), position);
    let mut at = 0;
    let mut best: Option<Span> = None;
    loop {
        while let Some(span) = sorted.get(at).filter(|span| span.from <= position) {
            if best.is_none_or(|known| span.to > known.to) {
                best = Some(*span);
            }
            at += 1;
        }
        let Some(stored) = best.filter(|known| known.to > position) else {
            return run;
        };
        let span = Span { from: position, to: stored.to };
        run.push(Piece { span, stored, kind: PieceKind::Tail, has_digest: true });
        position = stored.to;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(from: u64, to: u64) -> Span {
        Span { from: LogOffset(from), to: LogOffset(to) }
    }

    fn spans(tails: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let tails: Vec<Span> = tails.iter().map(|(from, to)| span(*from, *to)).collect();
        chain(LogOffset(0), &tails).iter().map(|piece| (piece.span.from.0, piece.span.to.0)).collect()
    }

    #[test]
    fn tails_are_chained() {
        assert_eq!(spans(&[]), []);
        assert_eq!(spans(&[(4, 6), (0, 4)]), [(0, 4), (4, 6)]);
        assert_eq!(
            spans(&[(0, 4), (0, 3), (3, 6)]),
            [(0, 3), (3, 6)],
            "whole tails are preferred to trimmed ones"
        );
        assert_eq!(spans(&[(0, 4), (3, 6)]), [(0, 4), (4, 6)], "trimmed");
        assert_eq!(spans(&[(0, 4), (5, 6), (6, 9)]), [(0, 4), (5, 6), (6, 9)], "a hole stays visible");
        assert_eq!(spans(&[(2, 3)]), [(2, 3)]);
        assert_eq!(spans(&[(0, 9), (2, 3), (3, 4)]), [(0, 9)], "what adds nothing is left out");
    }

    #[test]
    fn a_whole_segment_hides_its_tails() {
        let found = |segment, digest, tails: &[(u64, u64)]| {
            let tails = tails.iter().map(|(from, to)| span(*from, *to)).collect();
            let mut pieces = Vec::new();
            choose(&Found { start: LogOffset(0), segment, digest, tails }, 8, &mut pieces);
            pieces.iter().map(|piece| (piece.kind, piece.has_digest)).collect::<Vec<_>>()
        };
        assert_eq!(found(true, true, &[(0, 8)]), [(PieceKind::Segment, true)]);
        assert_eq!(found(true, false, &[(0, 4)]), [(PieceKind::Segment, false)]);
        assert_eq!(found(true, false, &[(0, 4), (5, 8)]), [(PieceKind::Segment, false)]);
        assert_eq!(found(true, false, &[(0, 4), (4, 8)]), [(PieceKind::Tail, true); 2]);
        assert_eq!(found(false, true, &[]), [], "a digest alone is nothing");
    }

    #[test]
    fn readers_see_the_tails_of_a_segment_that_is_not_verified_yet() {
        let found = |digest, tails: &[(u64, u64)]| {
            let tails = tails.iter().map(|(from, to)| span(*from, *to)).collect();
            let mut pieces = Vec::new();
            choose_readable(&Found { start: LogOffset(0), segment: true, digest, tails }, 8, &mut pieces);
            pieces.iter().map(|it| (it.span.from.0, it.span.to.0, it.has_digest)).collect::<Vec<_>>()
        };
        assert_eq!(found(true, &[(0, 4)]), [(0, 8, true)]);
        assert_eq!(found(false, &[]), [(0, 8, false)]);
        assert_eq!(found(false, &[(0, 3), (3, 4)]), [(0, 3, true), (3, 4, true), (4, 8, false)]);
        assert_eq!(found(false, &[(0, 3), (4, 5)]), [(0, 3, true), (3, 8, false)]);
        assert_eq!(found(false, &[(2, 5)]), [(0, 8, false)]);
        assert_eq!(found(false, &[(0, 3), (3, 8)]), [(0, 3, true), (3, 8, true)]);
    }

    proptest! {
        #[test]
        fn a_chain_covers_exactly_what_is_stored(tails in prop::collection::vec((0_u64..60, 1_u64..12), 0..14)) {
            let tails: Vec<Span> = tails.iter().map(|(from, length)| span(*from, from + length)).collect();
            let pieces = chain(LogOffset(0), &tails);
            let stored = |at: u64| tails.iter().any(|span| span.from.0 <= at && at < span.to.0);
            for at in 0..80 {
                let times = pieces.iter().filter(|piece| piece.span.from.0 <= at && at < piece.span.to.0).count();
                prop_assert_eq!(times, usize::from(stored(at)), "byte {}", at);
            }
            for piece in &pieces {
                prop_assert!(tails.contains(&piece.stored));
                prop_assert!(piece.stored.from <= piece.span.from && piece.span.to == piece.stored.to);
            }
            prop_assert!(pieces.windows(2).all(|pair| pair[0].span.to <= pair[1].span.from));
        }
    }
}
