//! The log of one branch: segments, their digests, tails, bundles, and what is known beyond them.

mod bundle;
mod expire;
mod marks;
mod parallel;
mod pieces;
mod read;
mod segment;
mod tail;

use std::sync::Arc;

use everpoint_core::{BranchId, Digest, LogOffset};
use everpoint_format::codec::Codec;
use everpoint_format::digest;
use everpoint_format::seal::ObjectKind;

pub(crate) use self::bundle::BundleCache;
pub use self::bundle::{Bundle, BundleMade};
pub use self::expire::Freed;
pub use self::pieces::{Piece, PieceKind};
pub use self::segment::SegmentWriter;

use crate::RepoError;
use crate::names::SegmentNames;
use crate::object::{Shared, format_error, missing};

/// How the log is compressed: fast, as it has to keep up with the server.
const LOG_CODEC: Codec = Codec::Zstd(1);

/// What became of something that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is stored now.
    New,
    /// The same content was stored already.
    AlreadySame,
}

/// The log of one branch. Clones share everything.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
    /// `clusters/<name>/log/<identity>/<branch>`.
    base: String,
    /// `clusters/<name>/bundles/<identity>/<branch>`.
    bundles: String,
    branch: BranchId,
    names: SegmentNames,
    codec: Codec,
}

impl LogStore {
    pub(crate) fn new(
        shared: Arc<Shared>,
        cluster: &str,
        identity: u32,
        branch: BranchId,
        size: u64,
    ) -> Self {
        let names = SegmentNames { timeline: branch.timeline(), size };
        let base = format!("{cluster}/log/{identity}/{branch}");
        let bundles = format!("{cluster}/bundles/{identity}/{branch}");
        Self { shared, base, bundles, branch, names, codec: LOG_CODEC }
    }

    /// The same log, written with another codec.
    #[must_use]
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// The branch.
    #[must_use]
    pub const fn branch(&self) -> &BranchId {
        &self.branch
    }

    /// Bytes of a segment.
    #[must_use]
    pub const fn segment_size(&self) -> u64 {
        self.names.size
    }

    /// Start of the segment that holds `position`.
    #[must_use]
    pub fn segment_start(&self, position: LogOffset) -> LogOffset {
        self.names.start(position)
    }

    /// Name of the segment that holds `position`, as PostgreSQL names it.
    #[must_use]
    pub fn segment_name(&self, position: LogOffset) -> String {
        self.names.name(position)
    }

    fn segment(&self, start: LogOffset) -> String {
        format!("{}/{}", self.base, self.names.name(start))
    }

    fn digest_name(&self, start: LogOffset) -> String {
        format!("{}.digest", self.segment(start))
    }

    /// The digest of a piece.
    ///
    /// # Errors
    /// `repo.replaced` if the piece is a tail that was replaced by its segment since it was listed: list again.
    /// `repo.missing` for a segment without a digest.
    pub fn digest(&self, piece: &Piece) -> Result<Digest, RepoError> {
        match piece.kind {
            PieceKind::Segment => self
                .segment_digest(piece.span.from)?
                .ok_or_else(|| missing("read", &self.digest_name(piece.span.from))),
            PieceKind::Tail => self.tail_digest(piece),
        }
    }

    /// The digest of the segment that begins at `start`; `None` if none is stored.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn segment_digest(&self, start: LogOffset) -> Result<Option<Digest>, RepoError> {
        self.either(start, || self.single_digest(start), |bundle| self.bundled_digest(bundle, start))
    }

    /// The digest of a segment that is an object of its own.
    fn single_digest(&self, start: LogOffset) -> Result<Digest, RepoError> {
        let name = self.digest_name(start);
        let bytes = self.shared.need(&name, ObjectKind::Digest)?;
        digest::decode(&bytes).map_err(|error| format_error("read", &name, error))
    }

    /// BLAKE3 of the segment that begins at `start`, from its digest; `None` if it is not stored whole and verified.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn segment_hash(&self, start: LogOffset) -> Result<Option<[u8; 32]>, RepoError> {
        Ok(self.segment_digest(start)?.map(|digest| digest.content_hash))
    }
}
