//! Making bundles: written, read back, given an index, and only then the segments go.

use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Arc;

use everpoint_core::{BundlePlan, LogOffset, Span};
use everpoint_format::bundle::{BUNDLE_FRAME, BundleSegment, BundleTable};
use everpoint_format::codec::{Codec, Compressor};
use everpoint_format::digest;
use everpoint_format::seal::{FrameSealer, ObjectKind};
use everpoint_store::ObjectWriter;

use super::read::{Index, Opened};
use super::{Bundle, DATA};
use crate::RepoError;
use crate::log::pieces::choose;
use crate::log::{LogStore, Piece, PieceKind};
use crate::object::{format_error, missing, random};

/// How bundles are compressed: nobody waits for them, and they are kept for long.
const CODEC: Codec = Codec::Zstd(9);
/// Bytes of digests that a bundle of several segments holds at most: they are in memory while it is used.
const MAX_DIGESTS: usize = 8 << 20;

/// A bundle that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundleMade {
    /// The bundle.
    pub bundle: Bundle,
    /// Bytes of its segments before compression.
    pub raw_bytes: u64,
    /// Bytes that the objects which it replaces took.
    pub replaced_bytes: u64,
}

/// The digests of the segments of a bundle to be made.
struct Digests {
    segments: Vec<BundleSegment>,
    encoded: Vec<u8>,
}

impl LogStore {
    /// Joins whole segments into a bundle and removes them. It may hold only the first ones of the plan, where their
    /// digests are large: go on with the rest. Memory: a frame for each of `workers`, their compressed form, and the digests.
    ///
    /// # Errors
    /// `repo.missing` if one of the segments is not stored whole and verified, `repo.damaged` if one fails its checks or
    /// the bundle can't be read back: nothing was removed then.
    pub fn bundle(&self, plan: &BundlePlan, workers: usize) -> Result<BundleMade, RepoError> {
        let digests = self.digests_of(plan.span)?;
        let to = plan.span.from.plus(self.names.size.saturating_mul(digests.segments.len() as u64));
        let span = Span { from: plan.span.from, to };
        let bundle = Bundle { hour: plan.hour, span, stored_bytes: 0 };
        if self.finished(&bundle)? {
            return self.replace(&bundle);
        }
        // What lies under these names can't be relied upon, and the segments are all there still.
        self.remove_bundle(&bundle)?;
        let frames = self.write_data(&bundle, &digests, workers)?;
        let table = BundleTable {
            first: span.from.0,
            segment_size: self.names.size,
            frame_size: BUNDLE_FRAME,
            frames,
            segments: digests.segments,
        };
        if let Err(error) = self.write_index(&bundle, table, &digests.encoded) {
            self.remove_bundle(&bundle)?;
            return Err(error);
        }
        self.replace(&bundle)
    }

    /// Whether the bundle is stored with its index.
    fn finished(&self, bundle: &Bundle) -> Result<bool, RepoError> {
        match Index::read(&self.shared, &self.index_name(bundle), bundle.span, self.names.size) {
            Ok(_) => Ok(self.shared.store.head(&self.bundle_name(bundle.hour, bundle.span))?.is_some()),
            Err(error) if error.is_missing() || error.is_damaged() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes what a finished bundle replaces.
    fn replace(&self, made: &Bundle) -> Result<BundleMade, RepoError> {
        let same = |known: &Bundle| known.span == made.span && known.hour == made.hour;
        let found = self.bundles()?.into_iter().find(same);
        let bundle = found.ok_or_else(|| missing("read back", &self.index_name(made)))?;
        let replaced_bytes = self.remove_bundled(&bundle)?;
        Ok(BundleMade { bundle, raw_bytes: bundle.span.to.since(bundle.span.from), replaced_bytes })
    }

    fn digests_of(&self, span: Span) -> Result<Digests, RepoError> {
        let mut digests = Digests { segments: Vec::new(), encoded: Vec::new() };
        let mut start = span.from;
        while start < span.to {
            let name = self.digest_name(start);
            let found = self.single_digest(start)?;
            if self.shared.store.head(&self.segment(start))?.is_none() {
                return Err(missing("bundle", &self.segment(start)));
            }
            if found.span != (Span { from: start, to: start.plus(self.names.size) }) {
                return Err(RepoError::damaged("bundle", name, "it is the digest of something else"));
            }
            let encoded = digest::encode(&found);
            if !digests.segments.is_empty() && digests.encoded.len() + encoded.len() > MAX_DIGESTS {
                break;
            }
            let length = u32::try_from(encoded.len())
                .map_err(|_| RepoError::invalid("bundle", name, "its digest is too large"))?;
            digests.segments.push(BundleSegment { hash: found.content_hash, digest: length });
            digests.encoded.extend_from_slice(&encoded);
            start = start.plus(self.names.size);
        }
        Ok(digests)
    }

    /// Writes the data object; stored bytes of its frames.
    fn write_data(&self, bundle: &Bundle, digests: &Digests, workers: usize) -> Result<Vec<u32>, RepoError> {
        let name = self.bundle_name(bundle.hour, bundle.span);
        let address = self.shared.address(&name, DATA);
        let sealer = FrameSealer::new(&address, &self.shared.ring, random()?)
            .map_err(|error| format_error("store", &name, error))?;
        let mut writer = DataWriter {
            sealed: sealer.header().to_vec(),
            inner: self.shared.store.create(&name)?,
            sealer,
            raw: Vec::new(),
            batch: workers.max(1) * BUNDLE_FRAME as usize,
            workers,
            frames: Vec::new(),
            name,
        };
        let mut start = bundle.span.from;
        for segment in &digests.segments {
            let (mut hasher, mut result) = (blake3::Hasher::new(), Ok(()));
            self.read_single(start, &mut |bytes| {
                hasher.update(bytes);
                if result.is_ok() {
                    result = writer.add(bytes);
                }
            })?;
            result?;
            if *hasher.finalize().as_bytes() != segment.hash {
                let name = self.segment(start);
                return Err(RepoError::damaged("bundle", name, "it is not what its digest describes"));
            }
            start = start.plus(self.names.size);
        }
        writer.finish()
    }

    /// Reads the data back, compares them with the digests, and writes the index.
    fn write_index(&self, bundle: &Bundle, table: BundleTable, digests: &[u8]) -> Result<(), RepoError> {
        let (name, data) = (self.index_name(bundle), self.bundle_name(bundle.hour, bundle.span));
        let wrap = |error| format_error("store", &name, error);
        let mut writer = self.shared.stream(&name, ObjectKind::BundleIndex, crate::object::RECORD_CODEC)?;
        writer.write_all(&table.encode()).map_err(|error| wrap(error.into()))?;
        // So that the table can be read without the digests.
        writer.cut().map_err(wrap)?;
        writer.write_all(digests).map_err(|error| wrap(error.into()))?;
        let index = Arc::new(Index::new(&name, table, digests.to_vec()));
        let unproven = |error: RepoError| {
            RepoError::damaged("bundle", &data, "what was stored can't be read back")
                .caused_by(error)
                .retryable()
        };
        let stored = Opened::open(&self.shared, &data, Arc::clone(&index)).map_err(unproven)?;
        for (number, segment) in index.table.segments.iter().enumerate() {
            let mut hasher = blake3::Hasher::new();
            stored.read(number, &mut |bytes| {
                hasher.update(bytes);
            })?;
            if *hasher.finalize().as_bytes() != segment.hash {
                return Err(RepoError::damaged(
                    "bundle",
                    &data,
                    "what was stored is not what it was made of",
                ));
            }
        }
        writer.finish(&[]).map_err(wrap)?.commit()?;
        let read = Index::read(&self.shared, &name, bundle.span, self.names.size).map_err(unproven)?;
        if read.same(&index) {
            Ok(())
        } else {
            Err(unproven(RepoError::damaged("read", &name, "it differs")))
        }
    }

    /// Removes the objects of the segments that a bundle holds; their bytes. Those that say something else than the bundle
    /// stay.
    ///
    /// # Errors
    /// If the bundle's index can't be read: nothing was removed then.
    pub fn remove_bundled(&self, bundle: &Bundle) -> Result<u64, RepoError> {
        let index = Index::read(&self.shared, &self.index_name(bundle), bundle.span, self.names.size)?;
        let mut freed = 0;
        for (number, segment) in index.table.segments.iter().enumerate() {
            let start = bundle.span.from.plus(self.names.size.saturating_mul(number as u64));
            match self.single_digest(start) {
                Ok(digest) if digest.content_hash != segment.hash => {
                    tracing::warn!(
                        segment = self.segment(start),
                        "differs from its bundle and is left alone"
                    );
                    continue;
                }
                Err(error) if !error.is_missing() => return Err(error),
                _ => {}
            }
            freed += self.remove_objects(start)?;
        }
        Ok(freed)
    }

    /// Removes all objects of one segment; their bytes. The segment goes before its digest, which alone is nothing.
    fn remove_objects(&self, start: LogOffset) -> Result<u64, RepoError> {
        let (mut names, mut bytes) = (Vec::new(), 0_u64);
        for name in [self.segment(start), self.digest_name(start)] {
            if let Some(info) = self.shared.store.head(&name)? {
                bytes = bytes.saturating_add(info.size);
                names.push(name);
            }
        }
        self.shared.store.list(&format!("{}.tail/", self.segment(start)), None, &mut |info| {
            bytes = bytes.saturating_add(info.size);
            names.push(info.name);
            ControlFlow::Continue(())
        })?;
        for name in names {
            self.shared.store.delete(&name)?;
        }
        Ok(bytes)
    }

    /// Removes a bundle that can't be read, if all that it was made of is still there.
    fn give_up(&self, bundle: &Bundle, singles: &[Piece], error: &RepoError) -> Result<(), RepoError> {
        let whole = |piece: &&Piece| {
            let inside = bundle.span.from <= piece.span.from && piece.span.to <= bundle.span.to;
            piece.kind == PieceKind::Segment && piece.has_digest && inside
        };
        let held = self.names.size.saturating_mul(singles.iter().filter(whole).count() as u64);
        if held < bundle.span.to.since(bundle.span.from) {
            tracing::warn!(%error, "a bundle can't be read, and not all of its segments are there");
            return Ok(());
        }
        tracing::warn!(%error, "a bundle can't be read and is made anew");
        self.remove_bundle(bundle)
    }

    /// The whole segments, with digest, that are objects of their own, in order. Those that are in a bundle already and were
    /// left by a crash are among them unless [`LogStore::finish_bundles`] was called.
    ///
    /// # Errors
    /// If the listing failed.
    pub fn unbundled(&self) -> Result<Vec<Piece>, RepoError> {
        let mut pieces = self.singles(LogOffset(0), LogOffset(u64::MAX), choose)?;
        pieces.retain(|piece| piece.kind == PieceKind::Segment && piece.has_digest);
        Ok(pieces)
    }

    /// Finishes what a crash left: removes segments that are in a bundle already, and bundles without index.
    ///
    /// # Errors
    /// If the store or an index can't be read.
    pub fn finish_bundles(&self) -> Result<(), RepoError> {
        let bundles = self.bundles()?;
        let singles = self.singles(LogOffset(0), LogOffset(u64::MAX), choose)?;
        let mut left = Vec::new();
        self.each_single(LogOffset(0), &mut |start, _| {
            left.push(start);
            ControlFlow::Continue(())
        })?;
        for bundle in &bundles {
            if left.iter().any(|start| bundle.holds(*start)) {
                match self.remove_bundled(bundle) {
                    Err(error) if error.is_damaged() => self.give_up(bundle, &singles, &error)?,
                    result => drop(result?),
                }
            }
        }
        let mut unproven = Vec::new();
        self.each_bundle_object(&mut |part, _| {
            let known = |bundle: &Bundle| bundle.hour == part.hour && bundle.span == part.span;
            if !bundles.iter().any(known) {
                unproven.push(Bundle { hour: part.hour, span: part.span, stored_bytes: 0 });
            }
        })?;
        unproven.iter().try_for_each(|bundle| self.remove_bundle(bundle))
    }
}

/// A data object on its way.
struct DataWriter {
    name: String,
    inner: Box<dyn ObjectWriter>,
    sealer: FrameSealer,
    raw: Vec<u8>,
    sealed: Vec<u8>,
    batch: usize,
    workers: usize,
    frames: Vec<u32>,
}

impl DataWriter {
    fn add(&mut self, mut bytes: &[u8]) -> Result<(), RepoError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.batch - self.raw.len()));
            self.raw.extend_from_slice(now);
            bytes = later;
            if self.raw.len() == self.batch {
                self.seal()?;
            }
        }
        Ok(())
    }

    fn seal(&mut self) -> Result<(), RepoError> {
        let sealed = self.sealer.seal_many(CODEC, &self.raw, self.workers, &mut self.sealed);
        self.frames.extend(sealed.map_err(|error| format_error("store", &self.name, error))?);
        self.raw.clear();
        self.flush()
    }

    fn flush(&mut self) -> Result<(), RepoError> {
        self.inner.write(&self.sealed)?;
        self.sealed.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u32>, RepoError> {
        if !self.raw.is_empty() {
            self.seal()?;
        }
        self.sealer
            .finish(&mut Compressor::new(), &[], &mut self.sealed)
            .map_err(|error| format_error("store", &self.name, error))?;
        self.flush()?;
        self.inner.commit()?;
        Ok(self.frames)
    }
}
