//! A stretched passphrase, kept so that the next process need not stretch it again.
//!
//! What is kept is sealed under the passphrase itself: of no use without it, and a wrong passphrase does not open it but is
//! stretched, and fails, as ever. It belongs to one slot's salt: a slot of a rotated key has another.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;

use super::stretch;
use crate::error::FormatError;

/// Keeps short secrets from one process to the next, where nobody else can read them. It may forget at any time.
pub trait Remembered {
    /// What was kept under a name of letters and digits.
    fn recall(&self, name: &str) -> Option<Vec<u8>>;

    /// Keeps it, if it can.
    fn remember(&self, name: &str, bytes: &[u8]);
}

/// The stretched passphrase, from memory or by stretching it.
pub(super) fn stretched(
    memory: &dyn Remembered,
    text: &str,
    salt: &[u8; 32],
    argon: [u32; 3],
) -> Result<[u8; 32], FormatError> {
    let name = name(salt, argon);
    let cipher = cipher(text, salt)?;
    let opened = memory.recall(&name).and_then(|mut kept| {
        let opened = cipher.open_in_place(nonce(), Aad::from(name.as_bytes()), &mut kept).ok()?;
        <[u8; 32]>::try_from(&*opened).ok()
    });
    if let Some(known) = opened {
        return Ok(known);
    }
    let made = stretch(text, salt, argon)?;
    let mut sealed = made.to_vec();
    cipher
        .seal_in_place_append_tag(nonce(), Aad::from(name.as_bytes()), &mut sealed)
        .map_err(|_| FormatError::Engine { what: "encryption" })?;
    memory.remember(&name, &sealed);
    Ok(made)
}

fn name(salt: &[u8; 32], argon: [u32; 3]) -> String {
    let mut what = salt.to_vec();
    argon.iter().for_each(|value| what.extend_from_slice(&value.to_le_bytes()));
    let hash = blake3::derive_key("everpoint remembered passphrase name v1", &what);
    crate::hex::encode(hash.get(..16).unwrap_or_default())
}

/// The same key seals the same text only, so that a constant nonce is right.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn cipher(text: &str, salt: &[u8; 32]) -> Result<LessSafeKey, FormatError> {
    let failed = |_| FormatError::Engine { what: "key derivation" };
    let mut key = [0; 32];
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(text.as_bytes());
    let info: [&[u8]; 1] = [b"everpoint remembered passphrase v1"];
    extracted.expand(&info, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut key)).map_err(failed)?;
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).map_err(failed)?))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;
    use crate::keyslot::{KeyText, unwrap_remembering, wrap};
    use crate::seal::{DataKey, RepositoryId};

    #[derive(Default)]
    struct Notes {
        kept: RefCell<BTreeMap<String, Vec<u8>>>,
        recalled: RefCell<usize>,
    }

    impl Remembered for Notes {
        fn recall(&self, name: &str) -> Option<Vec<u8>> {
            let kept = self.kept.borrow().get(name).cloned();
            *self.recalled.borrow_mut() += usize::from(kept.is_some());
            kept
        }

        fn remember(&self, name: &str, bytes: &[u8]) {
            self.kept.borrow_mut().insert(name.to_owned(), bytes.to_owned());
        }
    }

    #[test]
    fn a_passphrase_is_stretched_once_and_a_wrong_or_rotated_one_is_still_noticed() {
        let (notes, id) = (Notes::default(), RepositoryId([7; 16]));
        let keys = vec![DataKey::new([1; 8], [2; 32])];
        let (right, wrong) = (
            KeyText::parse("correct horse battery").unwrap(),
            KeyText::parse("wrong horse battery").unwrap(),
        );
        let slot = wrap(&keys, &right, [5; 32], id, 1).unwrap();
        let open = |slot: &[u8], key: &KeyText| unwrap_remembering(slot, key, id, 1, Some(&notes));
        assert_eq!(open(&slot, &right).unwrap(), keys);
        let kept = notes.kept.borrow().clone();
        assert_eq!(open(&slot, &right).unwrap(), keys);
        assert_eq!((*notes.recalled.borrow(), notes.kept.borrow().len()), (1, 1));
        let stretched = stretch("correct horse battery", &[5; 32], super::super::ARGON).unwrap();
        assert!(kept.values().all(|bytes| !bytes.windows(8).any(|part| part == stretched.get(..8).unwrap())));

        assert!(matches!(open(&slot, &wrong), Err(FormatError::WrongKey)));
        assert_eq!(open(&slot, &right).unwrap(), keys, "what a wrong one left does no harm");
        let rotated = wrap(&keys, &wrong, [6; 32], id, 1).unwrap();
        assert!(matches!(open(&rotated, &right), Err(FormatError::WrongKey)));
        assert_eq!(open(&rotated, &wrong).unwrap(), keys);
        for bytes in notes.kept.borrow_mut().values_mut() {
            bytes.truncate(9);
        }
        assert_eq!(open(&slot, &right).unwrap(), keys, "what is damaged is made again");
    }
}
