//! The age identity that belongs to a repository key: daily packages are encrypted to it when no other recipient is
//! configured, so that the key and a package are enough to restore everything.

use std::fmt;

use bech32::{Bech32, Hrp};

use super::{ARGON, KeyText, Kind, stretch};
use crate::error::FormatError;

const CONTEXT: &str = "everpoint age identity of a repository key v1";
const SALT_CONTEXT: &str = "everpoint age identity of a passphrase, salt v1";
const PREFIX: Hrp = Hrp::parse_unchecked("age-secret-key-");

/// An X25519 identity as `age-keygen` writes one. It never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub struct AgeIdentity(String);

impl fmt::Debug for AgeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgeIdentity(..)")
    }
}

impl AgeIdentity {
    /// `AGE-SECRET-KEY-1…`, the text that `age --identity` reads from a file. The only way by which the secret comes out.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl KeyText {
    /// The age identity of this key: always the same for the same key, and of no use for finding out the key.
    ///
    /// A passphrase is stretched with a salt that is the same for everybody, as nothing but the passphrase is known where a
    /// package has to be opened: guessing it is as slow as for a key slot, but one table of guesses serves for all.
    ///
    /// # Errors
    /// If a passphrase can't be stretched.
    pub fn age_identity(&self) -> Result<AgeIdentity, FormatError> {
        let secret = match &self.0 {
            Kind::Generated(secret) => *secret,
            Kind::Passphrase(text) => stretch(text, &blake3::derive_key(SALT_CONTEXT, b""), ARGON)?,
        };
        let derived = blake3::derive_key(CONTEXT, &secret);
        let text = bech32::encode::<Bech32>(PREFIX, &derived)
            .map_err(|_| FormatError::Engine { what: "writing the age identity" })?;
        Ok(AgeIdentity(text.to_ascii_uppercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERATED: &str = "AGE-SECRET-KEY-1Z93S9L3Y455CZ88YFA6H32L8RK3L3DGCDJF6TH9LR3NERSYEPCMSP6T8CK";
    const PASSPHRASE: &str = "AGE-SECRET-KEY-13K0UKZES20HVDYLJ23QNVCVEDJJ67J7HFYTFKHR0L30CAURKU6YQXP3AEE";

    /// Packages of years ago must open with their key: these texts may never change.
    #[test]
    fn the_identity_of_a_key_never_changes() {
        let generated = KeyText::generate([9; 32]).age_identity().unwrap();
        assert_eq!(generated.reveal(), GENERATED);
        let passphrase = KeyText::parse("correct horse battery").unwrap().age_identity().unwrap();
        assert_eq!(passphrase.reveal(), PASSPHRASE);
        assert_eq!(format!("{generated:?}"), "AgeIdentity(..)");
    }
}
