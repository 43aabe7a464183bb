//! Whole segments: stored, read back, and only then given their digest.

use std::io::Write;

use everpoint_core::{Digest, FailureClass, LogOffset, Span};
use everpoint_format::codec::Compressor;
use everpoint_format::digest;
use everpoint_format::seal::{FrameSealer, ObjectKind};
use everpoint_format::stream::FrameStreamWriter;

use super::{LogStore, Stored};
use crate::RepoError;
use crate::error::code;
use crate::object::{StoreWrite, format_error, random};

/// Segments up to this size are read back as a whole by several threads.
const IN_MEMORY: u64 = 64 << 20;
/// Raw bytes that a thread compresses before they are handed to the store.
const BATCH: usize = 4 << 20;

impl LogStore {
    /// Begins the segment that starts at `start`. Dropped before [`SegmentWriter::finish`] it leaves nothing.
    ///
    /// # Errors
    /// `repo.invalid` if no segment starts there.
    pub fn begin_segment(&self, start: LogOffset) -> Result<SegmentWriter, RepoError> {
        let name = self.segment(start);
        self.check_start(start, &name)?;
        let stream = if self.is_taken(start)? { None } else { self.fresh(&name)? };
        Ok(SegmentWriter { log: self.clone(), start, name, stream, written: 0 })
    }

    /// A stream for the object; `None` if somebody has just stored it.
    fn fresh(&self, name: &str) -> Result<Option<FrameStreamWriter<StoreWrite>>, RepoError> {
        match self.shared.stream(name, ObjectKind::Segment, self.codec) {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if error.code == code::EXISTS => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stores a whole segment, compressing and reading back with up to `workers` threads.
    ///
    /// # Errors
    /// As [`SegmentWriter::finish`].
    pub fn put_segment(
        &self,
        start: LogOffset,
        raw: &[u8],
        digest: &Digest,
        workers: usize,
    ) -> Result<Stored, RepoError> {
        let name = self.segment(start);
        self.check_start(start, &name)?;
        self.check_whole(start, raw.len() as u64, digest, &name)?;
        if self.is_taken(start)? {
            return self.compare(digest);
        }
        match self.write_segment(&name, raw, workers) {
            Ok(()) => self.prove(digest, workers),
            Err(error) if error.code == code::EXISTS => self.compare(digest),
            Err(error) => Err(error),
        }
    }

    fn write_segment(&self, name: &str, raw: &[u8], workers: usize) -> Result<(), RepoError> {
        let wrap = |error| format_error("store", name, error);
        let mut writer = self.shared.store.create(name)?;
        let address = self.shared.address(name, ObjectKind::Segment);
        let mut sealer = FrameSealer::new(&address, &self.shared.ring, random()?).map_err(wrap)?;
        let mut sealed = sealer.header().to_vec();
        for batch in raw.chunks(workers.max(1).saturating_mul(BATCH)) {
            sealer.seal_many(self.codec, batch, workers, &mut sealed).map_err(wrap)?;
            writer.write(&sealed)?;
            sealed.clear();
        }
        sealer.finish(&mut Compressor::new(), &[], &mut sealed).map_err(wrap)?;
        writer.write(&sealed)?;
        Ok(writer.commit()?)
    }

    fn check_start(&self, start: LogOffset, name: &str) -> Result<(), RepoError> {
        if self.names.start(start) == start {
            return Ok(());
        }
        Err(RepoError::invalid("begin", name, format!("no segment starts at {:#x}", start.0)))
    }

    fn check_whole(
        &self,
        start: LogOffset,
        length: u64,
        digest: &Digest,
        name: &str,
    ) -> Result<(), RepoError> {
        let whole = Span { from: start, to: start.plus(self.names.size) };
        if digest.span == whole && length == self.names.size {
            return Ok(());
        }
        let message = format!("{length} bytes were given, of {} that it has", self.names.size);
        Err(RepoError::invalid("store", name, message))
    }

    /// Whether the segment is stored. One that a crash left without a digest and that can't be read was never relied upon
    /// by anybody: it is removed.
    fn is_taken(&self, start: LogOffset) -> Result<bool, RepoError> {
        let name = self.segment(start);
        if self.shared.store.head(&name)?.is_none() {
            // In this order: a bundle is there before the segments that it replaces go.
            return self.is_bundled(start);
        }
        if self.shared.store.head(&self.digest_name(start))?.is_some() {
            return Ok(true);
        }
        match self.stored_hash(start, 1) {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) if error.is_damaged() => self.remove_unproven(start).map(|()| false),
            Err(error) => Err(error),
        }
    }

    /// Removes a segment that fails its checks, unless it has a digest: then somebody found it good once, and it is kept
    /// for those who mend.
    fn remove_unproven(&self, start: LogOffset) -> Result<(), RepoError> {
        if self.shared.store.head(&self.digest_name(start))?.is_none() {
            tracing::warn!(
                object = self.segment(start),
                "an unfinished segment that can't be read is removed"
            );
            self.shared.store.delete(&self.segment(start))?;
        }
        Ok(())
    }

    /// BLAKE3 of the segment's own object, as it is really stored.
    fn stored_hash(&self, start: LogOffset, workers: usize) -> Result<[u8; 32], RepoError> {
        if workers > 1 && self.names.size <= IN_MEMORY {
            return Ok(*blake3::hash(&self.read_single_into(start, workers)?).as_bytes());
        }
        let mut hasher = blake3::Hasher::new();
        self.read_single(start, &mut |bytes| {
            hasher.update(bytes);
        })?;
        Ok(*hasher.finalize().as_bytes())
    }

    /// After a commit: reads the segment back, then writes its digest.
    fn prove(&self, digest: &Digest, workers: usize) -> Result<Stored, RepoError> {
        let (start, name) = (digest.span.from, self.segment(digest.span.from));
        let wrong = match self.stored_hash(start, workers) {
            Ok(hash) if hash == digest.content_hash => None,
            Ok(_) => {
                Some(RepoError::damaged("store", &name, "what was stored is not what its digest describes"))
            }
            Err(error) if error.is_damaged() || error.is_missing() => Some(
                RepoError::damaged("store", &name, "what was stored can't be read back").caused_by(error),
            ),
            Err(error) => return Err(error),
        };
        if let Some(error) = wrong {
            self.remove_unproven(start)?;
            return Err(error.hint("check the store's disk").retryable());
        }
        self.put_digest(digest)?;
        Ok(Stored::New)
    }

    fn put_digest(&self, digest: &Digest) -> Result<(), RepoError> {
        let start = digest.span.from;
        match self.shared.put(&self.digest_name(start), ObjectKind::Digest, &digest::encode(digest)) {
            Err(error) if error.code == code::EXISTS => match self.segment_hash(start)? {
                Some(hash) if hash == digest.content_hash => Ok(()),
                _ => Err(self.differs(start)),
            },
            result => result,
        }
    }

    /// The segment was stored by another, or by us before a crash.
    fn compare(&self, digest: &Digest) -> Result<Stored, RepoError> {
        let start = digest.span.from;
        if let Some(hash) = self.segment_hash(start)? {
            return if hash == digest.content_hash {
                Ok(Stored::AlreadySame)
            } else {
                Err(self.differs(start))
            };
        }
        match self.stored_hash(start, 1) {
            Ok(hash) if hash == digest.content_hash => self.put_digest(digest).map(|()| Stored::AlreadySame),
            Ok(_) => Err(self.differs(start)),
            Err(error) if error.is_damaged() => {
                self.remove_unproven(start)?;
                Err(error.retryable())
            }
            Err(error) => Err(error),
        }
    }

    fn differs(&self, start: LogOffset) -> RepoError {
        let message = "the segment is stored already with another content; nothing was changed";
        RepoError::new(code::DIFFERS, "store", self.segment(start), message)
            .class(FailureClass::Damaged)
            .hint("a copy of the cluster stores under the same name, or the log was reset; give the copy a name of its own")
    }
}

/// A segment on its way: compressed and sealed while its bytes come.
pub struct SegmentWriter {
    log: LogStore,
    start: LogOffset,
    name: String,
    /// `None` if the segment is stored already: then its content is compared at the end.
    stream: Option<FrameStreamWriter<StoreWrite>>,
    written: u64,
}

impl SegmentWriter {
    /// Takes the bytes that follow those before.
    ///
    /// # Errors
    /// If they can't be written; the segment must be begun anew then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), RepoError> {
        self.written = self.written.saturating_add(bytes.len() as u64);
        match &mut self.stream {
            Some(stream) => {
                stream.write_all(bytes).map_err(|error| format_error("store", &self.name, error.into()))
            }
            None => Ok(()),
        }
    }

    /// Bytes so far.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Makes the segment durable, reads it back, compares it with `digest`, and writes the digest. A segment that is
    /// stored already with the same content is success; one that a crash left without its digest gets it.
    ///
    /// # Errors
    /// `repo.differs` (class `Damaged`) if it is stored with another content: nothing was changed. `repo.damaged`,
    /// retryable, if the store returned other bytes than it was given. `repo.invalid` if the segment is not whole.
    pub fn finish(self, digest: &Digest) -> Result<Stored, RepoError> {
        self.log.check_whole(self.start, self.written, digest, &self.name)?;
        let Some(stream) = self.stream else {
            return self.log.compare(digest);
        };
        let stored = stream.finish(&[]).map_err(|error| format_error("store", &self.name, error))?;
        match stored.commit().map_err(RepoError::from) {
            Ok(()) => self.log.prove(digest, 1),
            Err(error) if error.code == code::EXISTS => self.log.compare(digest),
            Err(error) => Err(error),
        }
    }
}
