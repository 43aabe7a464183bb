//! Objects written and read from front to back as one stream of bytes.

use std::io::{Read, Write};

use crate::codec::{Codec, Compressor};
use crate::error::FormatError;
use crate::seal::{
    FRAME_HEADER_LEN, FrameOpened, FrameOpener, FrameSealer, HEADER_LEN, KeyRing, MAX_FRAME_RAW,
    ObjectAddress, TAG_LEN, frame_lengths,
};

/// Cuts what is written into frames and seals them.
pub struct FrameStreamWriter<W: Write> {
    inner: W,
    sealer: FrameSealer,
    compressor: Compressor,
    codec: Codec,
    pending: Vec<u8>,
    sealed: Vec<u8>,
}

impl<W: Write> FrameStreamWriter<W> {
    /// Begins the object: writes its header.
    ///
    /// # Errors
    /// If writing fails.
    pub fn new(
        mut inner: W,
        address: &ObjectAddress<'_>,
        keys: &KeyRing,
        salt: [u8; 32],
        codec: Codec,
    ) -> Result<Self, FormatError> {
        let sealer = FrameSealer::new(address, keys, salt)?;
        inner.write_all(sealer.header())?;
        let compressor = Compressor::new();
        Ok(Self { inner, sealer, compressor, codec, pending: Vec::new(), sealed: Vec::new() })
    }

    /// Seals what is pending as a frame of its own.
    ///
    /// # Errors
    /// If writing fails.
    pub fn cut(&mut self) -> Result<(), FormatError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.sealed.clear();
        self.sealer.append(&mut self.compressor, self.codec, &self.pending, false, &mut self.sealed)?;
        self.pending.clear();
        self.inner.write_all(&self.sealed)?;
        Ok(())
    }

    /// Writes the last frame with `trailer`; gives back what is beneath.
    ///
    /// # Errors
    /// If writing fails.
    pub fn finish(mut self, trailer: &[u8]) -> Result<W, FormatError> {
        self.cut()?;
        self.sealed.clear();
        self.sealer.append(&mut self.compressor, Codec::Zstd(1), trailer, true, &mut self.sealed)?;
        self.inner.write_all(&self.sealed)?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    /// Bytes of the object so far, without what is pending.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.sealer.offset()
    }
}

impl<W: Write> Write for FrameStreamWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let take = bytes.len().min(MAX_FRAME_RAW - self.pending.len());
        self.pending.extend_from_slice(bytes.get(..take).unwrap_or_default());
        if self.pending.len() == MAX_FRAME_RAW {
            self.cut()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Reads such an object. The end is only reported once the last frame was seen and nothing follows it; after an error it
/// reports nothing but errors.
pub struct FrameStreamReader<R: Read> {
    inner: R,
    opener: FrameOpener,
    number: u32,
    frame: Vec<u8>,
    raw: Vec<u8>,
    at: usize,
    state: State,
}

/// How far reading has come.
enum State {
    Reading,
    Ended(Vec<u8>),
    Failed,
}

impl<R: Read> FrameStreamReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// As [`FrameOpener::new`].
    pub fn new(mut inner: R, address: &ObjectAddress<'_>, keys: &KeyRing) -> Result<Self, FormatError> {
        let mut header = Vec::new();
        inner.by_ref().take(HEADER_LEN as u64).read_to_end(&mut header)?;
        let opener = FrameOpener::new(address, &header, keys)?;
        let (frame, raw) = (Vec::new(), Vec::new());
        Ok(Self { inner, opener, number: 0, frame, raw, at: 0, state: State::Reading })
    }

    /// The next whole frame; `None` after the last. It counts as read: [`Read`] goes on behind it.
    ///
    /// # Errors
    /// `Damaged` or `Truncated`.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FormatError> {
        let more = self.advance()?;
        self.at = self.raw.len();
        Ok(more.then_some(self.raw.as_slice()))
    }

    /// Opens the next frame into `raw`; `false` after the last.
    fn advance(&mut self) -> Result<bool, FormatError> {
        match self.state {
            State::Ended(_) => return Ok(false),
            State::Failed => {
                return Err(FormatError::Damaged {
                    what: "an object that was found damaged before".to_owned(),
                });
            }
            State::Reading => {}
        }
        self.at = 0;
        let opened = self.fetch().and_then(|()| self.opener.open(self.number, &self.frame, &mut self.raw));
        self.state = State::Failed;
        if opened? == FrameOpened::Data {
            self.number = self.number.saturating_add(1);
            self.state = State::Reading;
            return Ok(true);
        }
        let trailer = std::mem::take(&mut self.raw);
        let mut beyond = Vec::new();
        if self.inner.by_ref().take(1).read_to_end(&mut beyond)? != 0 {
            return Err(FormatError::Damaged {
                what: "the end of an object: something follows it".to_owned(),
            });
        }
        self.state = State::Ended(trailer);
        Ok(false)
    }

    /// Reads the next sealed frame into `frame`. Only as much is allocated as there is.
    fn fetch(&mut self) -> Result<(), FormatError> {
        self.frame.clear();
        self.read_up_to(FRAME_HEADER_LEN)?;
        let (stored, _) = frame_lengths(&self.frame)?;
        self.frame.reserve_exact(stored.min(FRAME_HEADER_LEN + MAX_FRAME_RAW + TAG_LEN) - FRAME_HEADER_LEN);
        self.read_up_to(stored)
    }

    fn read_up_to(&mut self, length: usize) -> Result<(), FormatError> {
        let missing = length.saturating_sub(self.frame.len()) as u64;
        self.inner.by_ref().take(missing).read_to_end(&mut self.frame)?;
        if self.frame.len() < length {
            return Err(FormatError::Truncated { what: format!("an object at frame {}", self.number) });
        }
        Ok(())
    }

    /// What the last frame carries, once it was read.
    #[must_use]
    pub fn trailer(&self) -> Option<&[u8]> {
        match &self.state {
            State::Ended(trailer) => Some(trailer),
            _ => None,
        }
    }
}

impl<R: Read> Read for FrameStreamReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.raw.len() {
            if buffer.is_empty() || !self.advance()? {
                return Ok(0);
            }
        }
        let left = self.raw.get(self.at..).unwrap_or_default();
        let take = left.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..take), left.get(..take)) {
            to.copy_from_slice(from);
        }
        self.at += take;
        Ok(take)
    }
}
