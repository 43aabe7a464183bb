//! Reading from bundles.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use everpoint_core::{Digest, Span};
use everpoint_format::FormatError;
use everpoint_format::bundle::{BundleTable, FramePart};
use everpoint_format::digest;
use everpoint_format::seal::{FrameOpened, FrameOpener, HEADER_LEN, ObjectKind};
use everpoint_store::ObjectReader;

use super::{DATA, gone};
use crate::RepoError;
use crate::object::{Shared, format_error};

/// The index of a bundle.
pub(crate) struct Index {
    name: String,
    pub(super) table: BundleTable,
    digests: Vec<u8>,
}

impl Index {
    pub(super) fn new(name: &str, table: BundleTable, digests: Vec<u8>) -> Self {
        Self { name: name.to_owned(), table, digests }
    }

    pub(super) fn same(&self, other: &Self) -> bool {
        self.table == other.table && self.digests == other.digests
    }

    /// Reads the index that is expected to describe `span`.
    pub(super) fn read(
        shared: &Shared,
        name: &str,
        span: Span,
        segment_size: u64,
    ) -> Result<Self, RepoError> {
        let wrap = |error| format_error("read", name, error);
        let mut reader = shared.read_stream(name, ObjectKind::BundleIndex)?;
        let table = BundleTable::decode(&mut reader).map_err(wrap)?;
        let mut digests = Vec::new();
        reader.read_to_end(&mut digests).map_err(|error| wrap(error.into()))?;
        let expected: u64 = table.segments.iter().map(|segment| u64::from(segment.digest)).sum();
        if (table.first, table.segment_size) != (span.from.0, segment_size)
            || table.raw_bytes() != span.to.since(span.from)
            || expected != digests.len() as u64
        {
            return Err(RepoError::damaged("read", name, "it does not describe the bundle of its name"));
        }
        Ok(Self { name: name.to_owned(), table, digests })
    }

    /// The digest of segment number `number`.
    pub(super) fn digest(&self, number: usize) -> Result<Digest, RepoError> {
        let segment = self.table.segments.get(number).ok_or_else(|| gone(&self.name))?;
        let before = self.table.segments.iter().take(number).map(|segment| segment.digest as usize).sum();
        let bytes = self.digests.get(before..).and_then(|rest| rest.get(..segment.digest as usize));
        let found = digest::decode(bytes.unwrap_or_default())
            .map_err(|error| format_error("read", &self.name, error))?;
        if found.content_hash != segment.hash {
            return Err(RepoError::damaged("read", &self.name, "a digest is not that of its segment"));
        }
        Ok(found)
    }
}

/// The data object of a bundle. The frame that was expanded last is kept: the segment that is read next often begins in it.
pub(crate) struct Opened {
    name: String,
    reader: Box<dyn ObjectReader>,
    opener: FrameOpener,
    index: Arc<Index>,
    recent: Mutex<Option<(u32, Arc<Vec<u8>>)>>,
}

impl Opened {
    pub(super) fn open(shared: &Shared, name: &str, index: Arc<Index>) -> Result<Self, RepoError> {
        let reader = shared.store.open(name)?;
        let mut header = vec![0; usize::try_from(reader.size()).unwrap_or(HEADER_LEN).min(HEADER_LEN)];
        reader.read_at(0, &mut header)?;
        let opener = FrameOpener::new(&shared.address(name, DATA), &header, &shared.ring)
            .map_err(|error| format_error("open", name, error))?;
        Ok(Self { name: name.to_owned(), reader, opener, index, recent: Mutex::new(None) })
    }

    fn parts(&self, number: usize) -> Result<Vec<FramePart>, RepoError> {
        let parts = self.index.table.parts(number).map_err(|error| self.wrap(error))?;
        if parts.is_empty() { Err(gone(&self.name)) } else { Ok(parts) }
    }

    /// Hands out the bytes of segment number `number`.
    pub(super) fn read(&self, number: usize, out: &mut dyn FnMut(&[u8])) -> Result<(), RepoError> {
        for part in self.parts(number)? {
            out(self.slice(&self.frame(&part)?, &part)?);
        }
        Ok(())
    }

    /// The bytes of segment number `number`.
    pub(super) fn read_into(&self, number: usize, workers: usize) -> Result<Vec<u8>, RepoError> {
        let parts = self.parts(number)?;
        let mut bytes =
            Vec::with_capacity(usize::try_from(self.index.table.segment_size).unwrap_or_default());
        for batch in parts.chunks(workers.max(1)) {
            let frames: Vec<Result<Arc<Vec<u8>>, RepoError>> = std::thread::scope(|scope| {
                let (first, others) = batch.split_first().map_or((None, batch), |(a, b)| (Some(a), b));
                let threads: Vec<_> = others.iter().map(|part| scope.spawn(|| self.frame(part))).collect();
                let mut frames: Vec<_> = first.into_iter().map(|part| self.frame(part)).collect();
                frames.extend(
                    threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(self.died()))),
                );
                frames
            });
            for (part, frame) in batch.iter().zip(frames) {
                bytes.extend_from_slice(self.slice(&frame?, part)?);
            }
        }
        Ok(bytes)
    }

    fn slice<'a>(&self, frame: &'a [u8], part: &FramePart) -> Result<&'a [u8], RepoError> {
        let rest = frame.get(part.skip as usize..);
        rest.and_then(|rest| rest.get(..part.length as usize)).ok_or_else(|| self.unlike())
    }

    fn frame(&self, part: &FramePart) -> Result<Arc<Vec<u8>>, RepoError> {
        let wanted = part.frame;
        {
            let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, frame)) = recent.as_ref().filter(|(number, _)| *number == wanted.number) {
                return Ok(Arc::clone(frame));
            }
        }
        if u64::from(wanted.offset).saturating_add(u64::from(wanted.stored)) > self.reader.size() {
            return Err(self.unlike());
        }
        let mut stored = vec![0; wanted.stored as usize];
        self.reader.read_at(u64::from(wanted.offset), &mut stored)?;
        let mut raw = Vec::new();
        let opened = self.opener.open(wanted.number, &stored, &mut raw).map_err(|error| self.wrap(error))?;
        if opened != FrameOpened::Data || raw.len() != wanted.raw as usize {
            return Err(self.unlike());
        }
        let raw = Arc::new(raw);
        // One that ends with the segment is not wanted again soon.
        if part.skip + part.length < wanted.raw {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            *recent = Some((wanted.number, Arc::clone(&raw)));
        }
        Ok(raw)
    }

    fn unlike(&self) -> RepoError {
        RepoError::damaged("read", &self.name, "a frame is not what its index says")
    }

    fn died(&self) -> RepoError {
        RepoError::new("internal", "read", &self.name, "a thread that decompressed it died")
    }

    fn wrap(&self, error: FormatError) -> RepoError {
        format_error("read", &self.name, error)
    }
}
