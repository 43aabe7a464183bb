//! Frames become pages: every frame is fetched once, in the order in which packs hold them, and scattered into files.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

use everpoint_engine::StopFlag;
use everpoint_format::manifest::PackId;
use everpoint_format::seal::FrameRef;
use everpoint_repo::{ClusterRepo, PackReader};

use super::progress::Meter;
use crate::AppError;

/// So many pieces are gathered before they are sorted and fetched (56 bytes each).
pub const BATCH: usize = 1 << 19;
/// Raw bytes that a worker takes at a time.
const SHARE: u64 = 8 << 20;
/// Files that a worker keeps open.
const OPEN_FILES: usize = 64;
/// After so many bytes of a file the disk is asked to write them.
const WRITE_BACK: u64 = 32 << 20;
/// So many files wait for the disk at most.
const WRITE_BACK_QUEUE: usize = 16;

/// Bytes of a frame and where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Piece {
    /// The pack.
    pub pack: PackId,
    /// Number of the frame in it, by which pieces are sorted.
    pub number: u32,
    /// Where the bytes begin in the raw frame.
    pub skip: u32,
    /// How many.
    pub length: u32,
    /// Which file of the batch.
    pub file: u32,
    /// Where they go in it.
    pub offset: u64,
    /// Place of the frame in the pack: offset, stored length, raw length.
    pub place: (u32, u32, u32),
}

impl Piece {
    const fn frame(&self) -> FrameRef {
        FrameRef { number: self.number, offset: self.place.0, stored: self.place.1, raw: self.place.2 }
    }
}

/// Fetches and writes all pieces; `files` are the paths that they name.
///
/// # Errors
/// `Damaged` if a frame is missing or fails its check; otherwise what the disk says.
pub fn scatter(
    cluster: &ClusterRepo,
    mut pieces: Vec<Piece>,
    files: &[PathBuf],
    workers: usize,
    meter: &Meter<'_>,
    stop: &StopFlag,
) -> Result<(), AppError> {
    pieces.sort_unstable();
    let shares = shares(&pieces);
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failure: Mutex<Option<AppError>> = Mutex::new(None);
    let packs = Packs { cluster, open: Mutex::new(HashMap::new()) };
    let fail = |error: AppError| {
        failed.store(true, Ordering::Relaxed);
        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    };
    std::thread::scope(|scope| {
        let (written, to_disk) = std::sync::mpsc::sync_channel(WRITE_BACK_QUEUE);
        scope.spawn(|| write_back(to_disk).unwrap_or_else(fail));
        for _ in 0..workers.clamp(1, shares.len().max(1)) {
            let written = written.clone();
            let (packs, shares, pieces, next, failed) = (&packs, &shares, &pieces, &next, &failed);
            scope.spawn(move || {
                let mut hand = Hand { packs, files, handles: Vec::new(), raw: Vec::new(), written };
                while !failed.load(Ordering::Relaxed) {
                    let Some(range) = shares.get(next.fetch_add(1, Ordering::Relaxed)) else {
                        break;
                    };
                    let share = pieces.get(range.clone()).unwrap_or_default();
                    hand.share(share, meter, stop).unwrap_or_else(fail);
                }
            });
        }
        drop(written);
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Has the disk write what the workers have written while they go on, so that the end need not wait for all of it.
fn write_back(files: Receiver<File>) -> Result<(), AppError> {
    for file in files {
        file.sync_data()
            .map_err(|error| AppError::io("make durable", Path::new("a restored file"), error))?;
    }
    Ok(())
}

/// Ranges of pieces of about [`SHARE`] bytes that never cut a frame in two.
fn shares(pieces: &[Piece]) -> Vec<std::ops::Range<usize>> {
    let (mut shares, mut from, mut bytes) = (Vec::new(), 0, 0);
    let mut last: Option<(PackId, u32)> = None;
    for (i, piece) in pieces.iter().enumerate() {
        let frame = (piece.pack, piece.number);
        if bytes >= SHARE && last != Some(frame) {
            shares.push(from..i);
            (from, bytes) = (i, 0);
        }
        bytes += u64::from(piece.length);
        last = Some(frame);
    }
    if from < pieces.len() {
        shares.push(from..pieces.len());
    }
    shares
}

/// Open packs, shared by the workers.
struct Packs<'a> {
    cluster: &'a ClusterRepo,
    open: Mutex<HashMap<PackId, Arc<PackReader>>>,
}

impl Packs<'_> {
    fn get(&self, pack: PackId) -> Result<Arc<PackReader>, AppError> {
        if let Some(reader) = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&pack) {
            return Ok(reader.clone());
        }
        let reader = Arc::new(self.cluster.open_pack(pack)?);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= OPEN_FILES {
            open.clear();
        }
        open.insert(pack, reader.clone());
        Ok(reader)
    }
}

/// One worker.
struct Hand<'a> {
    packs: &'a Packs<'a>,
    files: &'a [PathBuf],
    handles: Vec<Handle>,
    raw: Vec<u8>,
    /// Files of which much was written.
    written: SyncSender<File>,
}

/// An open file.
struct Handle {
    number: u32,
    file: File,
    /// Bytes written since the disk was asked to write them.
    waiting: u64,
}

impl Hand<'_> {
    fn share(&mut self, pieces: &[Piece], meter: &Meter<'_>, stop: &StopFlag) -> Result<(), AppError> {
        for group in pieces.chunk_by(|a, b| (a.pack, a.number) == (b.pack, b.number)) {
            super::stopped(stop)?;
            let Some(first) = group.first() else { continue };
            let mut raw = std::mem::take(&mut self.raw);
            self.packs.get(first.pack)?.read_frame(&first.frame(), &mut raw)?;
            let written = group.iter().try_for_each(|piece| self.write(piece, &raw));
            self.raw = raw;
            written?;
            meter.add(group.iter().map(|piece| u64::from(piece.length)).sum());
        }
        Ok(())
    }

    fn write(&mut self, piece: &Piece, raw: &[u8]) -> Result<(), AppError> {
        let (from, length) = (piece.skip as usize, piece.length as usize);
        let Some(bytes) = raw.get(from..from.saturating_add(length)) else {
            return Err(super::damaged(
                "read",
                &format!("pack {}", piece.pack),
                "a frame is shorter than the map says",
            ));
        };
        let at = self.open(piece.file)?;
        let Some(handle) = self.handles.get_mut(at) else {
            return Err(super::damaged("open", "a file", "lost handle"));
        };
        if let Err(error) = handle.file.write_all_at(bytes, piece.offset) {
            return Err(AppError::io("write", self.path(piece.file), error));
        }
        handle.waiting += u64::from(piece.length);
        if handle.waiting >= WRITE_BACK {
            // If it can't be asked now, it is with the next bytes, or in the end.
            if let Ok(file) = handle.file.try_clone()
                && self.written.try_send(file).is_ok()
            {
                handle.waiting = 0;
            }
        }
        Ok(())
    }

    fn path(&self, number: u32) -> &Path {
        self.files.get(number as usize).map_or(Path::new(""), PathBuf::as_path)
    }

    /// Place of an open file among the handles.
    fn open(&mut self, number: u32) -> Result<usize, AppError> {
        if let Some(at) = self.handles.iter().position(|known| known.number == number) {
            return Ok(at);
        }
        let path = self.path(number);
        let file =
            File::options().write(true).open(path).map_err(|error| AppError::io("write", path, error))?;
        if self.handles.len() >= OPEN_FILES {
            self.handles.remove(0);
        }
        self.handles.push(Handle { number, file, waiting: 0 });
        Ok(self.handles.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_all_pieces_and_cut_no_frame() {
        let piece = |number, skip| Piece {
            pack: PackId([0; 16]),
            number,
            skip,
            length: 1 << 20,
            file: 0,
            offset: 0,
            place: (0, 0, 0),
        };
        let pieces: Vec<Piece> = (0..40).map(|i| piece(i / 10, i)).collect();
        let found = shares(&pieces);
        assert_eq!(found, vec![0..10, 10..20, 20..30, 30..40]);
    }
}
