//! Sealing: every stored byte is under an authenticated checksum, and with a key encrypted.
//!
//! An object is a header of [`HEADER_LEN`] bytes and frames; the last frame carries the last-flag and may be empty. Each
//! object draws a random salt and derives a subkey of its own from the data key, bound to repository, kind and name, so
//! that a retried name never reuses a nonce, and an object in another's place fails. The nonce is the frame's number.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;

use crate::codec::{Codec, Compressor, expand};
use crate::error::FormatError;
pub use crate::stream::{FrameStreamReader, FrameStreamWriter};

/// Bytes before the first frame.
pub const HEADER_LEN: usize = 64;
/// Bytes of a frame before its payload.
pub const FRAME_HEADER_LEN: usize = 12;
/// Bytes of a frame after its payload.
pub const TAG_LEN: usize = 16;
/// Raw bytes of the largest frame. A pack's index may be larger than a data frame, up to [`MAX_TRAILER_RAW`].
pub const MAX_FRAME_RAW: usize = 1 << 20;
/// Raw bytes of the largest last frame.
pub const MAX_TRAILER_RAW: usize = 64 << 20;
const MAGIC: &[u8; 8] = b"EVPTOBJ\n";
const VERSION: u16 = 1;
const ENCRYPTED: u8 = 1;
const LAST: u8 = 1;

/// Identifies a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RepositoryId(pub [u8; 16]);

impl RepositoryId {
    /// Reads 32 hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        crate::hex::decode(text)?.try_into().ok().map(Self)
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::hex::encode(&self.0))
    }
}

/// A key that seals objects. Its secret never shows.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey {
    id: [u8; 8],
    secret: [u8; 32],
}

impl DataKey {
    /// A key of 32 random bytes under an id.
    #[must_use]
    pub const fn new(id: [u8; 8], secret: [u8; 32]) -> Self {
        Self { id, secret }
    }

    /// Its id, which stands in clear in objects.
    #[must_use]
    pub const fn id(&self) -> [u8; 8] {
        self.id
    }

    pub(crate) const fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({})", crate::hex::encode(&self.id))
    }
}

/// The data keys of a repository; empty if it is not encrypted.
#[derive(Debug, Clone, Default)]
pub struct KeyRing {
    keys: Vec<DataKey>,
}

impl KeyRing {
    /// No encryption: checksums only.
    #[must_use]
    pub const fn clear() -> Self {
        Self { keys: Vec::new() }
    }

    /// These keys; new objects use the last one.
    #[must_use]
    pub const fn new(keys: Vec<DataKey>) -> Self {
        Self { keys }
    }

    /// The key for new objects.
    #[must_use]
    pub fn current(&self) -> Option<&DataKey> {
        self.keys.last()
    }

    /// The key of this id.
    #[must_use]
    pub fn find(&self, id: &[u8; 8]) -> Option<&DataKey> {
        self.keys.iter().find(|key| key.id == *id)
    }

    /// Whether new objects are encrypted.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        !self.keys.is_empty()
    }

    /// All keys, oldest first.
    #[must_use]
    pub fn keys(&self) -> &[DataKey] {
        &self.keys
    }
}

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

enum Key {
    Cipher(LessSafeKey),
    Checksum([u8; 32]),
}

impl Key {
    fn derive(
        address: &ObjectAddress<'_>,
        header: &[u8],
        salt: &[u8],
        key: Option<&DataKey>,
    ) -> Result<Self, FormatError> {
        let kind = [address.kind as u8];
        let info: [&[u8]; 5] = [
            b"everpoint object v1",
            &address.repository.0,
            &kind,
            header,
            address.name.as_bytes(),
        ];
        let Some(key) = key else {
            let mut hasher = blake3::Hasher::new_derive_key("everpoint clear object v1");
            hasher.update(salt);
            info.iter().for_each(|part| {
                hasher.update(part);
            });
            return Ok(Self::Checksum(*hasher.finalize().as_bytes()));
        };
        let failed = |_| FormatError::Engine {
            what: "key derivation",
        };
        let mut subkey = [0; 32];
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key.secret());
        extracted
            .expand(&info, hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut subkey))
            .map_err(failed)?;
        Ok(Self::Cipher(LessSafeKey::new(
            UnboundKey::new(&AES_256_GCM, &subkey).map_err(failed)?,
        )))
    }

    fn seal(
        &self,
        number: u32,
        head: [u8; FRAME_HEADER_LEN],
        payload: &mut [u8],
    ) -> Result<[u8; TAG_LEN], FormatError> {
        match self {
            Self::Cipher(cipher) => {
                let tag = cipher
                    .seal_in_place_separate_tag(nonce(number), Aad::from(head), payload)
                    .map_err(|_| FormatError::Engine { what: "encryption" })?;
                tag.as_ref()
                    .try_into()
                    .map_err(|_| FormatError::Engine { what: "encryption" })
            }
            Self::Checksum(key) => Ok(checksum(key, number, &head, payload)),
        }
    }

    /// Checks the tag and decrypts in place.
    fn open(&self, number: u32, head: [u8; FRAME_HEADER_LEN], sealed: &mut [u8]) -> Result<(), FormatError> {
        let wrong = || FormatError::Damaged {
            what: format!("frame {number}"),
        };
        match self {
            Self::Cipher(cipher) => cipher
                .open_in_place(nonce(number), Aad::from(head), sealed)
                .map(|_| ())
                .map_err(|_| wrong()),
            Self::Checksum(key) => {
                let (payload, tag) = sealed
                    .split_at_checked(sealed.len().saturating_sub(TAG_LEN))
                    .ok_or_else(wrong)?;
                if checksum(key, number, &head, payload) == tag {
                    Ok(())
                } else {
                    Err(wrong())
                }
            }
        }
    }
}

fn nonce(number: u32) -> Nonce {
    let mut bytes = [0; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn checksum(key: &[u8; 32], number: u32, head: &[u8], payload: &[u8]) -> [u8; TAG_LEN] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&number.to_le_bytes()).update(head).update(payload);
    let mut tag = [0; TAG_LEN];
    hasher.finalize_xof().fill(&mut tag);
    tag
}

fn make_header(kind: ObjectKind, key: Option<&DataKey>, salt: &[u8; 32]) -> [u8; HEADER_LEN] {
    let mut out = Vec::with_capacity(HEADER_LEN);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[kind as u8, if key.is_some() { ENCRYPTED } else { 0 }, 0, 0, 0, 0]);
    out.extend_from_slice(&key.map_or([0; 8], DataKey::id));
    out.extend_from_slice(salt);
    let check = blake3::hash(&out);
    out.extend(check.as_bytes().iter().take(8));
    out.try_into().unwrap_or([0; HEADER_LEN])
}

/// Seals the frames of one new object.
pub struct FrameSealer {
    header: [u8; HEADER_LEN],
    key: Key,
    number: u32,
    offset: u64,
}

impl FrameSealer {
    /// A sealer for the object at `address`; `salt` is 32 fresh random bytes.
    ///
    /// # Errors
    /// If the cipher refuses.
    pub fn new(address: &ObjectAddress<'_>, keys: &KeyRing, salt: [u8; 32]) -> Result<Self, FormatError> {
        let header = make_header(address.kind, keys.current(), &salt);
        let key = Key::derive(address, &header, &salt, keys.current())?;
        Ok(Self {
            header,
            key,
            number: 0,
            offset: HEADER_LEN as u64,
        })
    }

    /// The first bytes of the object; to be written first.
    #[must_use]
    pub const fn header(&self) -> &[u8] {
        &self.header
    }

    /// Bytes of the object so far.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends a sealed frame to `out`.
    ///
    /// # Errors
    /// If `raw` is larger than [`MAX_FRAME_RAW`] or the object than 4 GiB.
    pub fn seal(
        &mut self,
        compressor: &mut Compressor,
        codec: Codec,
        raw: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<FrameRef, FormatError> {
        if raw.len() > MAX_FRAME_RAW {
            return Err(too_large("a frame"));
        }
        self.frame(compressor, codec, raw, 0, out)
    }

    /// Appends the last frame, which carries `trailer`.
    ///
    /// # Errors
    /// If the trailer is larger than [`MAX_TRAILER_RAW`].
    pub fn finish(
        &mut self,
        compressor: &mut Compressor,
        trailer: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<FrameRef, FormatError> {
        if trailer.len() > MAX_TRAILER_RAW {
            return Err(too_large("a last frame"));
        }
        self.frame(compressor, Codec::Zstd(1), trailer, LAST, out)
    }

    fn frame(
        &mut self,
        compressor: &mut Compressor,
        codec: Codec,
        raw: &[u8],
        flags: u8,
        out: &mut Vec<u8>,
    ) -> Result<FrameRef, FormatError> {
        let start = out.len();
        out.extend_from_slice(&[0; FRAME_HEADER_LEN]);
        let tag = compressor.append(codec, raw, out)?;
        let payload = out.len() - start - FRAME_HEADER_LEN;
        let length = |bytes: usize| u32::try_from(bytes).map_err(|_| too_large("a frame"));
        let mut head = [0; FRAME_HEADER_LEN];
        head[..4].copy_from_slice(&length(payload)?.to_le_bytes());
        head[4..8].copy_from_slice(&length(raw.len())?.to_le_bytes());
        head[8] = tag;
        head[9] = flags;
        if let Some(place) = out.get_mut(start..start + FRAME_HEADER_LEN) {
            place.copy_from_slice(&head);
        }
        let sealed = self.key.seal(
            self.number,
            head,
            out.get_mut(start + FRAME_HEADER_LEN..).unwrap_or_default(),
        )?;
        out.extend_from_slice(&sealed);
        let stored = length(out.len() - start)?;
        let offset = u32::try_from(self.offset).unwrap_or(u32::MAX);
        let made = FrameRef {
            number: self.number,
            offset,
            stored,
            raw: length(raw.len())?,
        };
        self.number = self.number.checked_add(1).ok_or_else(|| too_large("an object"))?;
        self.offset += u64::from(stored);
        Ok(made)
    }
}

fn too_large(what: &str) -> FormatError {
    FormatError::Invalid {
        what: what.to_owned(),
        why: "it is too large".to_owned(),
    }
}

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
}

impl FrameOpener {
    /// Reads the header of the object at `address`.
    ///
    /// # Errors
    /// `NotOurs`, `UnknownVersion`, `KeyUnknown`, `Truncated`, or `Damaged` if it is another kind of object.
    pub fn new(address: &ObjectAddress<'_>, header: &[u8], keys: &KeyRing) -> Result<Self, FormatError> {
        let Some(fixed) = header.first_chunk::<HEADER_LEN>() else {
            return Err(FormatError::Truncated {
                what: "the header of an object".to_owned(),
            });
        };
        if !fixed.starts_with(MAGIC) {
            return Err(FormatError::NotOurs {
                what: address.name.to_owned(),
            });
        }
        let version = u16::from_le_bytes([fixed[8], fixed[9]]);
        if version != VERSION {
            return Err(FormatError::UnknownVersion { version });
        }
        let wrong = || FormatError::Damaged {
            what: "the header of an object".to_owned(),
        };
        let (body, check) = fixed.split_at(HEADER_LEN - 8);
        if blake3::hash(body).as_bytes().get(..8) != Some(check) || fixed[10] != address.kind as u8 {
            return Err(wrong());
        }
        let encrypted = fixed[11] & ENCRYPTED != 0;
        let id: [u8; 8] = fixed[16..24].try_into().map_err(|_| wrong())?;
        let key = match (encrypted, keys.find(&id)) {
            (false, _) if keys.is_encrypted() => return Err(wrong()),
            (false, _) => None,
            (true, Some(key)) => Some(key),
            (true, None) => {
                return Err(FormatError::KeyUnknown {
                    id: crate::hex::encode(&id),
                });
            }
        };
        Ok(Self {
            key: Key::derive(address, fixed, &fixed[24..56], key)?,
            encrypted,
        })
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
        let (stored, raw) = frame_lengths(frame)?;
        let wrong = || FormatError::Damaged {
            what: format!("frame {number}"),
        };
        let (head, body) = frame.split_first_chunk::<FRAME_HEADER_LEN>().ok_or_else(wrong)?;
        if stored != frame.len() {
            return Err(wrong());
        }
        let mut sealed = body.to_vec();
        self.key.open(number, *head, &mut sealed)?;
        let payload = sealed.get(..body.len() - TAG_LEN).ok_or_else(wrong)?;
        expand(head[8], payload, raw, out)?;
        Ok(if head[9] & LAST != 0 {
            FrameOpened::Last
        } else {
            FrameOpened::Data
        })
    }
}

/// Stored bytes (header and tag included) and raw bytes of the frame that begins here.
///
/// # Errors
/// `Truncated` or `Invalid`.
pub fn frame_lengths(frame: &[u8]) -> Result<(usize, usize), FormatError> {
    let Some(head) = frame.first_chunk::<FRAME_HEADER_LEN>() else {
        return Err(FormatError::Truncated {
            what: "the header of a frame".to_owned(),
        });
    };
    let payload = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let raw = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    let limit = if head[9] & LAST == 0 {
        MAX_FRAME_RAW
    } else {
        MAX_TRAILER_RAW
    };
    if raw > limit || payload > limit {
        return Err(FormatError::Invalid {
            what: "the header of a frame".to_owned(),
            why: format!("{raw} bytes"),
        });
    }
    Ok((FRAME_HEADER_LEN + payload + TAG_LEN, raw))
}
