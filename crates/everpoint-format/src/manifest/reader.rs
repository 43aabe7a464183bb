//! Reads a manifest.

use std::io::Read;

use everpoint_core::name::escape;

use super::place::{Place, Places};
use super::{
    BackupRecord, END, Extent, FILE, FileEntry, FileKind, MAX_EXTENTS, MAX_PATH, PACK, PackId, VERSION,
    check, invalid,
};
use crate::error::FormatError;
use crate::varint::Fields;

/// Reads a manifest, one entry at a time.
pub struct ManifestReader<R: Read> {
    fields: Fields<R>,
    record: BackupRecord,
    packs: Vec<PackId>,
    places: Places,
    path: Option<Vec<u8>>,
    files: u64,
    bytes: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Ended,
    Failed,
}

impl<R: Read> ManifestReader<R> {
    /// Reads the record.
    ///
    /// # Errors
    /// `UnknownVersion`, `Invalid`, `Truncated`, or what the stream says.
    pub fn new(input: R) -> Result<Self, FormatError> {
        let mut fields = Fields(input);
        let version = fields.byte()?;
        if version != VERSION {
            return Err(FormatError::UnknownVersion { version: u16::from(version) });
        }
        let json = fields.bytes()?;
        let record = serde_json::from_slice(&json).map_err(|error| invalid(error.to_string()))?;
        let (packs, places) = (Vec::new(), Places::default());
        Ok(Self { fields, record, packs, places, path: None, files: 0, bytes: 0, state: State::Reading })
    }

    /// The record.
    #[must_use]
    pub const fn record(&self) -> &BackupRecord {
        &self.record
    }

    /// Packs named so far; all of them once the end was read.
    #[must_use]
    pub fn packs(&self) -> &[PackId] {
        &self.packs
    }

    /// The next file; `None` at the end, once the sums agree and nothing follows. After an error there are only errors:
    /// differences that were lost would make wrong places of all that follows.
    ///
    /// # Errors
    /// `Damaged`, `Truncated`, `Invalid`.
    pub fn next_entry(&mut self) -> Result<Option<FileEntry>, FormatError> {
        match self.state {
            State::Ended => return Ok(None),
            State::Failed => return Err(invalid("it was found damaged before")),
            State::Reading => self.state = State::Failed,
        }
        let entry = self.item()?;
        self.state = if entry.is_some() { State::Reading } else { State::Ended };
        Ok(entry)
    }

    fn item(&mut self) -> Result<Option<FileEntry>, FormatError> {
        loop {
            match self.fields.byte()? {
                END => return self.end().map(|()| None),
                PACK => {
                    self.places.name_pack()?;
                    self.packs.push(PackId(self.fields.array()?));
                }
                FILE => return self.entry().map(Some),
                other => return Err(invalid(format!("item {other}"))),
            }
        }
    }

    fn end(&mut self) -> Result<(), FormatError> {
        if self.fields.number()? != self.files || self.fields.number()? != self.bytes {
            return Err(invalid("its sums don't agree with its entries"));
        }
        let mut beyond = Vec::new();
        // Reading on makes the stream beneath check its own end.
        if self.fields.0.by_ref().take(1).read_to_end(&mut beyond)? != 0 {
            return Err(invalid("something follows its end"));
        }
        Ok(())
    }

    fn entry(&mut self) -> Result<FileEntry, FormatError> {
        let bytes = self.take_path()?;
        let path = escape(&bytes);
        let kind = self.fields.byte()?;
        let kind = FileKind::from_byte(kind).ok_or_else(|| invalid(format!("file kind {kind}")))?;
        let (mode, modified, size) = (self.fields.number32()?, self.fields.signed()?, self.fields.number()?);
        let page_hashes = self.fields.number()?.checked_sub(1);
        let content_hash = match self.fields.byte()? {
            0 => None,
            1 => Some(self.fields.array()?),
            other => return Err(invalid(format!("a content hash of kind {other}"))),
        };
        let damaged = self.list(|reader| reader.fields.number32())?;
        let extents = self.list(Self::extent)?;
        let entry =
            FileEntry { path, kind, mode, modified, size, extents, page_hashes, content_hash, damaged };
        check(&entry, &bytes, self.path.as_deref())?;
        self.files += 1;
        self.bytes = self.bytes.checked_add(size).ok_or_else(|| invalid("an image beyond all measure"))?;
        self.path = Some(bytes);
        Ok(entry)
    }

    fn take_path(&mut self) -> Result<Vec<u8>, FormatError> {
        let shared = usize::try_from(self.fields.number()?).unwrap_or(usize::MAX);
        let before = self.path.as_deref().unwrap_or_default();
        let head = before.get(..shared).ok_or_else(|| invalid("a path that shares more than there is"))?;
        let mut path = head.to_vec();
        path.extend(self.fields.bytes_up_to(MAX_PATH as u64)?);
        Ok(path)
    }

    /// A list grows as it is read: what its length claims allocates nothing.
    fn list<T>(
        &mut self,
        mut take: impl FnMut(&mut Self) -> Result<T, FormatError>,
    ) -> Result<Vec<T>, FormatError> {
        let count = self.fields.number()?;
        if count > MAX_EXTENTS as u64 {
            return Err(invalid(format!("a list of {count}")));
        }
        let mut out = Vec::new();
        for _ in 0..count {
            out.push(take(self)?);
        }
        Ok(out)
    }

    fn extent(&mut self) -> Result<Extent, FormatError> {
        Ok(match self.places.read(&mut self.fields)? {
            Place::Zero { length } => Extent::Zero { length },
            Place::Stored { pack, frame, skip, length } => {
                let pack =
                    self.packs.get(pack).ok_or_else(|| invalid("an extent in a pack that is not named"))?;
                Extent::Stored { length, pack: *pack, frame, skip }
            }
        })
    }
}
