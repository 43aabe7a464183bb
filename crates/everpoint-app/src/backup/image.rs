//! The sink of a backup: turns parts of files into packs and entries of the map.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use everpoint_engine::{BackupBegin, EngineError, FileKind, FileMeta, ImageSink, ImageWorker, StopFlag};
use everpoint_format::codec::Codec;
use everpoint_format::manifest::Extent;
use everpoint_repo::{ClusterRepo, PackWriter};

use super::engine_error;
use super::files::{OpenFiles, PartDone};
use super::prior::{PriorFile, PriorImage};
use super::resume::Resumed;
use super::spill::{EntrySorter, SpilledEntry};
use super::worker::Worker;
use crate::{AppError, Event, Events};

/// At most so many damaged pages are listed one by one; all are counted.
pub const DAMAGED_LISTED: usize = 10_000;

/// Damaged pages: file and number of the page in it.
pub type DamagedPages = Vec<(String, u32)>;

/// Sums over a backup.
#[derive(Debug, Default)]
pub struct Totals {
    /// Bytes of the image.
    pub image: AtomicU64,
    /// Bytes that had to be stored, before compression.
    pub new: AtomicU64,
    /// Bytes stored, after it.
    pub stored: AtomicU64,
    /// Files, without directories.
    pub files: AtomicU64,
    /// Damaged pages.
    pub damaged: AtomicU64,
}

/// See the module.
pub struct ImageWriter<'a> {
    cluster: &'a ClusterRepo,
    codec: Codec,
    prior: Option<PriorImage>,
    resumed: Resumed,
    stop: StopFlag,
    events: &'a dyn Events,
    /// Hears of damaged pages, which have a place of their own in the record.
    aside: &'a dyn Events,
    begin: OnceLock<BackupBegin>,
    open: OpenFiles,
    sorter: Mutex<EntrySorter>,
    damaged: Mutex<Vec<(String, u32)>>,
    totals: Totals,
    told: Mutex<Instant>,
}

impl<'a> ImageWriter<'a> {
    /// A sink that compares with `prior` and reuses what `resumed` knows.
    #[must_use]
    pub fn new(
        cluster: &'a ClusterRepo,
        codec: Codec,
        prior: Option<PriorImage>,
        resumed: Resumed,
        sorter: EntrySorter,
        stop: StopFlag,
        events: &'a dyn Events,
    ) -> Self {
        Self {
            cluster,
            codec,
            prior,
            resumed,
            stop,
            events,
            aside: events,
            begin: OnceLock::new(),
            open: OpenFiles::default(),
            sorter: Mutex::new(sorter),
            damaged: Mutex::new(Vec::new()),
            totals: Totals::default(),
            told: Mutex::new(Instant::now()),
        }
    }

    /// The same; `aside` hears of damaged pages.
    #[must_use]
    pub(super) fn damage_told_to(self, aside: &'a dyn Events) -> Self {
        Self { aside, ..self }
    }

    /// Where the backup began, once it has.
    pub fn begun(&self) -> Option<&BackupBegin> {
        self.begin.get()
    }

    /// Ends the taking of parts: sums, damaged pages, entries.
    ///
    /// # Errors
    /// If parts of a file are missing.
    pub fn into_parts(self) -> Result<(Totals, DamagedPages, EntrySorter), AppError> {
        if let Some(path) = self.open.incomplete().first() {
            return Err(AppError::new(
                "backup.incomplete",
                everpoint_core::FailureClass::Failed,
                "finish the image of",
                path.clone(),
                "parts of the file never arrived",
            ));
        }
        let damaged = self.damaged.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((self.totals, damaged, self.sorter.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }

    pub(super) fn prior_of(&self, file: &FileMeta) -> Result<Option<Arc<PriorFile>>, AppError> {
        match &self.prior {
            Some(prior) if file.kind == FileKind::Pages => {
                self.open.prior(&file.path, || prior.find(&file.path))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn resumed(&self, hash: &[u8; 16], length: usize) -> Option<Extent> {
        self.resumed.find(hash, length)
    }

    pub(super) fn new_pack(&self) -> Result<PackWriter, AppError> {
        Ok(self.cluster.pack_writer()?)
    }

    pub(super) const fn codec(&self) -> Codec {
        self.codec
    }

    pub(super) fn stopped(&self) -> Result<(), EngineError> {
        if self.stop.is_set() {
            return Err(EngineError::new("stopped", "go on with", "the backup", "it was asked to stop"));
        }
        Ok(())
    }

    pub(super) fn count(&self, bytes: u64) {
        let done = self.totals.image.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Ok(mut told) = self.told.try_lock()
            && told.elapsed().as_millis() >= 100
        {
            *told = Instant::now();
            let total = self.begin.get().map(|begin| begin.expected_bytes);
            self.events.emit(Event::Progress { done, total });
        }
    }

    pub(super) fn count_new(&self, bytes: u64) {
        self.totals.new.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn count_stored(&self, bytes: u64) {
        self.totals.stored.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes a finished part; the entry goes to the sorter when its file is complete.
    pub(super) fn deliver(&self, meta: &FileMeta, offset: u64, part: PartDone) -> Result<(), AppError> {
        self.note_damage(meta, &part.damaged);
        let Some(entry) = self.open.add(meta, offset, part) else {
            return Ok(());
        };
        if meta.kind != FileKind::Directory {
            self.totals.files.fetch_add(1, Ordering::Relaxed);
        }
        self.sort(entry)
    }

    fn sort(&self, entry: SpilledEntry) -> Result<(), AppError> {
        self.sorter.lock().unwrap_or_else(PoisonError::into_inner).push(entry)
    }

    fn note_damage(&self, meta: &FileMeta, pages: &[u32]) {
        if pages.is_empty() {
            return;
        }
        self.totals.damaged.fetch_add(pages.len() as u64, Ordering::Relaxed);
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        for page in pages {
            self.aside.emit(Event::Warning(format!("damaged page: block {page} of {}", meta.path)));
            if damaged.len() < DAMAGED_LISTED {
                damaged.push((meta.path.clone(), *page));
            }
        }
    }
}

impl ImageSink for ImageWriter<'_> {
    fn begin(&self, begin: &BackupBegin) -> Result<(), EngineError> {
        if begin.page_size as usize != super::PAGE {
            let message =
                format!("pages of {} bytes are not supported, only of {}", begin.page_size, super::PAGE);
            return Err(EngineError::new("backup.page_size", "back up", "the cluster", message));
        }
        self.begin
            .set(begin.clone())
            .map_err(|_| EngineError::new("internal", "begin", "the image", "it has begun already"))
    }

    fn warn(&self, text: &str) {
        self.events.emit(Event::Warning(text.to_owned()));
    }

    fn worker(&self) -> Result<Box<dyn ImageWorker + '_>, EngineError> {
        self.stopped().map_err(|error| engine_error(error.into()))?;
        Ok(Box::new(Worker::new(self)))
    }
}
