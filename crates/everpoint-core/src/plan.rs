//! The plan of a restore: which backup, which log, where to stop.

use crate::digest::{Digest, RecordSpan};
use crate::facts::{BranchFacts, PieceFacts};
use crate::position::{BranchId, LogOffset, Micros, Span};
use crate::target::Stop;

/// Gives planning the digests that it needs: few, and one after the other.
pub trait LogSource {
    /// Why something can't be read.
    type Error;

    /// The digest of a piece. Where [`PieceFacts::head_unknown`] is set and the piece before is stored, the source does
    /// well to make the digest anew with what that piece ends with; else planning may have to refuse.
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

/// A state that a restore can bring back, or has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reachable {
    /// First position that is not replayed.
    pub position: LogOffset,
    /// For a place to restore to: a moment that leads there. For a plan: time of the last commit replayed. `None`: the
    /// stored log tells none.
    pub time: Option<Micros>,
    /// Transaction id of the last commit replayed; `None` if the stored log holds none before.
    pub xid: Option<u64>,
}

/// A piece that replay needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeededPiece {
    /// Its branch.
    pub branch: BranchId,
    /// The piece.
    pub span: Span,
}

/// How a target is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePlan {
    /// Label of the backup to restore.
    pub backup: String,
    /// Bytes of its image.
    pub image_bytes: u64,
    /// Identity of all of it.
    pub identity: u32,
    /// The branch to follow.
    pub branch: BranchId,
    /// Timeline number of that branch.
    pub timeline: u32,
    /// The branches from the root to `branch`, with the part of the log that is taken from each.
    pub path: Vec<(BranchId, Span)>,
    /// Where replay stops.
    pub stop: Stop,
    /// What the restored server will have replayed.
    pub reached: Reachable,
    /// The pieces that replay reads, in order.
    pub pieces: Vec<NeededPiece>,
    /// Bytes of the log from the backup's start to the end of the record to stop at.
    pub log_bytes: u64,
    /// Least values, in the log to be replayed, of max_connections, max_worker_processes, max_wal_senders,
    /// max_prepared_transactions and max_locks_per_transaction, as (name, value): the largest that it states. Empty
    /// if it states none.
    pub limits: Vec<(String, String)>,
    /// Tablespaces that the log to be replayed creates: oid and the path that it names.
    pub created_tablespaces: Vec<(u32, String)>,
    /// Why this backup, this branch and this stop, in words.
    pub reasons: Vec<String>,
    /// What the operator should know, in words.
    pub warnings: Vec<String>,
}

/// Why a target can't be reached, and what can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// In words.
    pub reason: String,
    /// The last state before the target that can be brought back.
    pub nearest_before: Option<Reachable>,
    /// The first state after it.
    pub nearest_after: Option<Reachable>,
}
