//! Packs: objects of many frames, and an index of what they hold.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use everpoint_format::codec::{Codec, Compressor};
use everpoint_format::manifest::{Extent, PackId};
use everpoint_format::pack::{PackRun, decode_index, encode_index};
use everpoint_format::seal::{
    FRAME_HEADER_LEN, FrameOpened, FrameOpener, FrameRef, FrameSealer, HEADER_LEN, ObjectKind, frame_lengths,
};
use everpoint_store::{ObjectReader, ObjectWriter};

use crate::cluster::ClusterRepo;
use crate::object::{Shared, format_error, hex, random};
use crate::{RepoError, names};

/// Frames are sealed into a buffer of this many bytes before they go to the store.
const BUFFER: usize = 1 << 20;

/// A run of bytes that a frame holds, to be found again by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackRunInput {
    /// Where it begins in the raw frame, in bytes.
    pub skip: u32,
    /// Its length in bytes.
    pub length: u32,
    /// Hash of its content, as the caller computes and compares it.
    pub hash: [u8; 16],
    /// Whether it consists of pages.
    pub pages: bool,
}

impl ClusterRepo {
    /// Begins a pack under a new random id; one for each thread.
    ///
    /// # Errors
    /// If the store refuses.
    pub fn pack_writer(&self) -> Result<PackWriter, RepoError> {
        let id = PackId(random()?);
        let name = pack_name(&self.base, id);
        let writer = self.shared.store.create(&name)?;
        let sealer =
            FrameSealer::new(&self.shared.address(&name, ObjectKind::Pack), &self.shared.ring, random()?)
                .map_err(|error| format_error("create", &name, error))?;
        let buffer = sealer.header().to_vec();
        Ok(PackWriter { id, name, writer, sealer, compressor: Compressor::new(), buffer, runs: Vec::new() })
    }

    /// Opens a pack.
    ///
    /// # Errors
    /// `repo.damaged` if it is missing or not what its name says.
    pub fn open_pack(&self, id: PackId) -> Result<PackReader, RepoError> {
        PackReader::open(&self.shared, &self.base, id)
    }

    /// Visits the ids of all packs, in ascending order.
    ///
    /// # Errors
    /// If the listing failed.
    pub fn each_pack(&self, visit: &mut dyn FnMut(PackId)) -> Result<(), RepoError> {
        let prefix = format!("{}/packs/", self.base);
        self.shared.store.list(&prefix, None, &mut |info| {
            if let Some(id) = info.name.strip_prefix(&prefix).and_then(parse_pack) {
                visit(id);
            }
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    /// The ids of all packs, ascending: 16 bytes each.
    ///
    /// # Errors
    /// If the listing failed.
    pub fn packs(&self) -> Result<Vec<PackId>, RepoError> {
        let mut found = Vec::new();
        self.each_pack(&mut |id| found.push(id))?;
        Ok(found)
    }

    /// Packs that no manifest names: left by an interrupted backup, or being written for one that still runs. Those that have
    /// a tombstone are not among them: they may go at any time.
    ///
    /// # Errors
    /// If a manifest or a tombstone can't be read: what it names is not known then.
    pub fn orphan_packs(&self) -> Result<Vec<PackId>, RepoError> {
        let buried: HashSet<[u8; 16]> =
            self.tombstones()?.into_iter().flat_map(|stone| stone.packs).collect();
        let packs = self.pack_facts(&[])?.into_iter();
        Ok(packs
            .filter(|pack| !pack.named && !buried.contains(&pack.id))
            .map(|pack| PackId(pack.id))
            .collect())
    }
}

/// The pack that an extent points into.
pub(crate) const fn pack_of(extent: &Extent) -> Option<PackId> {
    match extent {
        Extent::Stored { pack, .. } => Some(*pack),
        Extent::Zero { .. } => None,
    }
}

pub(crate) fn pack_name(base: &str, id: PackId) -> String {
    let id = hex(&id.0);
    format!("{base}/packs/{}/{id}", id.get(..2).unwrap_or_default())
}

/// Reads `<aa>/<id>`.
pub(crate) fn parse_pack(relative: &str) -> Option<PackId> {
    let (folder, id) = relative.split_once('/')?;
    let (high, low) = names::parse_pair(&format!("{}-{}", id.get(..16)?, id.get(16..)?))?;
    let bytes = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
    id.starts_with(folder).then_some(PackId(bytes))
}

/// A pack on its way. Dropped without [`PackWriter::finish`] it leaves nothing.
pub struct PackWriter {
    id: PackId,
    name: String,
    writer: Box<dyn ObjectWriter>,
    sealer: FrameSealer,
    compressor: Compressor,
    buffer: Vec<u8>,
    runs: Vec<PackRun>,
}

impl PackWriter {
    /// Compresses, seals and writes one frame of at most 1 MiB; `runs` are what it holds.
    ///
    /// # Errors
    /// If it can't be written; the pack is lost then.
    pub fn add(&mut self, codec: Codec, raw: &[u8], runs: &[PackRunInput]) -> Result<FrameRef, RepoError> {
        let frame = self
            .sealer
            .seal(&mut self.compressor, codec, raw, &mut self.buffer)
            .map_err(|error| format_error("write", &self.name, error))?;
        self.runs.extend(runs.iter().map(|run| PackRun {
            frame,
            skip: run.skip,
            length: run.length,
            hash: run.hash,
            pages: run.pages,
        }));
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok(frame)
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> PackId {
        self.id
    }

    /// Bytes of the pack so far.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.sealer.offset()
    }

    /// Writes the index and makes the pack durable.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn finish(mut self) -> Result<PackId, RepoError> {
        let index = encode_index(&self.runs);
        self.sealer
            .finish(&mut self.compressor, &index, &mut self.buffer)
            .map_err(|error| format_error("write", &self.name, error))?;
        self.flush()?;
        self.writer.commit()?;
        Ok(self.id)
    }

    fn flush(&mut self) -> Result<(), RepoError> {
        self.writer.write(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// An open pack, for use from several threads.
pub struct PackReader {
    name: String,
    reader: Box<dyn ObjectReader>,
    opener: FrameOpener,
}

impl PackReader {
    fn open(shared: &Arc<Shared>, base: &str, id: PackId) -> Result<Self, RepoError> {
        let name = pack_name(base, id);
        let reader = shared.store.open(&name).map_err(|error| {
            let error = RepoError::from(error);
            if error.is_missing() { RepoError::damaged("open", &name, "the pack is missing") } else { error }
        })?;
        let wrap = |error| format_error("open", &name, error);
        let mut header = vec![0; usize::try_from(reader.size()).unwrap_or(HEADER_LEN).min(HEADER_LEN)];
        reader.read_at(0, &mut header)?;
        let opener = FrameOpener::new(&shared.address(&name, ObjectKind::Pack), &header, &shared.ring)
            .map_err(wrap)?;
        Ok(Self { name, reader, opener })
    }

    /// Size of the pack in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.reader.size()
    }

    /// Reads one frame into `out`, which ends up with exactly its raw bytes.
    ///
    /// # Errors
    /// `repo.damaged` unless it is exactly the frame that the map means.
    pub fn read_frame(&self, frame: &FrameRef, out: &mut Vec<u8>) -> Result<(), RepoError> {
        if u64::from(frame.offset).saturating_add(u64::from(frame.stored)) > self.reader.size() {
            return Err(self.damaged(format!("it ends before frame {}", frame.number)));
        }
        let mut stored = vec![0; frame.stored as usize];
        self.reader.read_at(u64::from(frame.offset), &mut stored)?;
        let opened = self.opener.open(frame.number, &stored, out).map_err(|error| self.wrap(error))?;
        if opened != FrameOpened::Data || out.len() != frame.raw as usize {
            return Err(self.damaged(format!("frame {} is not what the map says", frame.number)));
        }
        Ok(())
    }

    /// What the pack holds, from its last frame.
    ///
    /// # Errors
    /// `repo.damaged` if it has none.
    pub fn index(&self) -> Result<Vec<PackRun>, RepoError> {
        let mut offset = HEADER_LEN as u64;
        let mut number = 0_u32;
        loop {
            let mut head = [0; FRAME_HEADER_LEN];
            if offset.saturating_add(head.len() as u64) > self.reader.size() {
                return Err(self.damaged("it has no last frame".to_owned()));
            }
            self.reader.read_at(offset, &mut head)?;
            let (length, _) = frame_lengths(&head).map_err(|error| self.wrap(error))?;
            let end = offset.saturating_add(length as u64);
            if end >= self.reader.size() {
                return self.last(number, offset, end);
            }
            offset = end;
            number = number.saturating_add(1);
        }
    }

    fn last(&self, number: u32, offset: u64, end: u64) -> Result<Vec<PackRun>, RepoError> {
        if end > self.reader.size() {
            return Err(self.damaged("its last frame is cut off".to_owned()));
        }
        let mut stored = vec![0; usize::try_from(end.saturating_sub(offset)).unwrap_or_default()];
        self.reader.read_at(offset, &mut stored)?;
        let mut raw = Vec::new();
        match self.opener.open(number, &stored, &mut raw).map_err(|error| self.wrap(error))? {
            FrameOpened::Last => decode_index(&raw).map_err(|error| self.wrap(error)),
            FrameOpened::Data => Err(self.damaged("it has no last frame".to_owned())),
        }
    }

    fn wrap(&self, error: everpoint_format::FormatError) -> RepoError {
        format_error("read", &self.name, error)
    }

    fn damaged(&self, message: String) -> RepoError {
        RepoError::damaged("read", &self.name, message)
    }
}
