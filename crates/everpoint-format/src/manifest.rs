//! The image map: what a backup was, file by file, extent by extent.
//!
//! Over a stream of bytes: a record of the backup (JSON behind its length), then items. Item 1 names a pack (the next
//! number of a table), item 2 is a file, item 0 is the end with the number of files and the sum of their sizes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{Read, Write};

use serde::{Deserialize, Serialize};

use crate::error::FormatError;
use crate::seal::FrameRef;
use crate::varint::{Fields, put, put_bytes, put_signed};

const VERSION: u8 = 1;

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

/// A damaged page found while backing up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedPage {
    /// File, relative to the data directory.
    pub path: String,
    /// Number of the page in the file.
    pub page: u32,
}

/// A tablespace outside the data directory; `path` is absent for one inside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablespaceRecord {
    /// Its oid.
    pub oid: u32,
    /// Where it lay.
    pub path: Option<String>,
}

/// What is known of a backup. Later versions may add fields; they need defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it; FORMAT.md describes each")]
pub struct BackupRecord {
    pub label: String,
    pub cluster: String,
    pub engine: String,
    pub kind: String,
    #[serde(default)]
    pub base: Option<String>,
    pub identity: u32,
    pub system_identifier: String,
    pub server_version: u32,
    pub server_version_text: String,
    pub timeline: u32,
    pub branch: String,
    pub started_at: i64,
    pub stopped_at: i64,
    pub start: u64,
    pub stop: u64,
    pub page_size: u32,
    pub segment_size: u64,
    pub method: String,
    pub from_standby: bool,
    pub size_bytes: u64,
    pub stored_bytes: u64,
    pub file_count: u64,
    pub pages_total: u64,
    pub pages_changed: u64,
    #[serde(default)]
    pub damaged: Vec<DamagedPage>,
    #[serde(default)]
    pub damaged_count: u64,
    #[serde(default)]
    pub tablespaces: Vec<TablespaceRecord>,
    #[serde(default)]
    pub facts: Vec<(String, String)>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub everpoint_version: String,
    pub duration_micros: u64,
    pub encrypted: bool,
    pub codec: String,
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
    /// Path relative to the data directory.
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

fn invalid(why: impl Into<String>) -> FormatError {
    FormatError::Invalid {
        what: "a manifest".to_owned(),
        why: why.into(),
    }
}

/// Deltas refer to the extent before.
#[derive(Default)]
struct Last {
    pack: u64,
    frame: FrameRef,
}

/// Writes a manifest.
pub struct ManifestWriter<W: Write> {
    out: W,
    packs: HashMap<PackId, u64>,
    last: Last,
    path: Option<String>,
    files: u64,
    bytes: u64,
}

impl<W: Write> ManifestWriter<W> {
    /// Begins with the record.
    ///
    /// # Errors
    /// If writing fails.
    pub fn new(mut out: W, record: &BackupRecord) -> Result<Self, FormatError> {
        let json = serde_json::to_vec(record).map_err(|error| invalid(error.to_string()))?;
        let mut head = vec![VERSION];
        put_bytes(&mut head, &json);
        out.write_all(&head)?;
        Ok(Self {
            out,
            packs: HashMap::new(),
            last: Last::default(),
            path: None,
            files: 0,
            bytes: 0,
        })
    }

    /// Adds a file; paths must ascend.
    ///
    /// # Errors
    /// `Invalid` if the path does not come after the one before, or the extents don't add up to the size.
    pub fn entry(&mut self, entry: &FileEntry) -> Result<(), FormatError> {
        if self.path.as_ref().is_some_and(|before| *before >= entry.path) {
            return Err(invalid(format!(
                "{} does not come after the path before it",
                entry.path
            )));
        }
        if extent_sum(&entry.extents) != Some(entry.size) {
            return Err(invalid(format!(
                "the extents of {} don't add up to its size",
                entry.path
            )));
        }
        let mut item = Vec::new();
        for extent in &entry.extents {
            let Extent::Stored { pack, .. } = extent else {
                continue;
            };
            let next = self.packs.len() as u64;
            if let std::collections::hash_map::Entry::Vacant(vacant) = self.packs.entry(*pack) {
                vacant.insert(next);
                item.push(1);
                item.extend_from_slice(&pack.0);
            }
        }
        item.push(2);
        self.head(&mut item, entry);
        for extent in &entry.extents {
            self.extent(&mut item, extent);
        }
        self.out.write_all(&item)?;
        self.files += 1;
        self.bytes = self.bytes.saturating_add(entry.size);
        self.path = Some(entry.path.clone());
        Ok(())
    }

    fn head(&self, item: &mut Vec<u8>, entry: &FileEntry) {
        let before = self.path.as_deref().unwrap_or_default();
        let mut shared = before
            .bytes()
            .zip(entry.path.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        while !entry.path.is_char_boundary(shared) {
            shared -= 1;
        }
        put(item, shared as u64);
        put_bytes(item, entry.path.get(shared..).unwrap_or_default().as_bytes());
        item.push(match entry.kind {
            FileKind::Pages => 0,
            FileKind::Plain => 1,
            FileKind::Directory => 2,
            FileKind::External => 3,
        });
        put(item, u64::from(entry.mode));
        put_signed(item, entry.modified);
        put(item, entry.size);
        put(item, entry.page_hashes.map_or(0, |first| first + 1));
        item.push(u8::from(entry.content_hash.is_some()));
        item.extend(entry.content_hash.iter().flatten());
        put(item, entry.damaged.len() as u64);
        entry.damaged.iter().for_each(|page| put(item, u64::from(*page)));
        put(item, entry.extents.len() as u64);
    }

    fn extent(&mut self, item: &mut Vec<u8>, extent: &Extent) {
        let (length, pack, frame, skip) = match extent {
            Extent::Zero { length } => {
                put(item, 0);
                put(item, *length);
                return;
            }
            Extent::Stored {
                length,
                pack,
                frame,
                skip,
            } => (*length, *pack, *frame, *skip),
        };
        let number = self.packs.get(&pack).copied().unwrap_or_default();
        let last = &self.last;
        if number == last.pack && frame == last.frame {
            put(item, 1);
        } else if number == last.pack
            && frame.number == last.frame.number.wrapping_add(1)
            && frame.offset == end_of(&last.frame)
        {
            put(item, 2);
            put(item, u64::from(frame.stored));
            put(item, u64::from(frame.raw));
        } else {
            put(item, 3);
            put(item, number);
            for value in [frame.number, frame.offset, frame.stored, frame.raw] {
                put(item, u64::from(value));
            }
        }
        put(item, u64::from(skip));
        put(item, u64::from(length));
        self.last = Last { pack: number, frame };
    }

    /// Writes the end.
    ///
    /// # Errors
    /// If writing fails.
    pub fn finish(mut self) -> Result<W, FormatError> {
        let mut item = vec![0];
        put(&mut item, self.files);
        put(&mut item, self.bytes);
        self.out.write_all(&item)?;
        Ok(self.out)
    }

    /// The packs named so far.
    pub fn packs(&self) -> impl Iterator<Item = PackId> + '_ {
        self.packs.keys().copied()
    }
}

const fn end_of(frame: &FrameRef) -> u32 {
    frame.offset.wrapping_add(frame.stored)
}

fn extent_sum(extents: &[Extent]) -> Option<u64> {
    extents.iter().try_fold(0_u64, |sum, extent| {
        sum.checked_add(match extent {
            Extent::Zero { length } => *length,
            Extent::Stored { length, .. } => u64::from(*length),
        })
    })
}

/// Reads a manifest, one entry at a time.
pub struct ManifestReader<R: Read> {
    fields: Fields<R>,
    record: BackupRecord,
    packs: Vec<PackId>,
    last: Last,
    path: Option<String>,
    files: u64,
    bytes: u64,
    ended: bool,
}

impl<R: Read> ManifestReader<R> {
    /// Reads the record.
    ///
    /// # Errors
    /// `UnknownVersion`, `Invalid`, `Truncated`, or what the stream says.
    pub fn new(input: R) -> Result<Self, FormatError> {
        let mut fields = Fields(input);
        let version = fields.byte()?;
        if version != VERSION {
            return Err(FormatError::UnknownVersion {
                version: u16::from(version),
            });
        }
        let json = fields.bytes()?;
        let record = serde_json::from_slice(&json).map_err(|error| invalid(error.to_string()))?;
        Ok(Self {
            fields,
            record,
            packs: Vec::new(),
            last: Last::default(),
            path: None,
            files: 0,
            bytes: 0,
            ended: false,
        })
    }

    /// The record.
    #[must_use]
    pub const fn record(&self) -> &BackupRecord {
        &self.record
    }

    /// Packs named so far; all of them once the end was read.
    #[must_use]
    pub fn packs(&self) -> &[PackId] {
        &self.packs
    }

    /// The next file; `None` at the end, once the sums agree and nothing follows.
    ///
    /// # Errors
    /// `Damaged`, `Truncated`, `Invalid`.
    pub fn next_entry(&mut self) -> Result<Option<FileEntry>, FormatError> {
        while !self.ended {
            match self.fields.byte()? {
                0 => self.end()?,
                1 => self.packs.push(PackId(self.fields.array()?)),
                2 => return self.entry().map(Some),
                other => return Err(invalid(format!("item {other}"))),
            }
        }
        Ok(None)
    }

    fn end(&mut self) -> Result<(), FormatError> {
        if self.fields.number()? != self.files || self.fields.number()? != self.bytes {
            return Err(invalid("its sums don't agree with its entries"));
        }
        let mut beyond = [0; 1];
        // Reading on makes the stream beneath check its own end.
        if self
            .fields
            .0
            .read(&mut beyond)
            .map_err(|error| error.downcast::<FormatError>().unwrap_or_else(FormatError::Io))?
            != 0
        {
            return Err(invalid("something follows its end"));
        }
        self.ended = true;
        Ok(())
    }

    fn entry(&mut self) -> Result<FileEntry, FormatError> {
        let path = self.take_path()?;
        let kind = match self.fields.byte()? {
            0 => FileKind::Pages,
            1 => FileKind::Plain,
            2 => FileKind::Directory,
            3 => FileKind::External,
            other => return Err(invalid(format!("file kind {other}"))),
        };
        let (mode, modified, size) = (
            self.fields.number32()?,
            self.fields.signed()?,
            self.fields.number()?,
        );
        let page_hashes = self.fields.number()?.checked_sub(1);
        let content_hash = if self.fields.byte()? == 0 {
            None
        } else {
            Some(self.fields.array()?)
        };
        let damaged = self.list(Self::page)?;
        let extents = self.list(Self::extent)?;
        if extent_sum(&extents) != Some(size) {
            return Err(invalid(format!("the extents of {path} don't add up to its size")));
        }
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size);
        self.path = Some(path.clone());
        Ok(FileEntry {
            path,
            kind,
            mode,
            modified,
            size,
            extents,
            page_hashes,
            content_hash,
            damaged,
        })
    }

    fn take_path(&mut self) -> Result<String, FormatError> {
        let shared = usize::try_from(self.fields.number()?).unwrap_or(usize::MAX);
        let rest = self.fields.text()?;
        let before = self.path.as_deref().unwrap_or_default();
        let head = before
            .get(..shared)
            .ok_or_else(|| invalid("a path that shares more than there is"))?;
        let path = format!("{head}{rest}");
        if self.path.as_ref().is_some_and(|before| *before >= path) {
            return Err(invalid(format!("{path} does not come after the path before it")));
        }
        Ok(path)
    }

    /// A list grows as it is read: its claimed length allocates nothing.
    fn list<T>(
        &mut self,
        mut take: impl FnMut(&mut Self) -> Result<T, FormatError>,
    ) -> Result<Vec<T>, FormatError> {
        let count = self.fields.number()?;
        let mut out = Vec::new();
        for _ in 0..count {
            out.push(take(self)?);
        }
        Ok(out)
    }

    fn page(&mut self) -> Result<u32, FormatError> {
        self.fields.number32()
    }

    fn extent(&mut self) -> Result<Extent, FormatError> {
        match self.fields.number()? {
            0 => {
                return Ok(Extent::Zero {
                    length: self.fields.number()?,
                });
            }
            1 => {}
            2 => {
                let offset = end_of(&self.last.frame);
                let number = self.last.frame.number.wrapping_add(1);
                self.last.frame = FrameRef {
                    number,
                    offset,
                    stored: self.fields.number32()?,
                    raw: self.fields.number32()?,
                };
            }
            3 => {
                let f = &mut self.fields;
                self.last.pack = f.number()?;
                self.last.frame = FrameRef {
                    number: f.number32()?,
                    offset: f.number32()?,
                    stored: f.number32()?,
                    raw: f.number32()?,
                };
            }
            other => return Err(invalid(format!("extent kind {other}"))),
        }
        let pack = usize::try_from(self.last.pack)
            .ok()
            .and_then(|at| self.packs.get(at))
            .copied();
        let pack = pack.ok_or_else(|| invalid("an extent in a pack that is not named"))?;
        let (skip, length) = (self.fields.number32()?, self.fields.number32()?);
        let frame = self.last.frame;
        if u64::from(skip) + u64::from(length) > u64::from(frame.raw) {
            return Err(invalid("an extent that reaches beyond its frame"));
        }
        Ok(Extent::Stored {
            length,
            pack,
            frame,
            skip,
        })
    }
}
