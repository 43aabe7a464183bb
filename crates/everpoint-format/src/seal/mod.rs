//! Sealing: every stored byte is under an authenticated checksum, and with a key encrypted.
//!
//! An object is a header of [`HEADER_LEN`] bytes and frames; the last frame carries the last-flag and may be empty. Each
//! object draws a random salt and derives a subkey of its own from the data key, bound to repository, kind and name, so
//! that a retried name never reuses a nonce, and an object in another's place fails. The nonce is the frame's number.

mod frame;
mod header;
mod key;
mod opener;
mod sealer;

pub use frame::frame_lengths;
pub use opener::{FrameOpened, FrameOpener};
pub use sealer::FrameSealer;

pub use crate::keys::{DataKey, KeyRing, RepositoryId};
pub use crate::stream::{FrameStreamReader, FrameStreamWriter};

/// Bytes before the first frame.
pub const HEADER_LEN: usize = 64;
/// Bytes of a frame before its payload.
pub const FRAME_HEADER_LEN: usize = 12;
/// Bytes of a frame after its payload.
pub const TAG_LEN: usize = 16;
/// Raw bytes of the largest frame but of bundles. A pack's index may be larger than a data frame, up to [`MAX_TRAILER_RAW`].
pub const MAX_FRAME_RAW: usize = 1 << 20;
/// Raw bytes of the largest last frame.
pub const MAX_TRAILER_RAW: usize = 64 << 20;
/// Flag of the last frame.
const LAST: u8 = 1;

/// What an object is; bound into its seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names say it; FORMAT.md describes each")]
pub enum ObjectKind {
    Pack = 1,
    Manifest = 2,
    Pages = 3,
    Segment = 4,
    Digest = 5,
    Tail = 6,
    Covered = 7,
    Gap = 8,
    Identity = 9,
    Attempt = 10,
    Failure = 11,
    Damage = 12,
    History = 13,
    Other = 14,
    Lease = 15,
    Bundle = 20,
    BundleIndex = 21,
    Expired = 22,
    Hold = 23,
    Tombstone = 24,
    OffsiteClaim = 25,
    OffsiteSending = 26,
    OffsiteOutcome = 27,
    Production = 28,
}

impl ObjectKind {
    /// Raw bytes of the largest data frame of such an object.
    #[must_use]
    pub const fn max_frame_raw(self) -> usize {
        match self {
            Self::Bundle => crate::bundle::BUNDLE_FRAME as usize,
            _ => MAX_FRAME_RAW,
        }
    }
}

/// Where an object belongs.
#[derive(Debug, Clone, Copy)]
pub struct ObjectAddress<'a> {
    /// The repository.
    pub repository: RepositoryId,
    /// Its full name there.
    pub name: &'a str,
    /// What it is.
    pub kind: ObjectKind,
}

/// Place of a frame in its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FrameRef {
    /// Its number, from 0.
    pub number: u32,
    /// First byte in the object.
    pub offset: u32,
    /// Bytes there, header and tag included.
    pub stored: u32,
    /// Bytes of its content.
    pub raw: u32,
}
