//! Makes sealed objects.

use super::header::Header;
use super::key::Key;
use super::{FRAME_HEADER_LEN, FrameRef, HEADER_LEN, KeyRing, LAST, MAX_TRAILER_RAW, ObjectAddress};
use crate::codec::{Codec, Compressor};
use crate::error::FormatError;

/// Seals the frames of one new object.
pub struct FrameSealer {
    header: [u8; HEADER_LEN],
    key: Key,
    number: u32,
    offset: u64,
    limit: usize,
}

impl FrameSealer {
    /// A sealer for the object at `address`; `salt` is 32 fresh random bytes.
    ///
    /// # Errors
    /// If the cipher refuses.
    pub fn new(address: &ObjectAddress<'_>, keys: &KeyRing, salt: [u8; 32]) -> Result<Self, FormatError> {
        let header = Header::new(address.kind, keys.current(), salt).encode();
        let key = Key::derive(address, &header, &salt, keys.current())?;
        let limit = address.kind.max_frame_raw();
        Ok(Self { header, key, number: 0, offset: HEADER_LEN as u64, limit })
    }

    /// The first bytes of the object; to be written first.
    #[must_use]
    pub const fn header(&self) -> &[u8] {
        &self.header
    }

    /// Bytes of the object so far.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends a sealed frame to `out`.
    ///
    /// # Errors
    /// If `raw` is larger than [`super::ObjectKind::max_frame_raw`], or begins beyond 4 GiB of the object; `out` is as it was then.
    pub fn seal(
        &mut self,
        compressor: &mut Compressor,
        codec: Codec,
        raw: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<FrameRef, FormatError> {
        self.place(compressor, codec, raw, 0, out)
    }

    /// Appends the last frame, which carries `trailer`.
    ///
    /// # Errors
    /// If the trailer is larger than [`MAX_TRAILER_RAW`], or begins beyond 4 GiB of the object; `out` is as it was then.
    pub fn finish(
        &mut self,
        compressor: &mut Compressor,
        trailer: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<FrameRef, FormatError> {
        self.place(compressor, Codec::Zstd(1), trailer, LAST, out)
    }

    fn place(
        &mut self,
        compressor: &mut Compressor,
        codec: Codec,
        raw: &[u8],
        flags: u8,
        out: &mut Vec<u8>,
    ) -> Result<FrameRef, FormatError> {
        let offset = u32::try_from(self.offset).map_err(|_| too_large("an object"))?;
        let number = self.number;
        let stored = self.append(compressor, codec, raw, flags == LAST, out)?;
        Ok(FrameRef { number, offset, stored, raw: length(raw.len())? })
    }

    /// Appends a frame that needs no address of its own; its stored length.
    pub(crate) fn append(
        &mut self,
        compressor: &mut Compressor,
        codec: Codec,
        raw: &[u8],
        last: bool,
        out: &mut Vec<u8>,
    ) -> Result<u32, FormatError> {
        if raw.len() > if last { MAX_TRAILER_RAW } else { self.limit } {
            return Err(too_large("a frame"));
        }
        let next = self.number.checked_add(1).ok_or_else(|| too_large("an object"))?;
        let start = out.len();
        let flags = if last { LAST } else { 0 };
        let stored = self
            .frame(self.number, compressor, codec, raw, flags, out)
            .inspect_err(|_| out.truncate(start))?;
        self.number = next;
        self.offset += u64::from(stored);
        Ok(stored)
    }

    /// Cuts `raw` into the largest frames that the object may have, seals them with up to `workers` threads and appends
    /// them in order. Returns the stored bytes of each.
    ///
    /// # Errors
    /// As [`FrameSealer::seal`], except that frames may lie beyond 4 GiB: they are read one after the other.
    pub fn seal_many(
        &mut self,
        codec: Codec,
        raw: &[u8],
        workers: usize,
        out: &mut Vec<u8>,
    ) -> Result<Vec<u32>, FormatError> {
        let frames = u32::try_from(raw.len().div_ceil(self.limit)).map_err(|_| too_large("an object"))?;
        let next = self.number.checked_add(frames).ok_or_else(|| too_large("an object"))?;
        let share = (frames as usize).div_ceil(workers.max(1)).max(1);
        let sealer = &*self;
        let seal_share = |at: usize, part: &[u8]| {
            let (mut compressor, mut sealed, mut stored) = (Compressor::new(), Vec::new(), Vec::new());
            for (i, chunk) in part.chunks(sealer.limit).enumerate() {
                let number = u32::try_from(at * share + i).unwrap_or(u32::MAX);
                let number = sealer.number + number;
                stored.push(sealer.frame(number, &mut compressor, codec, chunk, 0, &mut sealed)?);
            }
            Ok((sealed, stored))
        };
        let shares = raw.chunks(share * self.limit).enumerate();
        let sealed: Vec<(Vec<u8>, Vec<u32>)> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                shares.map(|(at, part)| scope.spawn(move || seal_share(at, part))).collect();
            let died = |_| Err(FormatError::Engine { what: "compression" });
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(died)).collect::<Result<_, _>>()
        })?;
        let mut lengths = Vec::with_capacity(frames as usize);
        for (part, stored) in sealed {
            self.offset += part.len() as u64;
            out.extend_from_slice(&part);
            lengths.extend(stored);
        }
        self.number = next;
        Ok(lengths)
    }

    fn frame(
        &self,
        number: u32,
        compressor: &mut Compressor,
        codec: Codec,
        raw: &[u8],
        flags: u8,
        out: &mut Vec<u8>,
    ) -> Result<u32, FormatError> {
        let start = out.len();
        out.extend_from_slice(&[0; FRAME_HEADER_LEN]);
        let tag = compressor.append(codec, raw, out)?;
        let (head, payload) = out
            .get_mut(start..)
            .and_then(<[u8]>::split_first_chunk_mut::<FRAME_HEADER_LEN>)
            .ok_or(FormatError::Engine { what: "compression" })?;
        head[..4].copy_from_slice(&length(payload.len())?.to_le_bytes());
        head[4..8].copy_from_slice(&length(raw.len())?.to_le_bytes());
        head[8] = tag;
        head[9] = flags;
        let seal = self.key.seal(number, *head, payload)?;
        out.extend_from_slice(&seal);
        length(out.len() - start)
    }
}

fn length(bytes: usize) -> Result<u32, FormatError> {
    u32::try_from(bytes).map_err(|_| too_large("a frame"))
}

fn too_large(what: &str) -> FormatError {
    FormatError::Invalid { what: what.to_owned(), why: "it is too large".to_owned() }
}
