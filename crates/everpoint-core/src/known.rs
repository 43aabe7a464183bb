//! Until when a stretch of the log is known to hold everything.

use crate::continuity::Run;
use crate::facts::BackupFacts;
use crate::path::PathStep;
use crate::position::Micros;

/// Until when the log is known to hold everything that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct KnownUntil {
    /// Nothing that happened until this moment, itself included, lies behind the log.
    pub(crate) certain: Option<Micros>,
    /// The latest time that a commit or abort in the log bears: others may have ended in the same microsecond.
    pub(crate) last_end: Option<Micros>,
}

impl KnownUntil {
    /// The last moment that can be asked for.
    pub(crate) fn latest(self) -> Option<Micros> {
        self.certain.max(self.last_end)
    }
}

/// What the run tells by itself, by the moments until which its branch was covered, and by backups whose log it holds.
pub(crate) fn known_until(run: &Run<'_>, path: &[PathStep<'_>], backups: &[&BackupFacts]) -> KnownUntil {
    let Some(last) = run.last_piece() else {
        return KnownUntil::default();
    };
    // The end of a piece of which only the beginning counts may tell of what no longer does.
    let whole = run.pieces.iter().filter(|piece| piece.is_whole_to_the_end());
    let last_end = whole.clone().filter_map(|piece| piece.piece.times).map(|(_, to)| to).max();
    // Where the path goes on to a younger branch, that an older one stood still says nothing.
    let goes_on = path.iter().any(|step| step.branch == last.branch && run.span.to >= step.span.to);
    if goes_on {
        return KnownUntil { certain: None, last_end };
    }
    let of_pieces =
        whole.filter(|piece| piece.branch == last.branch).filter_map(|piece| piece.piece.known_until);
    let covered = last.branch.covered.filter(|(at, _)| *at <= run.span.to).map(|(_, until)| until);
    let begun = backups
        .iter()
        .filter(|backup| run.span.from <= backup.start && backup.stop <= run.span.to)
        .map(|backup| backup.started_at);
    KnownUntil { certain: of_pieces.chain(covered).chain(begun).max(), last_end }
}
