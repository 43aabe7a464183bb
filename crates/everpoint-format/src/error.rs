//! Errors of bytes.

/// Why bytes could not be made or understood.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The object does not begin as ours do.
    #[error("not an object of a repository: {what}")]
    NotOurs {
        /// What was seen.
        what: String,
    },
    /// Written by a later version.
    #[error("format version {version} is not known to this program; it needs a newer one")]
    UnknownVersion {
        /// The version found.
        version: u16,
    },
    /// The object is sealed with a data key that no key slot holds.
    #[error("sealed with data key {id}, which the given key does not open")]
    KeyUnknown {
        /// Id of the data key.
        id: String,
    },
    /// The repository key does not open a key slot.
    #[error("the key is not the one of this repository")]
    WrongKey,
    /// A frame does not have its authentic checksum: flipped, cut, reordered, moved or of another key.
    #[error("{what} is damaged or not the object it claims to be")]
    Damaged {
        /// Which part.
        what: String,
    },
    /// The object ends too early.
    #[error("{what} is cut off")]
    Truncated {
        /// Which part.
        what: String,
    },
    /// Values that can't be.
    #[error("{what} holds an impossible value: {why}")]
    Invalid {
        /// Which part.
        what: String,
        /// Why it can't be.
        why: String,
    },
    /// Reading or writing beneath failed.
    #[error("the bytes could not be read or written")]
    Io(#[source] std::io::Error),
    /// The compressor or the cipher refused.
    #[error("{what} failed")]
    Engine {
        /// Which.
        what: &'static str,
    },
}

/// An IO error that only carries one of ours through a stream is that one again.
impl From<std::io::Error> for FormatError {
    fn from(error: std::io::Error) -> Self {
        error.downcast().unwrap_or_else(Self::Io)
    }
}

/// For streams: what the bytes beneath said comes out as it was, everything else is carried.
impl From<FormatError> for std::io::Error {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Io(error) => error,
            other => Self::other(other),
        }
    }
}
