//! Page hashes of a backup, read at positions.

use std::sync::{Arc, Mutex, PoisonError};

use everpoint_format::seal::{
    FRAME_HEADER_LEN, FrameOpened, FrameOpener, HEADER_LEN, MAX_FRAME_RAW, ObjectKind, frame_lengths,
};
use everpoint_store::ObjectReader;

use crate::RepoError;
use crate::object::{Shared, format_error};

/// Hashes in a full frame.
const PER_FRAME: u64 = (MAX_FRAME_RAW / 8) as u64;

/// The page hashes of a backup, for use from several threads. The frame that was read last is kept.
///
/// Memory: 8 bytes for each GiB of the image, and one frame.
pub struct PagesReader {
    name: String,
    reader: Box<dyn ObjectReader>,
    opener: FrameOpener,
    /// Where each data frame begins, and where the last one ends.
    offsets: Vec<u64>,
    recent: Mutex<Option<(usize, Arc<Vec<u8>>)>>,
}

impl PagesReader {
    pub(crate) fn open(shared: &Shared, name: &str) -> Result<Self, RepoError> {
        let reader = shared.store.open(name)?;
        let mut header = vec![0; usize::try_from(reader.size()).unwrap_or(HEADER_LEN).min(HEADER_LEN)];
        reader.read_at(0, &mut header)?;
        let opener = FrameOpener::new(&shared.address(name, ObjectKind::Pages), &header, &shared.ring)
            .map_err(|error| format_error("open", name, error))?;
        let offsets = offsets(name, &*reader)?;
        Ok(Self { name: name.to_owned(), reader, opener, offsets, recent: Mutex::new(None) })
    }

    /// The hashes `first`, `first + 1`, ... of the object, `count` of them.
    ///
    /// # Errors
    /// `repo.damaged` if there are not as many, or a frame fails its check.
    pub fn read(&self, first: u64, count: u64) -> Result<Vec<u64>, RepoError> {
        let end = first.saturating_add(count);
        if end > PER_FRAME.saturating_mul(self.offsets.len() as u64) {
            return Err(self.damaged("it holds fewer page hashes than the map says"));
        }
        let mut hashes = Vec::with_capacity(usize::try_from(count).unwrap_or_default());
        let mut at = first;
        while at < end {
            let frame = self.frame(usize::try_from(at / PER_FRAME).unwrap_or(usize::MAX))?;
            let until = end.min((at / PER_FRAME).saturating_add(1).saturating_mul(PER_FRAME));
            let byte = |hash: u64| usize::try_from(hash * 8).unwrap_or(usize::MAX);
            let from = byte(at % PER_FRAME);
            let found = frame
                .get(from..from.saturating_add(byte(until - at)))
                .ok_or_else(|| self.damaged("it holds fewer page hashes than the map says"))?;
            hashes.extend(
                found.chunks_exact(8).filter_map(|hash| hash.try_into().ok()).map(u64::from_le_bytes),
            );
            at = until;
        }
        Ok(hashes)
    }

    fn frame(&self, number: usize) -> Result<Arc<Vec<u8>>, RepoError> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, frame)) = &*recent
            && *known == number
        {
            return Ok(Arc::clone(frame));
        }
        let (Some(from), Some(to)) = (self.offsets.get(number), self.offsets.get(number.saturating_add(1)))
        else {
            return Err(self.damaged("it holds fewer page hashes than the map says"));
        };
        let mut stored = vec![0; usize::try_from(to - from).unwrap_or_default()];
        self.reader.read_at(*from, &mut stored)?;
        let mut raw = Vec::new();
        let wanted = u32::try_from(number).unwrap_or(u32::MAX);
        let opened = self
            .opener
            .open(wanted, &stored, &mut raw)
            .map_err(|error| format_error("read", &self.name, error))?;
        if opened != FrameOpened::Data {
            return Err(self.damaged("it ends before it should"));
        }
        let raw = Arc::new(raw);
        *recent = Some((number, Arc::clone(&raw)));
        Ok(raw)
    }

    fn damaged(&self, message: &str) -> RepoError {
        RepoError::damaged("read", &self.name, message)
    }
}

/// Walks the frames' headers, which are checked when the frames are read.
fn offsets(name: &str, reader: &dyn ObjectReader) -> Result<Vec<u64>, RepoError> {
    let mut offsets = Vec::new();
    let mut offset = HEADER_LEN as u64;
    while offset < reader.size() {
        offsets.push(offset);
        let mut head = [0; FRAME_HEADER_LEN];
        if offset.saturating_add(head.len() as u64) > reader.size() {
            return Err(RepoError::damaged("read", name, "it is cut off"));
        }
        reader.read_at(offset, &mut head)?;
        let (length, _) = frame_lengths(&head).map_err(|error| format_error("read", name, error))?;
        offset = offset.saturating_add(length as u64);
    }
    if offset != reader.size() {
        return Err(RepoError::damaged("read", name, "it is cut off"));
    }
    Ok(offsets)
}
