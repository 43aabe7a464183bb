//! Frames become pages: every frame is fetched once, in the order in which packs hold them, and scattered into files.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use everpoint_engine::StopFlag;
use everpoint_format::manifest::PackId;
use everpoint_format::seal::FrameRef;
use everpoint_repo::{ClusterRepo, PackReader};

use super::output::{Output, Target, write_back};
use super::progress::Meter;
use crate::AppError;

/// So many pieces are gathered before they are sorted and fetched (56 bytes each).
pub const BATCH: usize = 1 << 19;
/// Raw bytes that a worker takes at a time.
const SHARE: u64 = 8 << 20;
/// Packs that are kept open.
const OPEN_PACKS: usize = 64;
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

/// How pieces get into their files.
pub struct Scatter<'a> {
    /// Where the frames are stored.
    pub cluster: &'a ClusterRepo,
    /// The files that the pieces name by number.
    pub files: &'a [Target],
    /// Threads.
    pub workers: usize,
    /// Progress.
    pub meter: &'a Meter<'a>,
    /// Asks to stop.
    pub stop: &'a StopFlag,
}

impl Scatter<'_> {
    /// Fetches and writes all pieces.
    ///
    /// # Errors
    /// `Damaged` if a frame is missing or fails its check; otherwise what the disk says.
    pub fn run(&self, mut pieces: Vec<Piece>) -> Result<(), AppError> {
        pieces.sort_unstable();
        let shares = shares(&pieces);
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let failure: Mutex<Option<AppError>> = Mutex::new(None);
        let packs = Packs { cluster: self.cluster, open: Mutex::new(HashMap::new()) };
        let fail = |error: AppError| {
            failed.store(true, Ordering::Relaxed);
            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        };
        std::thread::scope(|scope| {
            let (written, to_disk) = std::sync::mpsc::sync_channel(WRITE_BACK_QUEUE);
            scope.spawn(|| write_back(to_disk).unwrap_or_else(fail));
            for _ in 0..self.workers.clamp(1, shares.len().max(1)) {
                let output = Output::new(self.files, written.clone());
                let (packs, shares, pieces, next, failed) = (&packs, &shares, &pieces, &next, &failed);
                scope.spawn(move || {
                    let mut hand = Hand { packs, output, raw: Vec::new() };
                    while !failed.load(Ordering::Relaxed) {
                        let Some(range) = shares.get(next.fetch_add(1, Ordering::Relaxed)) else {
                            break;
                        };
                        let share = pieces.get(range.clone()).unwrap_or_default();
                        hand.share(share, self.meter, self.stop).unwrap_or_else(fail);
                    }
                });
            }
            drop(written);
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
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
        if open.len() >= OPEN_PACKS {
            open.clear();
        }
        open.insert(pack, reader.clone());
        Ok(reader)
    }
}

/// One worker.
struct Hand<'a> {
    packs: &'a Packs<'a>,
    output: Output<'a>,
    raw: Vec<u8>,
}

impl Hand<'_> {
    fn share(&mut self, pieces: &[Piece], meter: &Meter<'_>, stop: &StopFlag) -> Result<(), AppError> {
        for group in pieces.chunk_by(|a, b| (a.pack, a.number) == (b.pack, b.number)) {
            super::stopped(stop)?;
            let Some(first) = group.first() else { continue };
            self.packs.get(first.pack)?.read_frame(&first.frame(), &mut self.raw)?;
            for piece in group {
                let (from, length) = (piece.skip as usize, piece.length as usize);
                let bytes = self.raw.get(from..from.saturating_add(length)).ok_or_else(|| {
                    let pack = format!("pack {}", piece.pack);
                    super::damaged("read", &pack, "a frame is shorter than the map says")
                })?;
                self.output.put(piece.file, piece.offset, bytes)?;
            }
            meter.add(group.iter().map(|piece| u64::from(piece.length)).sum());
        }
        self.output.flush()
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
