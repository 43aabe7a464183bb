//! Where planning reads what the facts don't tell.

use crate::digest::{Digest, RecordSpan};
use crate::facts::{BranchFacts, PieceFacts};
use crate::position::LogOffset;

/// Gives planning the digests that it needs: few, and one after the other.
pub trait LogSource {
    /// Why something can't be read.
    type Error;

    /// The digest of a piece. Where [`PieceFacts::head_unknown`] is set and the piece before is stored (for the first
    /// piece of a branch: on the one it forked from), the source should make the digest anew with what that one ends
    /// with; else the plan can only warn that it does not know what the record between them did.
    ///
    /// # Errors
    /// If it can't be read.
    fn digest(&mut self, branch: &BranchFacts, piece: &PieceFacts) -> Result<Digest, Self::Error>;

    /// The last whole record that **ends** in the piece and begins at or before `at`; `None` if there is none.
    ///
    /// # Errors
    /// If the piece can't be read.
    fn last_record(
        &mut self,
        branch: &BranchFacts,
        piece: &PieceFacts,
        at: LogOffset,
    ) -> Result<Option<RecordSpan>, Self::Error>;
}
