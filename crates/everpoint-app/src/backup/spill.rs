//! Entries of an image map outside memory: encoding for scratch files, sorting by path, lookup by path.
//!
//! A map may have millions of entries, so only an index or one buffer of it is ever in memory. The scratch files are
//! unlinked as soon as they are open and live as long as one use-case.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use everpoint_core::name::compare;
use everpoint_format::manifest::{Extent, FileEntry, FileKind, PackId};
use everpoint_format::seal::FrameRef;

use crate::AppError;

/// An entry with the page hashes that stand in the side object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpilledEntry {
    /// The entry; its `page_hashes` index is not meaningful here.
    pub entry: FileEntry,
    /// One hash a page, for files of pages.
    pub hashes: Vec<u64>,
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn encode(spilled: &SpilledEntry, out: &mut Vec<u8>) {
    let entry = &spilled.entry;
    put_u32(out, u32::try_from(entry.path.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(entry.path.as_bytes());
    out.push(match entry.kind {
        FileKind::Pages => 0,
        FileKind::Plain => 1,
        FileKind::Directory => 2,
        FileKind::External => 3,
    });
    put_u32(out, entry.mode);
    out.extend_from_slice(&entry.modified.to_le_bytes());
    put_u64(out, entry.size);
    out.push(u8::from(entry.content_hash.is_some()));
    out.extend_from_slice(&entry.content_hash.unwrap_or_default());
    put_u32(out, u32::try_from(entry.damaged.len()).unwrap_or(u32::MAX));
    for block in &entry.damaged {
        put_u32(out, *block);
    }
    put_u32(out, u32::try_from(entry.extents.len()).unwrap_or(u32::MAX));
    for extent in &entry.extents {
        match extent {
            Extent::Zero { length } => {
                out.push(0);
                put_u64(out, *length);
            }
            Extent::Stored { length, pack, frame, skip } => {
                out.push(1);
                put_u32(out, *length);
                out.extend_from_slice(&pack.0);
                for value in [frame.number, frame.offset, frame.stored, frame.raw, *skip] {
                    put_u32(out, value);
                }
            }
        }
    }
    put_u32(out, u32::try_from(spilled.hashes.len()).unwrap_or(u32::MAX));
    for hash in &spilled.hashes {
        put_u64(out, *hash);
    }
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        let bytes = self.0.get(..length)?;
        self.0 = self.0.get(length..)?;
        String::from_utf8(bytes.to_vec()).ok()
    }
}

fn decode_extent(cursor: &mut Cursor<'_>) -> Option<Extent> {
    match cursor.take::<1>()? {
        [0] => Some(Extent::Zero { length: cursor.u64()? }),
        _ => {
            let length = cursor.u32()?;
            let pack = PackId(cursor.take()?);
            let frame = FrameRef {
                number: cursor.u32()?,
                offset: cursor.u32()?,
                stored: cursor.u32()?,
                raw: cursor.u32()?,
            };
            Some(Extent::Stored { length, pack, frame, skip: cursor.u32()? })
        }
    }
}

fn decode(bytes: &[u8]) -> Option<SpilledEntry> {
    let mut cursor = Cursor(bytes);
    let path = cursor.text()?;
    let kind = match cursor.take::<1>()? {
        [0] => FileKind::Pages,
        [1] => FileKind::Plain,
        [2] => FileKind::Directory,
        _ => FileKind::External,
    };
    let mode = cursor.u32()?;
    let modified = cursor.take().map(i64::from_le_bytes)?;
    let size = cursor.u64()?;
    let hashed = cursor.take::<1>()? == [1];
    let hash = cursor.take::<16>()?;
    let damaged = (0..cursor.u32()?).map(|_| cursor.u32()).collect::<Option<Vec<_>>>()?;
    let extents = (0..cursor.u32()?).map(|_| decode_extent(&mut cursor)).collect::<Option<Vec<_>>>()?;
    let hashes = (0..cursor.u32()?).map(|_| cursor.u64()).collect::<Option<Vec<_>>>()?;
    let content_hash = hashed.then_some(hash);
    let entry =
        FileEntry { path, kind, mode, modified, size, extents, page_hashes: None, content_hash, damaged };
    Some(SpilledEntry { entry, hashes })
}

fn scratch_error(error: std::io::Error, scratch: &Path) -> AppError {
    AppError::io("use a scratch file in", scratch, error)
}

fn broken(scratch: &Path) -> AppError {
    scratch_error(std::io::Error::other("a scratch file does not hold what was written to it"), scratch)
}

/// Sorts entries by path with bounded memory.
#[derive(Debug)]
pub struct EntrySorter {
    scratch: std::path::PathBuf,
    buffer: Vec<SpilledEntry>,
    buffered: usize,
    limit: usize,
    runs: Vec<File>,
}

impl EntrySorter {
    /// A sorter whose buffer holds about `limit` bytes.
    #[must_use]
    pub fn new(scratch: &Path, limit: usize) -> Self {
        Self { scratch: scratch.to_owned(), buffer: Vec::new(), buffered: 0, limit, runs: Vec::new() }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// If a scratch file can't be written.
    pub fn push(&mut self, spilled: SpilledEntry) -> Result<(), AppError> {
        self.buffered +=
            128 + spilled.entry.path.len() + 48 * spilled.entry.extents.len() + 8 * spilled.hashes.len();
        self.buffer.push(spilled);
        if self.buffered >= self.limit {
            self.spill()?;
        }
        Ok(())
    }

    fn spill(&mut self) -> Result<(), AppError> {
        self.buffer.sort_by(|a, b| compare(&a.entry.path, &b.entry.path));
        let wrap = |error| scratch_error(error, &self.scratch);
        let mut out = BufWriter::with_capacity(1 << 16, tempfile::tempfile_in(&self.scratch).map_err(wrap)?);
        let mut bytes = Vec::new();
        for spilled in self.buffer.drain(..) {
            bytes.clear();
            encode(&spilled, &mut bytes);
            out.write_all(&(bytes.len() as u64).to_le_bytes()).map_err(wrap)?;
            out.write_all(&bytes).map_err(wrap)?;
        }
        let mut file = out.into_inner().map_err(|error| wrap(error.into_error()))?;
        file.seek(SeekFrom::Start(0)).map_err(wrap)?;
        self.runs.push(file);
        self.buffered = 0;
        Ok(())
    }

    /// Gives all entries in ascending order of their paths.
    ///
    /// # Errors
    /// If a scratch file fails, or what `take` returns.
    pub fn drain(
        mut self,
        mut take: impl FnMut(SpilledEntry) -> Result<(), AppError>,
    ) -> Result<(), AppError> {
        if self.runs.is_empty() {
            self.buffer.sort_by(|a, b| compare(&a.entry.path, &b.entry.path));
            return self.buffer.into_iter().try_for_each(take);
        }
        self.spill()?;
        let mut readers: Vec<Run> = Vec::new();
        for file in std::mem::take(&mut self.runs) {
            let mut run = Run { reader: BufReader::new(file), head: None };
            run.advance(&self.scratch)?;
            readers.push(run);
        }
        loop {
            let next = readers
                .iter_mut()
                .filter(|run| run.head.is_some())
                .min_by(|a, b| compare(a.path(), b.path()));
            let Some(run) = next else { return Ok(()) };
            if let Some(head) = run.head.take() {
                take(head)?;
            }
            run.advance(&self.scratch)?;
        }
    }
}

struct Run {
    reader: BufReader<File>,
    head: Option<SpilledEntry>,
}

impl Run {
    fn path(&self) -> &str {
        self.head.as_ref().map_or("", |spilled| spilled.entry.path.as_str())
    }

    fn advance(&mut self, scratch: &Path) -> Result<(), AppError> {
        let mut length = [0; 8];
        match self.reader.read_exact(&mut length) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other.map_err(|error| scratch_error(error, scratch))?,
        }
        let mut bytes = vec![0; usize::try_from(u64::from_le_bytes(length)).map_err(|_| broken(scratch))?];
        self.reader.read_exact(&mut bytes).map_err(|error| scratch_error(error, scratch))?;
        self.head = Some(decode(&bytes).ok_or_else(|| broken(scratch))?);
        Ok(())
    }
}

/// Finds entries by path: entries in a scratch file, 20 bytes of index an entry in memory.
#[derive(Debug)]
pub struct EntryIndex {
    scratch: std::path::PathBuf,
    file: File,
    index: Vec<(u64, u64, u32)>,
}

impl EntryIndex {
    /// Builds it from entries in any order.
    ///
    /// # Errors
    /// If the scratch file can't be written, or what `next` returns.
    pub fn build(
        scratch: &Path,
        mut next: impl FnMut() -> Result<Option<SpilledEntry>, AppError>,
    ) -> Result<Self, AppError> {
        let wrap = |error| scratch_error(error, scratch);
        let mut out = BufWriter::with_capacity(1 << 16, tempfile::tempfile_in(scratch).map_err(wrap)?);
        let (mut index, mut at, mut bytes) = (Vec::new(), 0_u64, Vec::new());
        while let Some(spilled) = next()? {
            bytes.clear();
            encode(&spilled, &mut bytes);
            out.write_all(&bytes).map_err(wrap)?;
            index.push((path_hash(&spilled.entry.path), at, u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
            at += bytes.len() as u64;
        }
        let file = out.into_inner().map_err(|error| wrap(error.into_error()))?;
        index.sort_unstable();
        Ok(Self { scratch: scratch.to_owned(), file, index })
    }

    /// The entry of this path.
    ///
    /// # Errors
    /// If the scratch file can't be read.
    pub fn find(&self, path: &str) -> Result<Option<SpilledEntry>, AppError> {
        let hash = path_hash(path);
        let first = self.index.partition_point(|(known, _, _)| *known < hash);
        for (known, at, length) in self.index.iter().skip(first) {
            if *known != hash {
                break;
            }
            let mut bytes = vec![0; *length as usize];
            self.file.read_exact_at(&mut bytes, *at).map_err(|error| scratch_error(error, &self.scratch))?;
            let spilled = decode(&bytes).ok_or_else(|| broken(&self.scratch))?;
            if spilled.entry.path == path {
                return Ok(Some(spilled));
            }
        }
        Ok(None)
    }
}

fn path_hash(path: &str) -> u64 {
    let hash = blake3::hash(path.as_bytes());
    hash.as_bytes().first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(path: &str, seed: u32) -> SpilledEntry {
        let frame = FrameRef { number: seed, offset: seed * 2, stored: 7, raw: 8192 };
        SpilledEntry {
            entry: FileEntry {
                path: path.to_owned(),
                kind: FileKind::Pages,
                mode: 0o600,
                modified: -5,
                size: 16384,
                extents: vec![
                    Extent::Zero { length: 8192 },
                    Extent::Stored { length: 8192, pack: PackId([seed as u8; 16]), frame, skip: 3 },
                ],
                page_hashes: None,
                content_hash: seed.is_multiple_of(2).then_some([9; 16]),
                damaged: vec![seed],
            },
            hashes: vec![0, u64::from(seed)],
        }
    }

    #[test]
    fn sorted_out_of_memory_as_in_memory() {
        let scratch = tempfile::tempdir().unwrap();
        for limit in [1 << 30, 1000] {
            let mut sorter = EntrySorter::new(scratch.path(), limit);
            let mut names: Vec<String> =
                (0..300_u32).map(|i| format!("base/{}", i.wrapping_mul(2_654_435_761))).collect();
            for (i, name) in names.iter().enumerate() {
                sorter.push(sample(name, i as u32)).unwrap();
            }
            let mut got = Vec::new();
            sorter
                .drain(|spilled| {
                    got.push(spilled);
                    Ok(())
                })
                .unwrap();
            names.sort();
            assert_eq!(got.iter().map(|s| s.entry.path.clone()).collect::<Vec<_>>(), names);
        }
    }

    #[test]
    fn sorted_by_the_bytes_of_the_names() {
        let scratch = tempfile::tempdir().unwrap();
        let mut sorter = EntrySorter::new(scratch.path(), 600);
        let names = ["az", "a\\xe9", "a\\xff", "b"];
        names.iter().rev().for_each(|name| sorter.push(sample(name, 1)).unwrap());
        let mut got = Vec::new();
        let taken = sorter.drain(|spilled| {
            got.push(spilled.entry.path);
            Ok(())
        });
        taken.unwrap();
        assert_eq!(got, names);
    }

    #[test]
    fn found_by_path_with_all_its_facts() {
        let scratch = tempfile::tempdir().unwrap();
        let mut all = (0..50_u32).map(|i| sample(&format!("f{i}"), i)).collect::<Vec<_>>().into_iter();
        let index = EntryIndex::build(scratch.path(), || Ok(all.next())).unwrap();
        assert_eq!(index.find("f17").unwrap(), Some(sample("f17", 17)));
        assert_eq!(index.find("f50").unwrap(), None);
    }
}
