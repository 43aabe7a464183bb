//! Files whose parts arrive in any order, put together to entries of the map.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use everpoint_core::Micros;
use everpoint_engine::{FileKind as EngineKind, FileMeta};
use everpoint_format::manifest::{Extent, FileEntry, FileKind};

use super::prior::{PriorFile, push_extent};
use super::spill::SpilledEntry;

/// What became of one part of a file.
#[derive(Debug, Default)]
pub struct PartDone {
    /// Bytes in it.
    pub length: u64,
    /// The file ends after it.
    pub last: bool,
    /// Where its bytes are stored.
    pub extents: Vec<Extent>,
    /// Page hashes (files of pages).
    pub hashes: Vec<u64>,
    /// BLAKE3 of the part (other files).
    pub content: [u8; 32],
    /// Damaged pages.
    pub damaged: Vec<u32>,
}

/// A file that is not complete yet.
#[derive(Debug, Default)]
struct OpenFile {
    prior: Option<Option<Arc<PriorFile>>>,
    parts: BTreeMap<u64, PartDone>,
    received: u64,
    end: Option<u64>,
}

/// All files that are not complete yet.
#[derive(Debug, Default)]
pub struct OpenFiles {
    files: Mutex<HashMap<String, OpenFile>>,
}

impl OpenFiles {
    /// The file's counterpart in the prior image: looked up once a file.
    ///
    /// # Errors
    /// What `find` returns.
    pub fn prior<E>(
        &self,
        path: &str,
        find: impl FnOnce() -> Result<Option<PriorFile>, E>,
    ) -> Result<Option<Arc<PriorFile>>, E> {
        if let Some(known) = self.lock().entry(path.to_owned()).or_default().prior.clone() {
            return Ok(known);
        }
        // Looked up outside the lock: two workers may do so for one file, which costs time but is right.
        let found = find()?.map(Arc::new);
        self.lock().entry(path.to_owned()).or_default().prior = Some(found.clone());
        Ok(found)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, OpenFile>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a part; returns the entry when it was the one that was missing.
    pub fn add(&self, meta: &FileMeta, offset: u64, part: PartDone) -> Option<SpilledEntry> {
        let mut files = self.lock();
        let open = files.entry(meta.path.clone()).or_default();
        open.received += part.length;
        if part.last {
            open.end = Some(offset + part.length);
        }
        open.parts.insert(offset, part);
        if open.end != Some(open.received) {
            return None;
        }
        let done = files.remove(&meta.path)?;
        drop(files);
        Some(assemble(meta, done))
    }

    /// Paths of files of which parts are missing.
    pub fn incomplete(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }
}

fn assemble(meta: &FileMeta, open: OpenFile) -> SpilledEntry {
    let (mut extents, mut hashes, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
    let mut content = blake3::Hasher::new();
    for part in open.parts.into_values() {
        part.extents.into_iter().for_each(|extent| push_extent(&mut extents, extent));
        hashes.extend(part.hashes);
        damaged.extend(part.damaged);
        content.update(&part.content);
    }
    let kind = kind(meta.kind);
    let content_hash = matches!(kind, FileKind::Plain | FileKind::External)
        .then(|| content.finalize().as_bytes().first_chunk::<16>().copied())
        .flatten();
    let Micros(modified) = meta.modified;
    let entry = FileEntry {
        path: meta.path.clone(),
        kind,
        mode: meta.mode,
        modified,
        size: open.received,
        extents,
        page_hashes: None,
        content_hash,
        damaged,
    };
    SpilledEntry { entry, hashes }
}

/// The kind as the map names it.
#[must_use]
pub const fn kind(kind: EngineKind) -> FileKind {
    match kind {
        EngineKind::Pages => FileKind::Pages,
        EngineKind::Plain => FileKind::Plain,
        EngineKind::Directory => FileKind::Directory,
        EngineKind::External => FileKind::External,
    }
}
