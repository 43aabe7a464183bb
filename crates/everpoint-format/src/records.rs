//! Small records, each one JSON object with a version: identity, attempt, failure, damage, gap, lease, hold, tombstone,
//! and `config`.
//!
//! JSON because people read them in an emergency; unknown fields are ignored, so later versions may add some.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::FormatError;

/// Version of the repository format.
pub const FORMAT_VERSION: u32 = 1;

pub(crate) fn to_json<T: Serialize>(record: &T) -> Vec<u8> {
    json(&Outgoing { version: FORMAT_VERSION, record })
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    // Fails only for maps whose keys are no text, and for types that refuse: there are none here.
    serde_json::to_vec_pretty(value).unwrap_or_default()
}

pub(crate) fn from_json<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, FormatError> {
    let invalid =
        |error: serde_json::Error| FormatError::Invalid { what: what.to_owned(), why: error.to_string() };
    let Version { version } = serde_json::from_slice(bytes).map_err(invalid)?;
    if version != FORMAT_VERSION {
        return Err(FormatError::UnknownVersion { version: u16::try_from(version).unwrap_or(u16::MAX) });
    }
    serde_json::from_slice(bytes).map_err(invalid)
}

#[derive(Serialize)]
struct Outgoing<'a, T> {
    version: u32,
    #[serde(flatten)]
    record: &'a T,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

macro_rules! json_record {
    ($type:ident, $what:literal) => {
        impl $type {
            /// Encodes it.
            #[must_use]
            pub fn encode(&self) -> Vec<u8> {
                to_json(self)
            }

            /// Decodes it.
            ///
            /// # Errors
            /// `Invalid` if it is not such a record, `UnknownVersion` if it is of a later version.
            pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
                from_json($what, bytes)
            }
        }
    };
}
pub(crate) use json_record;

/// Who wrote the log and the backups under an identity number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// System identifier, decimal (JSON numbers lose digits).
    pub system_identifier: String,
    /// Version of the server when it was first seen, as a number.
    pub server_version: u32,
    /// Size of a log segment in bytes.
    pub segment_size: u64,
    /// When it was first seen, microseconds since 1970 UTC.
    pub since: i64,
}
json_record!(Identity, "an identity");

/// A backup that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Label.
    pub label: String,
    /// `full` or `incremental`.
    pub kind: String,
    /// When, microseconds since 1970 UTC.
    pub started_at: i64,
    /// Process that took it.
    pub process: u32,
}
json_record!(Attempt, "an attempt");

impl Attempt {
    /// An attempt.
    #[must_use]
    pub fn new(label: &str, kind: &str, started_at: i64, process: u32) -> Self {
        Self { label: label.to_owned(), kind: kind.to_owned(), started_at, process }
    }
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When, microseconds since 1970 UTC.
    pub at: i64,
    /// Stable code.
    pub code: String,
    /// In words.
    pub message: String,
}
json_record!(Failure, "a failure");

impl Failure {
    /// A failure.
    #[must_use]
    pub fn new(at: i64, code: &str, message: &str) -> Self {
        Self { at, code: code.to_owned(), message: message.to_owned() }
    }
}

/// Damage found in a backup after it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// When it was found, microseconds since 1970 UTC.
    pub at: i64,
    /// The object that is damaged or missing.
    pub object: String,
    /// In words.
    pub message: String,
}
json_record!(Damage, "a damage record");

/// Log that is known to be missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First missing position.
    pub from: u64,
    /// First position after it.
    pub to: u64,
    /// When it was found, microseconds since 1970 UTC.
    pub at: i64,
    /// Why.
    pub reason: String,
}
json_record!(Gap, "a gap");

/// A backup that must not expire, or no longer must.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// When it was written, microseconds since 1970 UTC.
    pub at: i64,
    /// Until when it lasts, microseconds since 1970 UTC; `None`: until it is released.
    pub until: Option<i64>,
    /// It ends what was written before.
    #[serde(default)]
    pub released: bool,
}
json_record!(Hold, "a hold");

/// Where production was seen: the branch that `latest` means from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Production {
    /// Number of the identity.
    pub identity: u32,
    /// Name of the branch.
    pub branch: String,
    /// A position that it had reached on that branch.
    pub position: u64,
    /// When, microseconds since 1970 UTC.
    pub at: i64,
    /// `server`: the server at the configured address was there, or somebody said so. `push`: log of the branch was pushed
    /// from a directory that is not marked as a copy.
    pub by: String,
}
json_record!(Production, "a sighting of production");

/// Packs that no map named when it was written, and that go some time later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// When it was written, microseconds since 1970 UTC: for people; its age is told by the store's own clock.
    pub at: i64,
    /// Their ids, 32 hex digits each.
    pub packs: Vec<String>,
}
json_record!(Tombstone, "a tombstone");

/// A claim on a piece of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// Who holds it, in words.
    pub holder: String,
    /// Random, so that a holder knows its own.
    pub token: String,
    /// Milliseconds after which it expires unless renewed.
    pub ttl_millis: u64,
    /// Given up by its holder.
    #[serde(default)]
    pub released: bool,
    /// Host and process of the holder.
    #[serde(default)]
    pub host: String,
    /// See `host`.
    #[serde(default)]
    pub process: u32,
}
json_record!(LeaseRecord, "a lease");

/// The one object in clear that says what a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryConfig {
    /// Version of the format.
    pub format_version: u32,
    /// Its id.
    pub repository_id: crate::seal::RepositoryId,
    /// Whether objects are encrypted.
    pub encrypted: bool,
    /// When it was made, microseconds since 1970 UTC.
    pub created: i64,
}

/// Read first, as a later version may have other fields.
#[derive(Deserialize)]
struct ConfigVersion {
    everpoint_format: u32,
}

#[derive(Serialize, Deserialize)]
struct ConfigJson {
    everpoint_format: u32,
    repository_id: String,
    encrypted: bool,
    created: i64,
}

impl RepositoryConfig {
    /// Of this version.
    #[must_use]
    pub const fn new(repository_id: crate::seal::RepositoryId, encrypted: bool, created: i64) -> Self {
        Self { format_version: FORMAT_VERSION, repository_id, encrypted, created }
    }

    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        json(&ConfigJson {
            everpoint_format: self.format_version,
            repository_id: self.repository_id.to_string(),
            encrypted: self.encrypted,
            created: self.created,
        })
    }

    /// Decodes it.
    ///
    /// # Errors
    /// `NotOurs` if it is none, `UnknownVersion` if it is of a later one.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let not_ours = || FormatError::NotOurs { what: "config".to_owned() };
        let ConfigVersion { everpoint_format } = serde_json::from_slice(bytes).map_err(|_| not_ours())?;
        if everpoint_format != FORMAT_VERSION {
            let version = u16::try_from(everpoint_format).unwrap_or(u16::MAX);
            return Err(FormatError::UnknownVersion { version });
        }
        let json: ConfigJson = serde_json::from_slice(bytes).map_err(|_| not_ours())?;
        let repository_id = crate::seal::RepositoryId::parse(&json.repository_id).ok_or_else(not_ours)?;
        Ok(Self {
            format_version: json.everpoint_format,
            repository_id,
            encrypted: json.encrypted,
            created: json.created,
        })
    }
}
