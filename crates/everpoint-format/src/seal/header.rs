//! The first bytes of an object.

use super::{DataKey, HEADER_LEN, ObjectKind};
use crate::error::FormatError;

const MAGIC: &[u8; 8] = b"EVPTOBJ\n";
const VERSION: u16 = 1;
const ENCRYPTED: u8 = 1;
/// Where the checksum of the header begins, in every version.
const CHECK_AT: usize = HEADER_LEN - 8;

/// What the header of an object says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: u8,
    /// Id of the data key; `None` if the object is not encrypted.
    pub(super) key: Option<[u8; 8]>,
    pub(super) salt: [u8; 32],
}

impl Header {
    pub(super) fn new(kind: ObjectKind, key: Option<&DataKey>, salt: [u8; 32]) -> Self {
        Self { kind: kind as u8, key: key.map(DataKey::id), salt }
    }

    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..8].copy_from_slice(MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = self.kind;
        out[11] = if self.key.is_some() { ENCRYPTED } else { 0 };
        out[16..24].copy_from_slice(&self.key.unwrap_or_default());
        out[24..CHECK_AT].copy_from_slice(&self.salt);
        let check = check(&out);
        out[CHECK_AT..].copy_from_slice(&check);
        out
    }

    pub(super) fn decode(name: &str, bytes: &[u8; HEADER_LEN]) -> Result<Self, FormatError> {
        let what = || "the header of an object".to_owned();
        if !bytes.starts_with(MAGIC) {
            return Err(FormatError::NotOurs { what: name.to_owned() });
        }
        // Before the version, so that a flipped bit does not pass for a later one.
        if bytes[CHECK_AT..] != check(bytes) {
            return Err(FormatError::Damaged { what: what() });
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != VERSION {
            return Err(FormatError::UnknownVersion { version });
        }
        if bytes[11] & !ENCRYPTED != 0 || bytes[12..16] != [0; 4] {
            return Err(FormatError::Invalid { what: what(), why: "flags that are not known".to_owned() });
        }
        let (mut id, mut salt) = ([0; 8], [0; 32]);
        id.copy_from_slice(&bytes[16..24]);
        salt.copy_from_slice(&bytes[24..CHECK_AT]);
        Ok(Self { kind: bytes[10], key: (bytes[11] == ENCRYPTED).then_some(id), salt })
    }
}

/// First 8 bytes of BLAKE3 of all before it. It only tells accidents apart: the seals are bound to the whole header.
fn check(header: &[u8; HEADER_LEN]) -> [u8; 8] {
    let mut out = [0; 8];
    out.copy_from_slice(&blake3::hash(&header[..CHECK_AT]).as_bytes()[..8]);
    out
}
