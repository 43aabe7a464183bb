//! The index of a pack: what its frames hold, by content, so that an interrupted backup's frames are found again.

use crate::error::FormatError;
use crate::seal::FrameRef;
use crate::varint::{Fields, put};

const VERSION: u8 = 1;

/// A run of bytes in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PackRun {
    /// The frame that holds it.
    pub frame: FrameRef,
    /// Where it begins in the raw frame.
    pub skip: u32,
    /// Bytes.
    pub length: u32,
    /// First 16 bytes of BLAKE3 over the BLAKE3 of each of its 8 KiB blocks.
    pub hash: [u8; 16],
    /// It is pages of a relation.
    pub pages: bool,
}

/// Encodes the index: a version byte, the number of runs, the runs.
#[must_use]
pub fn encode_index(runs: &[PackRun]) -> Vec<u8> {
    let mut out = vec![VERSION];
    put(&mut out, runs.len() as u64);
    for run in runs {
        for value in
            [run.frame.number, run.frame.offset, run.frame.stored, run.frame.raw, run.skip, run.length]
        {
            put(&mut out, u64::from(value));
        }
        out.push(u8::from(run.pages));
        out.extend_from_slice(&run.hash);
    }
    out
}

/// Decodes it.
///
/// # Errors
/// `UnknownVersion`, `Truncated`, `Invalid`.
pub fn decode_index(bytes: &[u8]) -> Result<Vec<PackRun>, FormatError> {
    let mut fields = Fields(bytes);
    let version = fields.byte()?;
    if version != VERSION {
        return Err(FormatError::UnknownVersion { version: u16::from(version) });
    }
    let invalid =
        |why: &str| FormatError::Invalid { what: "the index of a pack".to_owned(), why: why.to_owned() };
    let count = fields.number()?;
    let mut runs = Vec::new();
    for _ in 0..count {
        let f = &mut fields;
        let frame = FrameRef {
            number: f.number32()?,
            offset: f.number32()?,
            stored: f.number32()?,
            raw: f.number32()?,
        };
        let (skip, length) = (f.number32()?, f.number32()?);
        if u64::from(skip) + u64::from(length) > u64::from(frame.raw) {
            return Err(invalid("a run that reaches beyond its frame"));
        }
        runs.push(PackRun { frame, skip, length, pages: f.byte()? != 0, hash: f.array()? });
    }
    if fields.0.is_empty() { Ok(runs) } else { Err(invalid("something follows its end")) }
}
