//! Writes an image into a directory: all of it, or only what differs from what is there.

mod content;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use everpoint_engine::{PART_BYTES, StopFlag};
use everpoint_format::manifest::{Extent, FileEntry, FileKind};
use everpoint_repo::{ClusterRepo, PagesReader, RepoError};
use rustix::fs::FallocateFlags;

use super::kept::beside;
use super::known::Known;
use super::mark::MARKER;
use super::output::{Target, suit_past_cache};
use super::progress::Meter;
use super::scatter::{BATCH, Piece, Scatter};
use super::survey::{Walker, is_written_in_place};
use super::tree::{Tree, remove_any};
use crate::AppError;
use crate::backup::PAGE;
use crate::backup::prior::{PriorFile, length_of};
pub(super) use content::hash_of;
use content::{content_hash, zero};

/// The file without which no server starts: removed first, written last.
pub(super) const CONTROL: &str = "global/pg_control";
/// What a server writes anew whenever it starts, and starts without.
const REBUILT: [&str; 2] = ["postmaster.opts", "global/pg_internal.init"];
/// With it a server recovers from an archive.
pub(super) const RECOVERS: &str = "recovery.signal";
/// Where configuration from outside the data directory is put, for the operator to pick from.
pub const EXTERNAL: &str = "everpoint-external";
/// Files of at least this size are preallocated.
const PREALLOCATE: u64 = 1 << 20;

/// What is needed to write an image.
pub struct ImageRestore<'a> {
    /// Where it is stored.
    pub cluster: &'a ClusterRepo,
    /// Its label.
    pub label: &'a str,
    /// Where it goes.
    pub tree: &'a Tree,
    /// What is there is compared, and only what differs is written; `None`: nothing is there.
    pub over: Option<Over<'a>>,
    /// See [`Tree::begin`].
    pub left: &'a [PathBuf],
    /// Long files go past the kernel's page cache.
    pub past_cache: bool,
    /// Threads.
    pub workers: usize,
    /// Progress.
    pub meter: &'a Meter<'a>,
    /// Asks to stop.
    pub stop: &'a StopFlag,
}

/// An earlier state of the directory, over which an image is written.
#[derive(Clone, Copy)]
pub struct Over<'a> {
    /// The paths of the image: all else goes.
    pub known: &'a Known,
    /// Whether a name in the directory of the log is the server's.
    pub is_log_name: &'a (dyn Fn(&str) -> bool + Sync),
}

/// A file of the batch.
struct Item {
    file: PriorFile,
    path: PathBuf,
}

impl ImageRestore<'_> {
    /// Writes the image, its control file last.
    ///
    /// # Errors
    /// `Damaged` if the repository's data fail their checks; what was written then has no control file and is marked as
    /// incomplete, so that no server can start on it.
    pub fn write(&self) -> Result<(), AppError> {
        self.begin()?;
        if let Some(over) = self.over {
            self.remove_control()?;
            Walker::new(self.tree, over.known, &over.is_log_name, self.stop).remove()?;
            self.shrink()?;
        }
        self.tree.link()?;
        let mut manifest = self.cluster.open_manifest(self.label)?;
        let hashes = if self.over.is_some() { self.page_hashes()? } else { None };
        let (mut batch, mut weight, mut control) = (Vec::new(), 0, None);
        while let Some(entry) = manifest.next_entry()? {
            super::stopped(self.stop)?;
            let Some(entry) = self.wanted(entry)? else { continue };
            if entry.kind != FileKind::External && entry.path.split('/').next() == Some(EXTERNAL) {
                // An older backup took what a restore had put aside; its own external files count.
                continue;
            }
            if entry.kind == FileKind::Directory {
                self.tree.directory(&self.tree.place(&entry.path)?, entry.mode)?;
                continue;
            }
            let item = self.item(entry, hashes.as_ref())?;
            if item.file.entry.path == CONTROL {
                control = Some(item);
                continue;
            }
            weight += item.file.entry.extents.len() + item.file.hashes.len() / 4 + 4;
            batch.push(item);
            if weight >= BATCH {
                self.flush(&std::mem::take(&mut batch))?;
                weight = 0;
            }
        }
        self.flush(&batch)?;
        let control =
            control.ok_or_else(|| super::damaged("restore", CONTROL, "the image holds no such file"))?;
        // Who starts a server from here on, before the recovery settings are written, gets an error instead of a server that
        // passed its target: it recovers from an archive, and knows of none.
        self.tree.small_file(RECOVERS)?;
        self.tree.sync()?;
        self.flush(std::slice::from_ref(&control))
    }

    /// What of an image's entry is written: in the place of what stays nothing, but what a file says otherwise goes beside it.
    fn wanted(&self, mut entry: FileEntry) -> Result<Option<FileEntry>, AppError> {
        if entry.kind == FileKind::External {
            return Ok(Some(entry));
        }
        if self.tree.takes(&entry.path)? {
            // Directories stay where what stays lies in them.
            let above = entry.kind != FileKind::Directory && self.tree.kept().is_below(&entry.path);
            return Ok((!above).then_some(entry));
        }
        let differs = self.over.is_some_and(|over| over.known.differs(&entry.path));
        entry.path = beside(&entry.path);
        Ok(differs.then_some(entry))
    }

    /// Marks the places. Where that fails, a directory that was whole goes on being what it was.
    fn begin(&self) -> Result<(), AppError> {
        let unfinished = self.tree.root().join(MARKER).exists();
        let begun = self.tree.begin(self.left, &|| self.over.is_some() && self.spare());
        if begun.is_err() && !unfinished && self.tree.root().join(CONTROL).exists() {
            self.tree.unmark();
        }
        begun
    }

    /// Frees some blocks of a full disk at which nothing is lost, so that the mark can be written before all else goes.
    fn spare(&self) -> bool {
        rebuilt(self.tree.root()).iter().filter(|path| std::fs::remove_file(path).is_ok()).count() > 0
    }

    /// From here on no server starts on the directory. A `global` that is a link leads to somebody else's.
    fn remove_control(&self) -> Result<(), AppError> {
        let control = self.tree.place(CONTROL)?;
        if lies_in_directory(&control) { remove_any(&control) } else { Ok(()) }
    }

    /// What files have behind their new end goes before anything is written: that may be the room for it.
    fn shrink(&self) -> Result<(), AppError> {
        let mut manifest = self.cluster.open_manifest(self.label)?;
        while let Some(entry) = manifest.next_entry()? {
            super::stopped(self.stop)?;
            let in_tree = !matches!(entry.kind, FileKind::External | FileKind::Directory);
            if !in_tree || !self.tree.takes(&entry.path)? {
                continue;
            }
            let path = self.tree.place(&entry.path)?;
            let longer = std::fs::symlink_metadata(&path).is_ok_and(|found| found.len() > entry.size);
            if longer && is_written_in_place(&path) {
                let cut = self.tree.create(&path, &entry)?.set_len(entry.size);
                cut.map_err(|error| AppError::io("write", &path, error))?;
            }
        }
        Ok(())
    }

    /// The page hashes of the image; they only spare writing, so an image that has lost them is written whole.
    fn page_hashes(&self) -> Result<Option<PagesReader>, AppError> {
        known_or_lost(self.cluster.open_pages(self.label))
    }

    fn item(&self, entry: FileEntry, hashes: Option<&PagesReader>) -> Result<Item, AppError> {
        let path = match entry.kind {
            FileKind::External => self.tree.place(&format!("{EXTERNAL}/{}", entry.path))?,
            _ => self.tree.place(&entry.path)?,
        };
        let hashes = match (hashes, entry.page_hashes) {
            (Some(reader), Some(first)) => {
                let read = reader.read(first, entry.size.div_ceil(PAGE as u64));
                known_or_lost(read)?.unwrap_or_default()
            }
            _ => Vec::new(),
        };
        Ok(Item { file: PriorFile::new(entry, hashes), path })
    }

    /// Brings the files of a batch to their state.
    fn flush(&self, batch: &[Item]) -> Result<(), AppError> {
        let (next, pieces, failure) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(None));
        let past_cache: Vec<AtomicBool> = batch.iter().map(|_| AtomicBool::new(false)).collect();
        std::thread::scope(|scope| {
            for _ in 0..self.workers.clamp(1, batch.len().max(1)) {
                scope.spawn(|| {
                    let mut found = Vec::new();
                    while let Some((at, item, past_cache)) = {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        batch.get(i).zip(past_cache.get(i)).map(|(item, past_cache)| (i, item, past_cache))
                    } {
                        match self.prepare(u32::try_from(at).unwrap_or(u32::MAX), item, &mut found) {
                            Ok(past) => past_cache.store(past, Ordering::Relaxed),
                            Err(error) => {
                                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                                next.store(batch.len(), Ordering::Relaxed);
                            }
                        }
                    }
                    pieces.lock().unwrap_or_else(PoisonError::into_inner).append(&mut found);
                });
            }
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let pieces: Vec<Piece> = pieces.into_inner().unwrap_or_else(PoisonError::into_inner);
        let target = |(item, past_cache): (&Item, AtomicBool)| Target {
            path: item.path.clone(),
            past_cache: past_cache.into_inner(),
        };
        let files: Vec<Target> = batch.iter().zip(past_cache).map(target).collect();
        let (cluster, files, workers) = (self.cluster, files.as_slice(), self.workers);
        Scatter { cluster, files, workers, meter: self.meter, stop: self.stop }.run(pieces)
    }

    /// Makes the file with its size and finds which of its bytes have to be fetched; whether they go past the page cache.
    fn prepare(&self, number: u32, item: &Item, pieces: &mut Vec<Piece>) -> Result<bool, AppError> {
        super::stopped(self.stop)?;
        let entry = &item.file.entry;
        if let Some(parent) = item.path.parent() {
            self.tree.directory(parent, 0o700)?;
        }
        let fresh = self.over.is_none() || !is_written_in_place(&item.path);
        if self.over.is_some() && fresh {
            remove_any(&item.path)?;
        }
        let file = self.tree.create(&item.path, entry)?;
        let wrap = |error| AppError::io("write", &item.path, error);
        let before = file.metadata().map_err(wrap)?.len();
        let sparse = entry.extents.iter().any(|extent| matches!(extent, Extent::Zero { .. }));
        if fresh && entry.size >= PREALLOCATE && !sparse {
            // Not every file system can; then the blocks come as they are written.
            let _unsupported = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, entry.size);
        }
        if before != entry.size {
            file.set_len(entry.size).map_err(wrap)?;
        }
        if fresh {
            let known = pieces.len();
            self.all(number, item, pieces);
            let long = self.past_cache && entry.size >= PREALLOCATE;
            return Ok(long && suit_past_cache(pieces.get(known..).unwrap_or_default()));
        }
        self.differing(number, item, &file, before.min(entry.size), pieces)?;
        Ok(false)
    }

    fn all(&self, number: u32, item: &Item, pieces: &mut Vec<Piece>) {
        let mut offset = 0;
        for extent in &item.file.entry.extents {
            self.piece(number, extent, offset, pieces);
            offset += length_of(extent);
        }
    }

    fn piece(&self, number: u32, extent: &Extent, offset: u64, pieces: &mut Vec<Piece>) {
        match extent {
            Extent::Zero { length } => self.meter.skip(*length),
            Extent::Stored { length, pack, frame, skip } => pieces.push(Piece {
                pack: *pack,
                number: frame.number,
                skip: *skip,
                length: *length,
                file: number,
                offset,
                place: (frame.offset, frame.stored, frame.raw),
            }),
        }
    }

    /// Reads what is there, up to `there` bytes, and asks for the pages whose hashes differ.
    fn differing(
        &self,
        number: u32,
        item: &Item,
        file: &File,
        there: u64,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), AppError> {
        let entry = &item.file.entry;
        if entry.kind != FileKind::Pages {
            if there == entry.size && content_hash(file, entry.size, &item.path)? == entry.content_hash {
                self.meter.skip(entry.size);
            } else {
                zero(file, 0, entry.size, &item.path)?;
                self.all(number, item, pieces);
            }
            return Ok(());
        }
        let (mut buffer, mut offset) = (vec![0; PART_BYTES], 0);
        while offset < entry.size {
            let length = usize::try_from(entry.size - offset).unwrap_or(PART_BYTES).min(PART_BYTES);
            let part = buffer.get_mut(..length).unwrap_or_default();
            file.read_exact_at(part, offset).map_err(|error| AppError::io("read", &item.path, error))?;
            for (i, page) in part.chunks(PAGE).enumerate() {
                let at = offset + (i * PAGE) as u64;
                let wanted =
                    usize::try_from(at / PAGE as u64).ok().and_then(|page| item.file.hashes.get(page));
                if at < there && wanted == Some(&crate::backup::page_hash(page)) {
                    self.meter.skip(page.len() as u64);
                    continue;
                }
                let extents = item.file.slice(at, page.len() as u64);
                for extent in extents.ok_or_else(|| {
                    super::damaged("restore", &entry.path, "the map does not cover the file")
                })? {
                    if matches!(extent, Extent::Zero { .. }) {
                        zero(file, at, page.len() as u64, &item.path)?;
                    }
                    self.piece(number, &extent, at, pieces);
                }
            }
            offset += length as u64;
        }
        Ok(())
    }
}

/// What may go before the mark is written, since a server makes it anew.
pub(super) fn rebuilt(root: &Path) -> Vec<PathBuf> {
    let paths = REBUILT.iter().map(|name| (name, root.join(name)));
    paths
        .filter(|(name, path)| !name.contains('/') || lies_in_directory(path))
        .map(|(_, path)| path)
        .collect()
}

/// Whether a path lies in a directory, and not behind a link: that leads to somebody else's.
fn lies_in_directory(path: &Path) -> bool {
    path.parent().is_some_and(|above| std::fs::symlink_metadata(above).is_ok_and(|found| found.is_dir()))
}

/// `None` for page hashes that are damaged or gone.
fn known_or_lost<T>(read: Result<T, RepoError>) -> Result<Option<T>, AppError> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_damaged() || error.is_missing() => {
            tracing::warn!(%error, "without page hashes whole files are written");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_spared_through_a_link() {
        let home = tempfile::tempdir().unwrap();
        let [root, live] = ["root", "live"].map(|name| home.path().join(name));
        std::fs::create_dir_all(root.join("global")).unwrap();
        assert_eq!(rebuilt(&root).len(), REBUILT.len());
        std::fs::rename(root.join("global"), &live).unwrap();
        std::os::unix::fs::symlink(&live, root.join("global")).unwrap();
        assert_eq!(rebuilt(&root), [root.join("postmaster.opts")]);
    }
}
