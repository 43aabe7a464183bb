//! Objects written and read from front to back as one stream of bytes.

use std::io::{Read, Write};

use crate::codec::{Codec, Compressor};
use crate::error::FormatError;
use crate::seal::{
    FRAME_HEADER_LEN, FrameOpened, FrameOpener, FrameSealer, HEADER_LEN, KeyRing, MAX_FRAME_RAW,
    ObjectAddress, frame_lengths,
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
        Ok(Self {
            inner,
            sealer,
            compressor,
            codec,
            pending: Vec::new(),
            sealed: Vec::new(),
        })
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
        self.sealer
            .seal(&mut self.compressor, self.codec, &self.pending, &mut self.sealed)?;
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
        self.sealer
            .finish(&mut self.compressor, trailer, &mut self.sealed)?;
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
        self.pending
            .extend_from_slice(bytes.get(..take).unwrap_or_default());
        if self.pending.len() == MAX_FRAME_RAW {
            self.cut().map_err(std::io::Error::other)?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Reads such an object. The end is only reported once the last frame was seen and nothing follows it.
pub struct FrameStreamReader<R: Read> {
    inner: R,
    opener: FrameOpener,
    number: u32,
    raw: Vec<u8>,
    at: usize,
    trailer: Option<Vec<u8>>,
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
        Ok(Self {
            inner,
            opener,
            number: 0,
            raw: Vec::new(),
            at: 0,
            trailer: None,
        })
    }

    /// The next whole frame; `None` after the last.
    ///
    /// # Errors
    /// `Damaged` or `Truncated`.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FormatError> {
        if self.trailer.is_some() {
            return Ok(None);
        }
        let cut = |number: u32| FormatError::Truncated {
            what: format!("an object at frame {number}"),
        };
        let mut frame = Vec::new();
        self.inner
            .by_ref()
            .take(FRAME_HEADER_LEN as u64)
            .read_to_end(&mut frame)?;
        if frame.len() < FRAME_HEADER_LEN {
            return Err(cut(self.number));
        }
        let (stored, _) = frame_lengths(&frame)?;
        self.inner
            .by_ref()
            .take((stored - FRAME_HEADER_LEN) as u64)
            .read_to_end(&mut frame)?;
        if frame.len() < stored {
            return Err(cut(self.number));
        }
        let opened = self.opener.open(self.number, &frame, &mut self.raw)?;
        self.number = self.number.saturating_add(1);
        self.at = 0;
        if opened == FrameOpened::Data {
            return Ok(Some(&self.raw));
        }
        let mut beyond = [0; 1];
        if self.inner.read(&mut beyond)? != 0 {
            return Err(FormatError::Damaged {
                what: "the end of an object: something follows it".to_owned(),
            });
        }
        self.trailer = Some(std::mem::take(&mut self.raw));
        Ok(None)
    }

    /// What the last frame carries, once it was read.
    #[must_use]
    pub fn trailer(&self) -> Option<&[u8]> {
        self.trailer.as_deref()
    }
}

impl<R: Read> Read for FrameStreamReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.raw.len() {
            if self.next_frame().map_err(std::io::Error::other)?.is_none() {
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
