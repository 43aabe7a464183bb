//! Opens sealed objects.

use super::frame::Frame;
use super::header::Header;
use super::key::Key;
use super::{HEADER_LEN, KeyRing, LAST, ObjectAddress};
use crate::error::FormatError;

/// What a frame turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameOpened {
    /// Data.
    Data,
    /// The last frame.
    Last,
}

/// Opens frames of one object, from several threads if need be.
pub struct FrameOpener {
    key: Key,
    encrypted: bool,
    limit: usize,
}

impl FrameOpener {
    /// Reads the header of the object at `address`.
    ///
    /// # Errors
    /// `NotOurs`, `UnknownVersion`, `KeyUnknown`, `Truncated`, or `Damaged` if it is another kind of object.
    pub fn new(address: &ObjectAddress<'_>, header: &[u8], keys: &KeyRing) -> Result<Self, FormatError> {
        let wrong = || FormatError::Damaged { what: "the header of an object".to_owned() };
        let Some(fixed) = header.first_chunk::<HEADER_LEN>() else {
            return Err(FormatError::Truncated { what: "the header of an object".to_owned() });
        };
        let parsed = Header::decode(address.name, fixed)?;
        let key = match parsed.key {
            // A clear object among encrypted ones is nothing that we wrote.
            None if keys.is_encrypted() => return Err(wrong()),
            None => None,
            Some(id) => {
                Some(keys.find(&id).ok_or_else(|| FormatError::KeyUnknown { id: crate::hex::encode(&id) })?)
            }
        };
        if parsed.kind != address.kind as u8 {
            return Err(wrong());
        }
        let (encrypted, limit) = (key.is_some(), address.kind.max_frame_raw());
        Ok(Self { key: Key::derive(address, fixed, &parsed.salt, key)?, encrypted, limit })
    }

    /// Whether the object is encrypted.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Opens one frame (header, payload and tag) into `out`.
    ///
    /// # Errors
    /// `Damaged` unless it is exactly the frame of this number of this object.
    pub fn open(&self, number: u32, frame: &[u8], out: &mut Vec<u8>) -> Result<FrameOpened, FormatError> {
        let opened = Frame::split(number, frame, self.limit).and_then(|frame| {
            self.key.open(number, &frame, out)?;
            Ok(if frame.flags() & LAST != 0 { FrameOpened::Last } else { FrameOpened::Data })
        });
        // What failed its check is nobody's to see.
        opened.inspect_err(|_| out.clear())
    }
}
