//! Writes a manifest.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Write;

use everpoint_core::name::unescape;

use super::place::{Place, Places};
use super::{BackupRecord, END, Extent, FILE, FileEntry, PACK, PackId, VERSION, check, invalid};
use crate::error::FormatError;
use crate::varint::{put, put_bytes, put_signed};

/// Writes a manifest: the record, then files in ascending order of their paths.
pub struct ManifestWriter<W: Write> {
    out: W,
    packs: HashMap<PackId, usize>,
    places: Places,
    path: Option<Vec<u8>>,
    item: Vec<u8>,
    files: u64,
    bytes: u64,
}

impl<W: Write> ManifestWriter<W> {
    /// Begins with the record.
    ///
    /// # Errors
    /// If writing fails.
    pub fn new(mut out: W, record: &BackupRecord) -> Result<Self, FormatError> {
        let json = serde_json::to_vec(record).map_err(|error| invalid(error.to_string()))?;
        let mut head = vec![VERSION];
        put_bytes(&mut head, &json);
        out.write_all(&head)?;
        let (packs, places) = (HashMap::new(), Places::default());
        Ok(Self { out, packs, places, path: None, item: Vec::new(), files: 0, bytes: 0 })
    }

    /// Adds a file; paths must ascend, byte by byte.
    ///
    /// # Errors
    /// `Invalid` if the path does not come after the one before, the extents don't add up to the size, one is empty or
    /// reaches beyond its frame, or a limit of the format is passed. The manifest can't be continued then.
    pub fn entry(&mut self, entry: &FileEntry) -> Result<(), FormatError> {
        let path = unescape(&entry.path);
        check(entry, &path, self.path.as_deref())?;
        let mut item = std::mem::take(&mut self.item);
        item.clear();
        self.name_packs(&mut item, entry)?;
        item.push(FILE);
        self.head(&mut item, entry, &path)?;
        for extent in &entry.extents {
            let place = self.place(extent)?;
            self.places.write(&mut item, place)?;
        }
        self.out.write_all(&item)?;
        self.item = item;
        self.files += 1;
        self.bytes =
            self.bytes.checked_add(entry.size).ok_or_else(|| invalid("an image beyond all measure"))?;
        self.path = Some(path.into_owned());
        Ok(())
    }

    fn name_packs(&mut self, item: &mut Vec<u8>, entry: &FileEntry) -> Result<(), FormatError> {
        for extent in &entry.extents {
            let Extent::Stored { pack, .. } = extent else {
                continue;
            };
            if let Entry::Vacant(vacant) = self.packs.entry(*pack) {
                vacant.insert(self.places.name_pack()?);
                item.push(PACK);
                item.extend_from_slice(&pack.0);
            }
        }
        Ok(())
    }

    fn place(&self, extent: &Extent) -> Result<Place, FormatError> {
        Ok(match *extent {
            Extent::Zero { length } => Place::Zero { length },
            Extent::Stored { length, pack, frame, skip } => {
                let pack =
                    self.packs.get(&pack).ok_or_else(|| invalid("an extent in a pack that is not named"))?;
                Place::Stored { pack: *pack, frame, skip, length }
            }
        })
    }

    fn head(&self, item: &mut Vec<u8>, entry: &FileEntry, path: &[u8]) -> Result<(), FormatError> {
        let before = self.path.as_deref().unwrap_or_default();
        let mut shared = before.iter().zip(path).take_while(|(a, b)| a == b).count();
        // It ends at a character: older readers know no other paths.
        while path.get(shared).is_some_and(|byte| matches!(byte, 0x80..=0xBF)) && shared > 0 {
            shared -= 1;
        }
        put(item, shared as u64);
        put_bytes(item, path.get(shared..).unwrap_or_default());
        item.push(entry.kind.byte());
        put(item, u64::from(entry.mode));
        put_signed(item, entry.modified);
        put(item, entry.size);
        let hashes = entry.page_hashes.map_or(Some(0), |first| first.checked_add(1));
        put(item, hashes.ok_or_else(|| invalid("an index of page hashes beyond all measure"))?);
        item.push(u8::from(entry.content_hash.is_some()));
        item.extend(entry.content_hash.iter().flatten());
        put(item, entry.damaged.len() as u64);
        entry.damaged.iter().for_each(|page| put(item, u64::from(*page)));
        put(item, entry.extents.len() as u64);
        Ok(())
    }

    /// Writes the end.
    ///
    /// # Errors
    /// If writing fails.
    pub fn finish(mut self) -> Result<W, FormatError> {
        let mut item = vec![END];
        put(&mut item, self.files);
        put(&mut item, self.bytes);
        self.out.write_all(&item)?;
        Ok(self.out)
    }

    /// The packs named so far.
    pub fn packs(&self) -> impl Iterator<Item = PackId> + '_ {
        self.packs.keys().copied()
    }
}
