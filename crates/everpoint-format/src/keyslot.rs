//! Key slots: the data keys of a repository, wrapped by one repository key.
//!
//! Binary: magic, version byte, kind of key (1 generated, 2 passphrase), Argon2id parameters, salt, length and wrapped keys
//! (AES-256-GCM under a key derived from the repository key, bound to repository and slot number), checksum. The checksum
//! tells a damaged slot from a wrong key, so that nobody doubts a good key or throws it away.

mod age;
mod remembered;

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;

use crate::error::FormatError;
use crate::seal::{DataKey, RepositoryId};
use crate::varint::{Fields, put, put_bytes};

pub use self::age::AgeIdentity;
pub use self::remembered::Remembered;

const MAGIC: &[u8; 8] = b"EVPTKEY\n";
const VERSION: u8 = 1;
const PREFIX: &str = "everpoint-key-1-";
/// Most data keys of a slot: one is added with every rotation.
pub const MAX_KEYS: usize = 10_000;
/// Shortest passphrase, in characters.
pub const MIN_PASSPHRASE: usize = 12;
/// Argon2id: memory in KiB, passes, lanes.
const ARGON: [u32; 3] = [65_536, 3, 1];
/// A slot that asks for more is refused instead of exhausting the machine.
const ARGON_LIMIT: [u32; 3] = [1 << 20, 64, 16];

/// A repository key as a person keeps it. It never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyText(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Generated([u8; 32]),
    Passphrase(String),
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText(..)")
    }
}

fn check(secret: &[u8; 32]) -> String {
    let hash = blake3::derive_key("everpoint key text checksum v1", secret);
    crate::hex::encode(hash.get(..4).unwrap_or_default())
}

impl KeyText {
    /// A generated key of 32 random bytes.
    #[must_use]
    pub const fn generate(random: [u8; 32]) -> Self {
        Self(Kind::Generated(random))
    }

    /// Reads a key: `everpoint-key-1-` with 64 hex digits and a checksum of 8, or any other text of at least 12
    /// characters as a passphrase. White space around it does not count.
    ///
    /// # Errors
    /// `Invalid` if a generated key has a typing error, or a passphrase is too short.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let wrong = |why: &str| FormatError::Invalid { what: "the key".to_owned(), why: why.to_owned() };
        let text = text.trim();
        let Some(digits) = text.strip_prefix(PREFIX) else {
            if text.chars().count() < MIN_PASSPHRASE {
                return Err(wrong("a passphrase needs at least 12 characters"));
            }
            return Ok(Self(Kind::Passphrase(text.to_owned())));
        };
        let digits: String = digits.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
        let (body, sum) = digits.split_at_checked(64).ok_or_else(|| wrong("it is cut off"))?;
        let secret = crate::hex::decode(body).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let secret = secret.ok_or_else(|| wrong("it is not made of hex digits"))?;
        if check(&secret) != sum {
            return Err(wrong("its checksum does not agree: a typing error, or a part is missing"));
        }
        Ok(Self(Kind::Generated(secret)))
    }

    /// Whether a passphrase is the first line of what `everpoint key age` or `age-keygen` prints: its identity opens packages,
    /// and no repository but one that was made with it.
    #[must_use]
    pub fn is_age_identity(&self) -> bool {
        const FIRST: [&str; 3] = ["age-secret-key-1", "# public key: age1", "# created: "];
        let Kind::Passphrase(text) = &self.0 else { return false };
        let text = text.to_ascii_lowercase();
        FIRST.iter().any(|first| text.starts_with(first))
    }

    /// The text to keep. The only way by which the secret comes out.
    #[must_use]
    pub fn reveal(&self) -> String {
        match &self.0 {
            Kind::Generated(secret) => format!("{PREFIX}{}-{}", crate::hex::encode(secret), check(secret)),
            Kind::Passphrase(text) => text.clone(),
        }
    }

    const fn kind(&self) -> u8 {
        match self.0 {
            Kind::Generated(_) => 1,
            Kind::Passphrase(_) => 2,
        }
    }

    fn wrapping_key(
        &self,
        repository: RepositoryId,
        slot: u32,
        salt: &[u8; 32],
        argon: [u32; 3],
        memory: Option<&dyn Remembered>,
    ) -> Result<LessSafeKey, FormatError> {
        let stretched = match (&self.0, memory) {
            (Kind::Generated(secret), _) => *secret,
            (Kind::Passphrase(text), None) => stretch(text, salt, argon)?,
            (Kind::Passphrase(text), Some(memory)) => remembered::stretched(memory, text, salt, argon)?,
        };
        let failed = |_| FormatError::Engine { what: "key derivation" };
        let slot = slot.to_le_bytes();
        let info: [&[u8]; 3] = [b"everpoint key slot v1", &repository.0, &slot];
        let mut key = [0; 32];
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&stretched);
        extracted.expand(&info, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut key)).map_err(failed)?;
        Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).map_err(failed)?))
    }
}

fn stretch(text: &str, salt: &[u8; 32], argon: [u32; 3]) -> Result<[u8; 32], FormatError> {
    let failed = |_| FormatError::Engine { what: "stretching the passphrase" };
    let [memory, passes, lanes] = argon;
    let params = argon2::Params::new(memory, passes, lanes, Some(32)).map_err(failed)?;
    let mut out = [0; 32];
    argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
        .hash_password_into(text.as_bytes(), salt, &mut out)
        .map_err(failed)?;
    Ok(out)
}

/// Wraps data keys; `salt` is 32 fresh random bytes.
///
/// # Errors
/// If the cipher refuses.
pub fn wrap(
    keys: &[DataKey],
    key: &KeyText,
    salt: [u8; 32],
    repository: RepositoryId,
    slot: u32,
) -> Result<Vec<u8>, FormatError> {
    if keys.is_empty() || keys.len() > MAX_KEYS {
        return Err(FormatError::Invalid {
            what: format!("key slot {slot}"),
            why: format!("{} keys", keys.len()),
        });
    }
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&[VERSION, key.kind()]);
    ARGON.iter().for_each(|value| put(&mut out, u64::from(*value)));
    out.extend_from_slice(&salt);
    let mut body = Vec::new();
    put(&mut body, keys.len() as u64);
    for key in keys {
        body.extend_from_slice(&key.id());
        body.extend_from_slice(key.secret());
    }
    let cipher = key.wrapping_key(repository, slot, &salt, ARGON, None)?;
    // The key is derived from a fresh salt, so it seals this one message: a constant nonce is right.
    cipher
        .seal_in_place_append_tag(Nonce::assume_unique_for_key([0; 12]), Aad::from(&out), &mut body)
        .map_err(|_| FormatError::Engine { what: "encryption" })?;
    put_bytes(&mut out, &body);
    let sum = slot_check(&out);
    out.extend_from_slice(&sum);
    Ok(out)
}

fn slot_check(bytes: &[u8]) -> [u8; 8] {
    blake3::hash(bytes).as_bytes().first_chunk().copied().unwrap_or_default()
}

/// Opens a slot.
///
/// # Errors
/// `WrongKey` if the key is not the one; `Damaged`, `NotOurs`, `UnknownVersion`, `Truncated`, `Invalid` if it is no slot.
pub fn unwrap(
    bytes: &[u8],
    key: &KeyText,
    repository: RepositoryId,
    slot: u32,
) -> Result<Vec<DataKey>, FormatError> {
    unwrap_remembering(bytes, key, repository, slot, None)
}

/// As [`unwrap`]; a passphrase that was stretched before is not stretched again.
///
/// # Errors
/// As [`unwrap`].
pub fn unwrap_remembering(
    bytes: &[u8],
    key: &KeyText,
    repository: RepositoryId,
    slot: u32,
    memory: Option<&dyn Remembered>,
) -> Result<Vec<DataKey>, FormatError> {
    let what = || format!("key slot {slot}");
    if !bytes.starts_with(MAGIC) {
        return Err(FormatError::NotOurs { what: what() });
    }
    let cut = || FormatError::Truncated { what: what() };
    let (bytes, sum) = bytes.split_last_chunk::<8>().ok_or_else(cut)?;
    if slot_check(bytes) != *sum {
        return Err(FormatError::Damaged { what: what() });
    }
    let mut fields = Fields(bytes);
    fields.array::<8>()?;
    let version = fields.byte()?;
    if version != VERSION {
        return Err(FormatError::UnknownVersion { version: u16::from(version) });
    }
    let kind = fields.byte()?;
    let argon = [fields.number32()?, fields.number32()?, fields.number32()?];
    if argon.iter().zip(ARGON_LIMIT).any(|(value, limit)| *value > limit) {
        return Err(FormatError::Invalid { what: what(), why: "stretching beyond all measure".to_owned() });
    }
    let salt = fields.array()?;
    let head = bytes.get(..bytes.len() - fields.0.len()).unwrap_or_default();
    let mut body = fields.bytes()?;
    if !fields.0.is_empty() {
        return Err(FormatError::Invalid { what: what(), why: "something follows its end".to_owned() });
    }
    if kind != key.kind() {
        return Err(FormatError::WrongKey);
    }
    let cipher = key.wrapping_key(repository, slot, &salt, argon, memory)?;
    let opened = cipher
        .open_in_place(Nonce::assume_unique_for_key([0; 12]), Aad::from(head), &mut body)
        .map_err(|_| FormatError::WrongKey)?;
    let mut fields = Fields(&*opened);
    let count = fields.number()?;
    let mut keys = Vec::new();
    for _ in 0..count {
        keys.push(DataKey::new(fields.array()?, fields.array()?));
    }
    // Without a key the repository would be taken for one that is not encrypted.
    if keys.is_empty() {
        return Err(FormatError::Invalid { what: what(), why: "it holds no key".to_owned() });
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: RepositoryId = RepositoryId([7; 16]);

    #[test]
    fn a_key_opens_its_slot_and_no_other_does() {
        let keys = vec![DataKey::new([1; 8], [2; 32]), DataKey::new([3; 8], [4; 32])];
        for text in [KeyText::generate([9; 32]), KeyText::parse("correct horse battery").unwrap()] {
            let slot = wrap(&keys, &text, [5; 32], HERE, 1).unwrap();
            assert_eq!(unwrap(&slot, &text, HERE, 1).unwrap(), keys);
            let again = KeyText::parse(&text.reveal()).unwrap();
            assert_eq!(unwrap(&slot, &again, HERE, 1).unwrap(), keys);
            assert!(matches!(unwrap(&slot, &text, HERE, 2), Err(FormatError::WrongKey)));
            assert!(matches!(unwrap(&slot, &text, RepositoryId([8; 16]), 1), Err(FormatError::WrongKey)));
            assert!(matches!(
                unwrap(&slot, &KeyText::generate([8; 32]), HERE, 1),
                Err(FormatError::WrongKey)
            ));
        }
    }

    #[test]
    fn an_age_identity_is_told_from_a_key() {
        for text in ["# public key: age1x", "AGE-SECRET-KEY-1XYZ", "# created: 2026-01-29T14:30:00Z"] {
            assert!(KeyText::parse(text).unwrap().is_age_identity(), "{text}");
        }
        for text in ["correct horse battery", &KeyText::generate([9; 32]).reveal()] {
            assert!(!KeyText::parse(text).unwrap().is_age_identity(), "{text}");
        }
    }

    #[test]
    fn a_typing_error_in_a_generated_key_is_noticed() {
        let text = KeyText::generate([0x3c; 32]).reveal();
        assert!(KeyText::parse(&text.replacen("3c", "3d", 1)).is_err());
        assert!(KeyText::parse(text.get(..60).unwrap()).is_err());
        assert!(KeyText::parse("short").is_err());
        assert_eq!(format!("{:?}", KeyText::parse(&text).unwrap()), "KeyText(..)");
    }
}
