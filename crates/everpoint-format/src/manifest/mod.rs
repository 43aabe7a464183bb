//! The image map: what a backup was, file by file, extent by extent.
//!
//! Over a stream of bytes: a record of the backup (JSON behind its length), then items. Item 1 names a pack (the next
//! number of a table), item 2 is a file, item 0 is the end with the number of files and the sum of their sizes. Writer and
//! reader keep the table of packs and one entry in memory, whatever the size of the image.

mod place;
mod reader;
mod record;
mod writer;

use std::fmt;

pub use reader::ManifestReader;
pub use record::{BackupRecord, DamagedPage, TablespaceRecord};
pub use writer::ManifestWriter;

use crate::error::FormatError;
use crate::seal::FrameRef;

const VERSION: u8 = 1;
/// Kinds of items.
const END: u8 = 0;
const PACK: u8 = 1;
const FILE: u8 = 2;

/// Longest path of an entry in bytes.
pub const MAX_PATH: usize = 4096;
/// Most extents of one file, and most damaged pages: an entry takes at most about 200 MB of memory.
pub const MAX_EXTENTS: usize = 1 << 22;
/// Most packs that one map may name.
pub const MAX_PACKS: usize = 1 << 20;

/// Names a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId(pub [u8; 16]);

impl PackId {
    /// Reads 32 hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        crate::hex::decode(text)?.try_into().ok().map(Self)
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::hex::encode(&self.0))
    }
}

/// What kind of file it is. Stored as one byte: 0 pages, 1 plain, 2 directory, 3 external.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Pages of a relation.
    Pages,
    /// Any other file.
    Plain,
    /// A directory.
    Directory,
    /// Configuration from outside the data directory.
    External,
}

/// A run of bytes of a file and where it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extent {
    /// Zeros, stored nowhere.
    Zero {
        /// How many.
        length: u64,
    },
    /// Bytes of a frame.
    Stored {
        /// How many.
        length: u32,
        /// The pack.
        pack: PackId,
        /// The frame in it.
        frame: FrameRef,
        /// Where they begin in the raw frame.
        skip: u32,
    },
}

/// One file of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Path relative to the data directory; bytes that are no UTF-8 are escaped, see [`everpoint_core::name`].
    pub path: String,
    /// Its kind.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// Last modification, microseconds since 1970 UTC.
    pub modified: i64,
    /// Size in bytes: the sum of its extents.
    pub size: u64,
    /// Where its bytes are, in order.
    pub extents: Vec<Extent>,
    /// Index of the file's first hash in the `pages` object, for files of pages.
    pub page_hashes: Option<u64>,
    /// For other files: first 16 bytes of BLAKE3 over the BLAKE3 of each MiB.
    pub content_hash: Option<[u8; 16]>,
    /// Numbers of pages that were damaged when they were read.
    pub damaged: Vec<u32>,
}

impl FileKind {
    const fn byte(self) -> u8 {
        match self {
            Self::Pages => 0,
            Self::Plain => 1,
            Self::Directory => 2,
            Self::External => 3,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Pages),
            1 => Some(Self::Plain),
            2 => Some(Self::Directory),
            3 => Some(Self::External),
            _ => None,
        }
    }
}

impl Extent {
    /// How many bytes of the file it stands for.
    #[must_use]
    pub const fn length(&self) -> u64 {
        match self {
            Self::Zero { length } => *length,
            Self::Stored { length, .. } => *length as u64,
        }
    }
}

fn invalid(why: impl Into<String>) -> FormatError {
    FormatError::Invalid { what: "a manifest".to_owned(), why: why.into() }
}

/// What must hold of every entry, when it is written and when it is read. `bytes`: its path.
fn check(entry: &FileEntry, bytes: &[u8], before: Option<&[u8]>) -> Result<(), FormatError> {
    let path = &entry.path;
    if bytes.len() > MAX_PATH || entry.extents.len() > MAX_EXTENTS || entry.damaged.len() > MAX_EXTENTS {
        return Err(invalid("an entry beyond all measure"));
    }
    if before.is_some_and(|before| before >= bytes) {
        return Err(invalid(format!("{path} does not come after the path before it")));
    }
    let mut sum = 0_u64;
    for extent in &entry.extents {
        if extent.length() == 0 {
            return Err(invalid(format!("{path} has an empty extent")));
        }
        if let Extent::Stored { length, frame, skip, .. } = extent
            && u64::from(*skip) + u64::from(*length) > u64::from(frame.raw)
        {
            return Err(invalid(format!("an extent of {path} reaches beyond its frame")));
        }
        sum = sum.checked_add(extent.length()).ok_or_else(|| invalid("a file beyond all measure"))?;
    }
    if sum != entry.size {
        return Err(invalid(format!("the extents of {path} don't add up to its size")));
    }
    Ok(())
}
