//! One thread's share of a backup: hash, compare, bundle, compress, seal.

use everpoint_engine::{EngineError, FileKind, FileMeta, ImageWorker, PART_BYTES, Part};
use everpoint_format::codec::Codec;
use everpoint_format::manifest::{Extent, PackId};
use everpoint_format::seal::FrameRef;
use everpoint_repo::{PackRunInput, PackWriter, RepoError};

use super::files::PartDone;
use super::image::ImageWriter;
use super::prior::{PriorFile, push_extent};
use super::{CHUNK, PACK_TARGET, PAGE, engine_error};

/// Stands for a run that is in the bundle; joins with no other extent.
const PLACEHOLDER: Extent = Extent::Stored {
    length: 0,
    pack: PackId([0; 16]),
    frame: FrameRef { number: u32::MAX, offset: 0, stored: 0, raw: 0 },
    skip: u32::MAX,
};

/// A part whose bytes partly wait in the bundle.
struct Waiting {
    meta: FileMeta,
    offset: u64,
    part: PartDone,
    /// Positions in `part.extents` that stand for runs of the bundle: (extent, run).
    open: Vec<(usize, usize)>,
}

/// See the module.
pub(super) struct Worker<'a> {
    image: &'a ImageWriter<'a>,
    pack: Option<PackWriter>,
    closing: Vec<std::thread::JoinHandle<Result<PackId, RepoError>>>,
    bundle: Vec<u8>,
    runs: Vec<PackRunInput>,
    waiting: Vec<Waiting>,
}

/// What a page is to the new image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Zero,
    Same,
    New,
}

impl<'a> Worker<'a> {
    pub(super) fn new(image: &'a ImageWriter<'a>) -> Self {
        let bundle = Vec::with_capacity(CHUNK);
        Self { image, pack: None, closing: Vec::new(), bundle, runs: Vec::new(), waiting: Vec::new() }
    }

    fn take(&mut self, file: &FileMeta, part: &Part<'_>) -> Result<(), RepoOrApp> {
        let prior = self.image.prior_of(file)?;
        let mut waiting = Waiting {
            meta: file.clone(),
            offset: part.offset,
            part: PartDone {
                length: part.data.len() as u64,
                last: part.last,
                damaged: part.damaged_pages.to_vec(),
                ..PartDone::default()
            },
            open: Vec::new(),
        };
        for (i, chunk) in part.data.chunks(CHUNK).enumerate() {
            self.chunk(&mut waiting, prior.as_deref(), part.offset + (i * CHUNK) as u64, chunk)?;
        }
        if file.kind != FileKind::Pages && file.kind != FileKind::Directory {
            waiting.part.content = *blake3::hash(part.data).as_bytes();
        }
        self.image.count(part.data.len() as u64);
        if waiting.open.is_empty() {
            self.deliver(waiting)?
        } else {
            self.waiting.push(waiting)
        }
        Ok(())
    }

    /// One aligned chunk: its pages are sorted into zero, known and new; runs of new ones are stored.
    fn chunk(
        &mut self,
        waiting: &mut Waiting,
        prior: Option<&PriorFile>,
        offset: u64,
        chunk: &[u8],
    ) -> Result<(), RepoOrApp> {
        let pages = waiting.meta.kind == FileKind::Pages;
        let (mut at, mut run) =
            (0, Run { state: State::Zero, from: 0, to: 0, hasher: blake3::Hasher::new() });
        for page in chunk.chunks(PAGE) {
            let (state, hash) = classify(page, prior, offset + at as u64, pages);
            if pages {
                waiting.part.hashes.push(hash.map_or(0, |full| short(&full)));
            }
            if state != run.state || run.to == run.from {
                self.close_run(waiting, prior, offset, chunk, &run)?;
                run = Run { state, from: at, to: at, hasher: blake3::Hasher::new() };
            }
            if let Some(full) = hash {
                run.hasher.update(full.as_bytes());
            }
            at += page.len();
            run.to = at;
        }
        self.close_run(waiting, prior, offset, chunk, &run)
    }

    fn close_run(
        &mut self,
        waiting: &mut Waiting,
        prior: Option<&PriorFile>,
        offset: u64,
        chunk: &[u8],
        run: &Run,
    ) -> Result<(), RepoOrApp> {
        let Some(bytes) = chunk.get(run.from..run.to).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        let length = bytes.len() as u64;
        let known = match run.state {
            State::Zero => Some(vec![Extent::Zero { length }]),
            State::Same => prior.and_then(|file| file.slice(offset + run.from as u64, length)),
            State::New => None,
        };
        if let Some(extents) = known {
            extents.into_iter().for_each(|extent| push_extent(&mut waiting.part.extents, extent));
            return Ok(());
        }
        let mut hash = [0; 16];
        hash.copy_from_slice(run.hasher.finalize().as_bytes().first_chunk::<16>().unwrap_or(&[0; 16]));
        if let Some(extent) = self.image.resumed(&hash, bytes.len()) {
            push_extent(&mut waiting.part.extents, extent);
            return Ok(());
        }
        self.image.count_new(length);
        let pages = waiting.meta.kind == FileKind::Pages;
        let input = PackRunInput { skip: 0, length: u32::try_from(length).unwrap_or(u32::MAX), hash, pages };
        if bytes.len() == CHUNK {
            let extent = self.store(self.image.codec(), bytes, &[input])?;
            push_extent(&mut waiting.part.extents, extent);
            return Ok(());
        }
        if self.bundle.len() + bytes.len() > CHUNK {
            self.flush_with(Some(waiting))?;
        }
        waiting.open.push((waiting.part.extents.len(), self.runs.len()));
        waiting.part.extents.push(PLACEHOLDER);
        self.runs.push(PackRunInput { skip: u32::try_from(self.bundle.len()).unwrap_or(u32::MAX), ..input });
        self.bundle.extend_from_slice(bytes);
        Ok(())
    }

    /// Seals one frame; the extent covers all of it.
    fn store(&mut self, codec: Codec, raw: &[u8], runs: &[PackRunInput]) -> Result<Extent, RepoOrApp> {
        let mut pack = match self.pack.take() {
            Some(pack) => pack,
            None => self.image.new_pack()?,
        };
        let frame = pack.add(codec, raw, runs)?;
        self.image.count_stored(u64::from(frame.stored));
        let id = pack.id();
        if pack.size() >= PACK_TARGET {
            self.close(pack)?;
        } else {
            self.pack = Some(pack);
        }
        Ok(Extent::Stored { length: u32::try_from(raw.len()).unwrap_or(u32::MAX), pack: id, frame, skip: 0 })
    }

    /// Makes a full pack durable beside further work; at most two at a time.
    fn close(&mut self, pack: PackWriter) -> Result<(), RepoOrApp> {
        if self.closing.len() >= 2 {
            join(self.closing.remove(0))?;
        }
        self.closing.push(std::thread::spawn(move || pack.finish()));
        Ok(())
    }

    /// Seals the bundle and delivers all parts that waited for it; `current` is patched but not delivered.
    fn flush_with(&mut self, current: Option<&mut Waiting>) -> Result<(), RepoOrApp> {
        if self.bundle.is_empty() {
            return Ok(());
        }
        let (raw, runs) = (std::mem::take(&mut self.bundle), std::mem::take(&mut self.runs));
        let stored = self.store(self.image.codec(), &raw, &runs)?;
        let Extent::Stored { pack, frame, .. } = stored else {
            return Ok(());
        };
        let patch = |waiting: &mut Waiting| {
            for (extent, run) in waiting.open.drain(..) {
                if let (Some(slot), Some(run)) = (waiting.part.extents.get_mut(extent), runs.get(run)) {
                    *slot = Extent::Stored { length: run.length, pack, frame, skip: run.skip };
                }
            }
        };
        if let Some(waiting) = current {
            patch(waiting);
        }
        for mut waiting in std::mem::take(&mut self.waiting) {
            patch(&mut waiting);
            self.deliver(waiting)?;
        }
        self.bundle = raw;
        self.bundle.clear();
        Ok(())
    }

    fn deliver(&self, waiting: Waiting) -> Result<(), RepoOrApp> {
        Ok(self.image.deliver(&waiting.meta, waiting.offset, waiting.part)?)
    }
}

struct Run {
    state: State,
    from: usize,
    to: usize,
    hasher: blake3::Hasher,
}

pub(super) fn short(hash: &blake3::Hash) -> u64 {
    hash.as_bytes().first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes).max(1))
}

/// What a page is, and its hash unless it is all zero.
fn classify(
    page: &[u8],
    prior: Option<&PriorFile>,
    offset: u64,
    pages: bool,
) -> (State, Option<blake3::Hash>) {
    if pages && is_zero(page) {
        return (State::Zero, None);
    }
    let hash = blake3::hash(page);
    let known = prior.and_then(|file| file.hashes.get(usize::try_from(offset / PAGE as u64).ok()?).copied());
    let whole = prior.is_some_and(|file| offset + page.len() as u64 <= file.entry.size);
    let same = pages && whole && page.len() == PAGE && known == Some(short(&hash));
    (if same { State::Same } else { State::New }, Some(hash))
}

pub(super) fn is_zero(page: &[u8]) -> bool {
    let (head, body) = page.split_at(page.len().min(64));
    head.iter().all(|byte| *byte == 0)
        && body.chunks(64).all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
}

fn join(handle: std::thread::JoinHandle<Result<PackId, RepoError>>) -> Result<PackId, RepoOrApp> {
    match handle.join() {
        Ok(result) => Ok(result?),
        Err(_) => Err(RepoOrApp::Engine(EngineError::new("internal", "finish", "a pack", "its thread died"))),
    }
}

/// Errors on the way, turned into the engine's at the border.
pub(super) enum RepoOrApp {
    Repo(RepoError),
    App(crate::AppError),
    Engine(EngineError),
}

impl From<RepoError> for RepoOrApp {
    fn from(error: RepoError) -> Self {
        Self::Repo(error)
    }
}

impl From<crate::AppError> for RepoOrApp {
    fn from(error: crate::AppError) -> Self {
        Self::App(error)
    }
}

impl From<RepoOrApp> for EngineError {
    fn from(error: RepoOrApp) -> Self {
        match error {
            RepoOrApp::Repo(error) => engine_error(error.into()),
            RepoOrApp::App(error) => engine_error(error),
            RepoOrApp::Engine(error) => error,
        }
    }
}

impl ImageWorker for Worker<'_> {
    fn part(&mut self, file: &FileMeta, part: Part<'_>) -> Result<(), EngineError> {
        debug_assert!(part.data.len() <= PART_BYTES && part.offset.is_multiple_of(PART_BYTES as u64));
        self.image.stopped()?;
        Ok(self.take(file, &part)?)
    }

    fn finish(mut self: Box<Self>) -> Result<(), EngineError> {
        self.flush_with(None)?;
        if let Some(pack) = self.pack.take() {
            pack.finish().map_err(RepoOrApp::Repo)?;
        }
        for handle in std::mem::take(&mut self.closing) {
            join(handle)?;
        }
        Ok(())
    }
}
