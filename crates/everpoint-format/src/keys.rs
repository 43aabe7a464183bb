//! Who seals: the id of a repository and its data keys.

use std::fmt;

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
