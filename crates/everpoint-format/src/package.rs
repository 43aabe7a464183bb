//! `MANIFEST.json`, the first member of a daily package: what the package holds and how far it reaches.

use serde::{Deserialize, Serialize};

use crate::FormatError;
use crate::manifest::BackupRecord;

/// Version of the package that this program writes.
pub const VERSION: u32 = 1;
/// Name of the manifest in the package.
pub const MANIFEST: &str = "MANIFEST.json";
/// Name of the list that `sha256sum -c` reads.
pub const SUMS: &str = "SHA256SUMS";
/// Name of the instructions.
pub const INSTRUCTIONS: &str = "RESTORE.md";
/// Name of the list of restore points.
pub const POINTS: &str = "restore-points.json";

/// The manifest. Later versions may add fields; they need defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageManifest {
    /// Version of the package's layout.
    pub everpoint_package: u32,
    /// Name of the package.
    pub name: String,
    /// Id of the repository from which it was made, 32 hex digits.
    pub repository: String,
    /// When it was made, microseconds since 1970 UTC.
    pub made_at: i64,
    /// The clusters in it, by priority.
    pub clusters: Vec<PackagedCluster>,
    /// What should have been in it and is not, in words.
    #[serde(default)]
    pub shortfalls: Vec<String>,
    /// Every other member but [`SUMS`], in the order in which they follow.
    pub members: Vec<PackageMember>,
}

/// A file in the package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageMember {
    /// Path in the package.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// SHA-256 of them, 64 hex digits.
    pub sha256: String,
}

/// One cluster in the package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagedCluster {
    /// Its name.
    pub name: String,
    /// Its engine.
    pub engine: String,
    /// The servers that it was, oldest first: a server made anew under the same name is another one.
    pub identities: Vec<PackagedIdentity>,
    /// The base image in it; `None`: only log.
    #[serde(default)]
    pub base: Option<PackagedBase>,
    /// The log in it, a parent before the branches that forked from it.
    pub log: Vec<PackagedLog>,
    /// How its newest moment is reached; `None`: not from this package alone.
    #[serde(default)]
    pub newest: Option<PackagedTarget>,
    /// On which branch production was; `None`: nothing told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub production: Option<PackagedProduction>,
}

/// Where production was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagedProduction {
    /// Number of its server.
    pub identity: u32,
    /// The branch, as the repository names it.
    pub branch: String,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagedIdentity {
    /// Number, by which log and images name it.
    pub number: u32,
    /// Its system identifier.
    pub system_identifier: String,
    /// Version of the server.
    pub server_version: u32,
    /// Bytes of a log segment.
    pub segment_size: u64,
}

/// The newest moment of a cluster in a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagedTarget {
    /// Start of the last record to replay.
    pub record: u64,
    /// Timeline to follow.
    pub timeline: u32,
    /// Directories of [`PackagedCluster::log`] from which the segments are taken, the newest branch first.
    pub path: Vec<String>,
}

/// A base image: `base.tar.zst`, a plain tar of the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagedBase {
    /// Path of the archive in the package.
    pub member: String,
    /// What is known of the backup.
    pub record: BackupRecord,
}

/// Log of one branch: whole segments under PostgreSQL's names, each compressed with zstd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagedLog {
    /// Directory of its files in the package.
    pub directory: String,
    /// Number of its server.
    pub identity: u32,
    /// The branch, as the repository names it.
    pub branch: String,
    /// Its timeline.
    pub timeline: u32,
    /// Whether a history file is among its files.
    pub history: bool,
    /// Unbroken stretches, ascending.
    pub ranges: Vec<PackagedRange>,
    /// Nothing was committed up to this moment (microseconds since 1970 UTC) beyond this position.
    #[serde(default)]
    pub covered: Option<(u64, i64)>,
    /// What is known to be missing: from, to, why.
    #[serde(default)]
    pub gaps: Vec<(u64, u64, String)>,
}

/// A stretch of log. It begins with a segment; where it ends inside of one, the rest of that is zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagedRange {
    /// First position.
    pub from: u64,
    /// First position after it.
    pub to: u64,
}

/// Read first, as a later version may have other fields.
#[derive(Deserialize)]
struct Version {
    everpoint_package: u32,
}

impl PackageManifest {
    /// As it stands in the package.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads it.
    ///
    /// # Errors
    /// `NotOurs` if it is none, `UnknownVersion` if it is of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let not_ours = || FormatError::NotOurs { what: MANIFEST.to_owned() };
        let Version { everpoint_package } = serde_json::from_slice(bytes).map_err(|_| not_ours())?;
        if everpoint_package != VERSION {
            return Err(FormatError::UnknownVersion {
                version: u16::try_from(everpoint_package).unwrap_or(u16::MAX),
            });
        }
        serde_json::from_slice(bytes).map_err(|_| not_ours())
    }

    /// The list that `sha256sum -c` reads, of all members and of the manifest itself.
    #[must_use]
    pub fn sums(&self, of_manifest: &str) -> Vec<u8> {
        let own = (of_manifest, MANIFEST);
        let members = self.members.iter().map(|member| (member.sha256.as_str(), member.path.as_str()));
        std::iter::once(own)
            .chain(members)
            .flat_map(|(sum, path)| format!("{sum}  {path}\n").into_bytes())
            .collect()
    }

    /// The cluster of this name.
    #[must_use]
    pub fn cluster(&self, name: &str) -> Option<&PackagedCluster> {
        self.clusters.iter().find(|cluster| cluster.name == name)
    }
}
