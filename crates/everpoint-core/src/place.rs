//! Whose a place is that a restore would write into, and what becomes of each thing that lies there.
//!
//! A place is the data directory or the directory of one tablespace. It is proven before anything in it changes; what is
//! not proven stays as it is.

use std::fmt;

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    /// Nothing.
    Nothing,
    /// A directory, perhaps behind a link.
    Directory,
    /// A file, a link that leads nowhere, or another thing that is no directory.
    Other,
}

/// What a directory's own files prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterProof {
    /// It is no data directory.
    None,
    /// A data directory of this cluster.
    Ours,
    /// A data directory of the cluster with this system identifier.
    Other(u64),
    /// Parts of a data directory, of which can't be told whose it is.
    Unreadable,
}

/// What becomes of the log that production's own directory may hold when another directory takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogBeside {
    /// There is none of production's.
    None,
    /// It is saved.
    Save,
    /// There may be some, but nothing says whose it is: that is told.
    Unknown,
}

/// Judges the directory in which production was by what its files prove. `has_log`: where its log lies there is something, or
/// that can't be looked at.
#[must_use]
pub const fn judge_beside(cluster: ClusterProof, has_log: bool) -> LogBeside {
    match cluster {
        ClusterProof::Ours => LogBeside::Save,
        ClusterProof::Other(_) => LogBeside::None,
        ClusterProof::Unreadable | ClusterProof::None if has_log => LogBeside::Unknown,
        ClusterProof::Unreadable | ClusterProof::None => LogBeside::None,
    }
}

/// What the mark of a restore in a place proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkProof {
    /// There is none.
    None,
    /// It names this repository, this cluster and, in a tablespace's place, this data directory.
    Ours,
    /// It names others, or nobody.
    Foreign,
    /// It was written for another data directory or another tablespace than those that are there now.
    Stale,
}

/// Whether a directory is the one that a mark was written for. Its name tells nothing: it may have been removed, and another
/// server's made in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bond {
    /// The same one.
    Same,
    /// Another one.
    Different,
    /// The mark does not say, or the file system does not.
    Unknown,
}

/// What the mark in the place of a tablespace says, of this repository and cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceMark {
    /// The data directory.
    pub root: Bond,
    /// This version's part of the tablespace.
    pub part: Bond,
    /// A link of the data directory leads to the place.
    pub linked: bool,
}

/// Judges the mark in the place of a tablespace. One that is not known to be of what is there proves only what the data
/// directory itself says.
#[must_use]
pub const fn judge_mark(mark: &SpaceMark) -> MarkProof {
    match (mark.root, mark.part) {
        (Bond::Different, _) | (_, Bond::Different) => MarkProof::Stale,
        (Bond::Same, Bond::Same) => MarkProof::Ours,
        _ if mark.linked => MarkProof::Ours,
        _ => MarkProof::Stale,
    }
}

/// What is known of a data directory to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootFacts {
    /// What is there.
    pub there: There,
    /// It holds nothing that counts.
    pub empty: bool,
    /// What its files prove.
    pub cluster: ClusterProof,
    /// What its mark proves.
    pub mark: MarkProof,
}

/// What is known of the place of a tablespace outside the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceFacts {
    /// What is there.
    pub there: There,
    /// This version's part of it is absent or empty.
    pub part_empty: bool,
    /// It holds things that are no server's part of a tablespace.
    pub strangers: bool,
    /// The link of production's own data directory, which is being restored, leads there.
    pub linked: bool,
    /// A link of the data directory that is being restored leads there, whose ever that is.
    pub led: bool,
    /// Another data directory, which is there, is known to have it.
    pub others: bool,
    /// What its mark proves.
    pub mark: MarkProof,
}

/// Why a place may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proven {
    /// Nothing is lost there.
    Empty,
    /// A restore of this cluster into it, or of this tablespace, left its mark.
    Marked,
    /// It is this cluster's data directory, or production's own link leads there.
    Own,
}

/// Why it may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproven {
    /// It is no directory.
    NoDirectory,
    /// It is this cluster's, but nobody said that it may be brought to another state.
    NotAsked,
    /// It is another cluster's.
    OtherCluster(u64),
    /// It holds parts of a data directory of which can't be told whose they are.
    Unreadable,
    /// The mark in it is not that of this repository and cluster.
    ForeignMark,
    /// The mark in it was written for another data directory or tablespace than those that are there now.
    StaleMark,
    /// The mark in a data directory was written for another one.
    CopiedMark,
    /// It holds a tablespace of another data directory, which is there.
    OtherDirectory,
    /// It holds the tablespace of this data directory, which is not known to be production's own.
    NotProduction,
    /// It holds a tablespace, and nothing tells of which data directory.
    Unmarked,
    /// It holds something else.
    Strangers,
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoDirectory => "it is there and no directory",
            Self::NotAsked => "the directory is not empty",
            Self::OtherCluster(system) => {
                return write!(f, "it is the data directory of another cluster (system identifier {system})");
            }
            Self::Unreadable => "it holds a PostgreSQL data directory whose pg_control can't be read",
            Self::ForeignMark => {
                "the mark of a restore in it names another repository, cluster or directory, or nobody"
            }
            Self::StaleMark => {
                "it holds a tablespace, and the mark of a restore beside it is of an earlier one or of another data directory"
            }
            Self::CopiedMark => "the mark of a restore in it was written for another directory",
            Self::OtherDirectory => "it holds a tablespace of another data directory",
            Self::NotProduction => {
                "a link of the data directory leads there, which is not known to be production's own: links of a copied one \
                 lead to what production uses"
            }
            Self::Unmarked => "it holds a tablespace, and nothing tells of which data directory",
            Self::Strangers => "it holds files that are not this cluster's",
        })
    }
}

/// Judges the data directory. `asked`: it may be brought to another state.
///
/// # Errors
/// Why nothing in it may change.
pub const fn judge_root(facts: &RootFacts, asked: bool) -> Result<Proven, Unproven> {
    match (facts.there, facts.empty) {
        (There::Nothing, _) | (There::Directory, true) => return Ok(Proven::Empty),
        (There::Other, _) => return Err(Unproven::NoDirectory),
        (There::Directory, false) => {}
    }
    match (facts.cluster, facts.mark) {
        (ClusterProof::Other(system), _) => Err(Unproven::OtherCluster(system)),
        // A restore that was cut off may have written a part of the control file.
        (_, MarkProof::Ours) => Ok(Proven::Marked),
        (ClusterProof::Ours, _) if asked => Ok(Proven::Own),
        (ClusterProof::Ours, _) => Err(Unproven::NotAsked),
        (ClusterProof::Unreadable | ClusterProof::None, MarkProof::Stale) => Err(Unproven::CopiedMark),
        (ClusterProof::Unreadable, _) => Err(Unproven::Unreadable),
        (ClusterProof::None, MarkProof::Foreign) => Err(Unproven::ForeignMark),
        (ClusterProof::None, MarkProof::None) => Err(Unproven::Strangers),
    }
}

/// Judges the place of a tablespace. `asked`: what earlier restores put there may change.
///
/// # Errors
/// Why nothing in it may change.
pub const fn judge_space(facts: &SpaceFacts, asked: bool) -> Result<Proven, Unproven> {
    match facts.there {
        There::Nothing => return Ok(Proven::Empty),
        There::Other => return Err(Unproven::NoDirectory),
        There::Directory => {}
    }
    match facts.mark {
        _ if facts.linked => Ok(Proven::Own),
        _ if facts.part_empty && !facts.strangers => Ok(Proven::Empty),
        MarkProof::Ours if asked => Ok(Proven::Marked),
        MarkProof::Ours => Err(Unproven::NotAsked),
        MarkProof::Foreign => Err(Unproven::ForeignMark),
        _ if facts.others => Err(Unproven::OtherDirectory),
        MarkProof::Stale => Err(Unproven::StaleMark),
        MarkProof::None if facts.part_empty => Err(Unproven::Strangers),
        MarkProof::None if facts.led => Err(Unproven::NotProduction),
        MarkProof::None if facts.strangers => Err(Unproven::Strangers),
        MarkProof::None => Err(Unproven::Unmarked),
    }
}

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link, or a pipe, socket or device.
    Other,
}

/// What must be there in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    Nothing,
    /// A directory.
    Directory,
    /// A file.
    File,
}

/// An entry of a directory that is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryFacts {
    /// What it is.
    pub kind: Kind,
    /// What must be there.
    pub wanted: Wanted,
    /// Another file system is mounted on it.
    pub mounted: bool,
    /// It can be neither written nor removed, whoever tries.
    pub immutable: bool,
    /// A file that is not written in place: it has other names, or we may not write it.
    pub replaced: bool,
    /// Entries of the directory in which it lies can be made and removed.
    pub parent_writable: bool,
}

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It stays, its content is brought to the wanted state.
    Keep,
    /// It is removed.
    Remove,
    /// What is in it is removed, and then it.
    Empty,
    /// It is none of ours.
    Leave,
    /// Nothing may begin.
    Refuse(InTheWay),
}

/// What keeps a restore from ending well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InTheWay {
    /// Something is mounted where the image has a file or directory.
    Mount,
    /// The file or directory is immutable, or only appended to.
    Immutable,
    /// Its directory can't be written to.
    ClosedParent,
}

impl fmt::Display for InTheWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mount => "something is mounted there, where the image has files of its own",
            Self::Immutable => "it has the attribute immutable or append-only",
            Self::ClosedParent => "its directory can't be written to",
        })
    }
}

/// Decides what becomes of an entry.
#[must_use]
pub const fn decide(entry: &EntryFacts) -> Act {
    let same = matches!(
        (entry.kind, entry.wanted),
        (Kind::Directory, Wanted::Directory) | (Kind::File, Wanted::File)
    );
    if entry.mounted {
        return match entry.wanted {
            Wanted::Nothing => Act::Leave,
            _ => Act::Refuse(InTheWay::Mount),
        };
    }
    if entry.immutable {
        return Act::Refuse(InTheWay::Immutable);
    }
    if same && !entry.replaced {
        return Act::Keep;
    }
    match (entry.parent_writable, entry.kind) {
        (false, _) => Act::Refuse(InTheWay::ClosedParent),
        (true, _) if same => Act::Keep,
        (true, Kind::Directory) => Act::Empty,
        (true, _) => Act::Remove,
    }
}
