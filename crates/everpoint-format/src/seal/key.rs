//! The subkey of one object: it exists for that object only.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;

use super::frame::{Frame, damaged};
use super::{DataKey, FRAME_HEADER_LEN, ObjectAddress, TAG_LEN};
use crate::error::FormatError;

/// Encrypts and authenticates, or only sums.
pub(super) enum Key {
    Cipher(LessSafeKey),
    Checksum([u8; 32]),
}

impl Key {
    /// The subkey of the object at `address` with this header.
    pub(super) fn derive(
        address: &ObjectAddress<'_>,
        header: &[u8],
        salt: &[u8],
        key: Option<&DataKey>,
    ) -> Result<Self, FormatError> {
        let kind = [address.kind as u8];
        let info: [&[u8]; 5] =
            [b"everpoint object v1", &address.repository.0, &kind, header, address.name.as_bytes()];
        let Some(key) = key else {
            let mut hasher = blake3::Hasher::new_derive_key("everpoint clear object v1");
            hasher.update(salt);
            info.iter().for_each(|part| {
                hasher.update(part);
            });
            return Ok(Self::Checksum(*hasher.finalize().as_bytes()));
        };
        let failed = |_| FormatError::Engine { what: "key derivation" };
        let mut subkey = [0; 32];
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key.secret());
        extracted.expand(&info, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut subkey)).map_err(failed)?;
        Ok(Self::Cipher(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &subkey).map_err(failed)?)))
    }

    /// Encrypts in place; the tag.
    pub(super) fn seal(
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
                tag.as_ref().try_into().map_err(|_| FormatError::Engine { what: "encryption" })
            }
            Self::Checksum(key) => Ok(checksum(key, number, &head, payload)),
        }
    }

    /// Checks the tag and expands the payload into `out`, which holds exactly the raw bytes then.
    pub(super) fn open(&self, number: u32, frame: &Frame<'_>, out: &mut Vec<u8>) -> Result<(), FormatError> {
        let wrong = || damaged(number);
        let cipher = match self {
            Self::Checksum(key) => {
                let known = checksum(key, number, frame.head, frame.payload);
                return if known == *frame.tag { frame.expand(frame.payload, out) } else { Err(wrong()) };
            }
            Self::Cipher(cipher) => cipher,
        };
        let decrypt = |into: &mut [u8]| {
            cipher
                .open_separate_gather(nonce(number), Aad::from(frame.head), frame.payload, frame.tag, into)
                .map_err(|_| wrong())
        };
        if frame.is_raw() {
            // What is not compressed is decrypted to where it belongs.
            out.resize(frame.payload.len(), 0);
            return decrypt(out);
        }
        let mut payload = vec![0; frame.payload.len()];
        decrypt(&mut payload)?;
        frame.expand(&payload, out)
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
