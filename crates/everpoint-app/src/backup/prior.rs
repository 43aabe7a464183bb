//! The newest image of the cluster, as that with which a new one is compared page by page.

use everpoint_format::manifest::{Extent, FileEntry};
use everpoint_repo::ClusterRepo;

use super::spill::{EntryIndex, SpilledEntry};
use crate::AppError;

/// An earlier image, searchable by path; only an index of it is in memory.
pub struct PriorImage {
    entries: EntryIndex,
    hashes: everpoint_repo::PagesReader,
}

/// One file of it.
#[derive(Debug)]
pub struct PriorFile {
    /// The file's entry.
    pub entry: FileEntry,
    /// One hash a page; empty for files that are not pages.
    pub hashes: Vec<u64>,
    starts: Vec<u64>,
}

impl PriorImage {
    /// Opens the image of backup `label`.
    ///
    /// # Errors
    /// If its map can't be read: the caller may take a full backup instead.
    pub fn open(cluster: &ClusterRepo, label: &str, scratch: &std::path::Path) -> Result<Self, AppError> {
        let mut manifest = cluster.open_manifest(label)?;
        let entries = EntryIndex::build(scratch, || {
            Ok(manifest.next_entry()?.map(|entry| {
                // The index of its hashes travels in the one field that a scratch entry leaves free.
                let first = entry.page_hashes.unwrap_or(u64::MAX);
                SpilledEntry { entry, hashes: vec![first] }
            }))
        })?;
        Ok(Self { entries, hashes: cluster.open_pages(label)? })
    }

    /// The file of this path, with its page hashes.
    ///
    /// # Errors
    /// If scratch file or repository can't be read.
    pub fn find(&self, path: &str) -> Result<Option<PriorFile>, AppError> {
        let Some(SpilledEntry { entry, hashes }) = self.entries.find(path)? else {
            return Ok(None);
        };
        let hashes = match hashes.first() {
            Some(&first) if first != u64::MAX => {
                self.hashes.read(first, entry.size.div_ceil(super::PAGE as u64))?
            }
            _ => Vec::new(),
        };
        Ok(Some(PriorFile::new(entry, hashes)))
    }
}

impl PriorFile {
    /// A file with its hashes.
    #[must_use]
    pub fn new(entry: FileEntry, hashes: Vec<u64>) -> Self {
        let mut at = 0;
        let starts = entry
            .extents
            .iter()
            .map(|extent| {
                let start = at;
                at += length_of(extent);
                start
            })
            .collect();
        Self { entry, hashes, starts }
    }

    /// Where the bytes from `offset` to `offset + length` are stored; `None` if the file does not reach so far.
    #[must_use]
    pub fn slice(&self, offset: u64, length: u64) -> Option<Vec<Extent>> {
        let end = offset + length;
        if end > self.entry.size {
            return None;
        }
        let mut at = self.starts.partition_point(|start| *start <= offset).checked_sub(1)?;
        let (mut position, mut found) = (offset, Vec::new());
        while position < end {
            let (extent, start) = (self.entry.extents.get(at)?, *self.starts.get(at)?);
            let take = (start + length_of(extent)).min(end).checked_sub(position)?;
            let inside = position - start;
            found.push(match extent {
                Extent::Zero { .. } => Extent::Zero { length: take },
                Extent::Stored { pack, frame, skip, .. } => Extent::Stored {
                    length: u32::try_from(take).ok()?,
                    pack: *pack,
                    frame: *frame,
                    skip: skip + u32::try_from(inside).ok()?,
                },
            });
            position += take;
            at += 1;
        }
        Some(found)
    }
}

/// How many bytes of the file an extent stands for.
#[must_use]
pub const fn length_of(extent: &Extent) -> u64 {
    match extent {
        Extent::Zero { length } => *length,
        Extent::Stored { length, .. } => *length as u64,
    }
}

/// Adds an extent behind others, joined with the last one where they lie side by side in the same frame.
pub fn push_extent(extents: &mut Vec<Extent>, next: Extent) {
    match (extents.last_mut(), &next) {
        (Some(Extent::Zero { length }), Extent::Zero { length: more }) => *length += more,
        (
            Some(Extent::Stored { length, pack, frame, skip }),
            Extent::Stored { length: more, pack: next_pack, frame: next_frame, skip: next_skip },
        ) if pack == next_pack && frame == next_frame && *skip + *length == *next_skip => *length += more,
        _ => extents.push(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use everpoint_format::manifest::{FileKind, PackId};
    use everpoint_format::seal::FrameRef;

    fn stored(length: u32, number: u32, skip: u32) -> Extent {
        let frame = FrameRef { number, offset: 0, stored: 10, raw: 1 << 18 };
        Extent::Stored { length, pack: PackId([1; 16]), frame, skip }
    }

    #[test]
    fn a_slice_cuts_extents_at_both_ends_and_joins_what_was_one() {
        let extents = vec![stored(16384, 0, 8192), Extent::Zero { length: 8192 }, stored(8192, 5, 0)];
        let entry = FileEntry {
            path: "a".into(),
            kind: FileKind::Pages,
            mode: 0,
            modified: 0,
            size: 32768,
            extents,
            page_hashes: None,
            content_hash: None,
            damaged: vec![],
        };
        let file = PriorFile::new(entry, vec![]);
        assert_eq!(file.slice(0, 8192), Some(vec![stored(8192, 0, 8192)]));
        assert_eq!(
            file.slice(8192, 16384),
            Some(vec![stored(8192, 0, 16384), Extent::Zero { length: 8192 }])
        );
        assert_eq!(file.slice(24576, 8192), Some(vec![stored(8192, 5, 0)]));
        assert_eq!(file.slice(24576, 8193), None);
        let mut joined = Vec::new();
        for piece in [file.slice(0, 8192), file.slice(8192, 8192)].into_iter().flatten().flatten() {
            push_extent(&mut joined, piece);
        }
        assert_eq!(joined, vec![stored(16384, 0, 8192)]);
    }
}
