//! A base image as a plain tar of its data directory.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use everpoint_core::name::to_path;
use everpoint_engine::StopFlag;
use everpoint_format::manifest::{Extent, FileEntry, FileKind, PackId};
use everpoint_format::seal::FrameRef;
use everpoint_repo::{ClusterRepo, PackReader};
use tar::{Builder, EntryType, Header};

use crate::AppError;
use crate::restore::image::EXTERNAL;

/// Packs that are kept open: the parts of one image lie in few at a time.
const OPEN_PACKS: usize = 32;
/// Microseconds in a second.
const MICROS: i64 = 1_000_000;

/// Writes the image `label` as a tar. Tablespaces are plain directories below `pg_tblspc`, configuration from outside the
/// data directory lies below `everpoint-external`.
///
/// # Errors
/// `Damaged` if the image can't be read as it was stored.
pub(super) fn write(
    cluster: &ClusterRepo,
    label: &str,
    stop: &StopFlag,
    out: &mut dyn Write,
) -> Result<(), AppError> {
    let mut manifest = cluster.open_manifest(label)?;
    let mut packs = Packs { cluster, open: HashMap::new(), last: None, raw: Vec::new() };
    let mut builder = Builder::new(out);
    while let Some(entry) = manifest.next_entry()? {
        super::stopped(stop)?;
        append(&mut builder, &entry, &mut packs)?;
    }
    builder.finish().map_err(|error| AppError::io("write the tar of", Path::new(label), error))
}

fn append(
    builder: &mut Builder<&mut dyn Write>,
    entry: &FileEntry,
    packs: &mut Packs<'_>,
) -> Result<(), AppError> {
    let mut header = Header::new_gnu();
    header.set_mode(entry.mode & 0o7777);
    header.set_mtime(u64::try_from(entry.modified.div_euclid(MICROS)).unwrap_or_default());
    let path = match entry.kind {
        FileKind::External => format!("{EXTERNAL}/{}", entry.path),
        FileKind::Directory => format!("{}/", entry.path),
        _ => entry.path.clone(),
    };
    let directory = entry.kind == FileKind::Directory;
    header.set_entry_type(if directory { EntryType::Directory } else { EntryType::Regular });
    header.set_size(if directory { 0 } else { entry.size });
    let mut contents = Contents { entry, packs, extent: 0, within: 0, failure: None };
    let done = builder.append_data(&mut header, to_path(&path), (&mut contents).take(entry.size));
    match (contents.failure, done) {
        (Some(failure), _) => Err(failure),
        (None, done) => done.map_err(|error| AppError::io("pack", Path::new(&entry.path), error)),
    }
}

/// The bytes of a file of the image.
struct Contents<'a, 'b> {
    entry: &'a FileEntry,
    packs: &'a mut Packs<'b>,
    extent: usize,
    within: u64,
    failure: Option<AppError>,
}

impl Read for Contents<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(extent) = self.entry.extents.get(self.extent) else {
            return Ok(0);
        };
        let length = match extent {
            Extent::Zero { length } => *length,
            Extent::Stored { length, .. } => u64::from(*length),
        };
        let take = usize::try_from(length - self.within).unwrap_or(usize::MAX).min(buffer.len());
        let Some(target) = buffer.get_mut(..take) else { return Ok(0) };
        match extent {
            Extent::Zero { .. } => target.fill(0),
            Extent::Stored { pack, frame, skip, .. } => {
                let from = *skip as usize + usize::try_from(self.within).unwrap_or(usize::MAX);
                match self.packs.frame(*pack, frame) {
                    Ok(raw) => match raw.get(from..from + take) {
                        Some(bytes) => target.copy_from_slice(bytes),
                        None => return Err(io::Error::other("a frame is shorter than the map says")),
                    },
                    Err(error) => {
                        self.failure = Some(error);
                        return Err(io::Error::other("the image can't be read"));
                    }
                }
            }
        }
        self.within += take as u64;
        if self.within >= length {
            (self.extent, self.within) = (self.extent + 1, 0);
        }
        Ok(take)
    }
}

/// Open packs and the frame that was read last: the map names the runs of a frame one after the other.
struct Packs<'a> {
    cluster: &'a ClusterRepo,
    open: HashMap<PackId, Arc<PackReader>>,
    last: Option<(PackId, u32)>,
    raw: Vec<u8>,
}

impl Packs<'_> {
    fn frame(&mut self, pack: PackId, frame: &FrameRef) -> Result<&[u8], AppError> {
        if self.last == Some((pack, frame.number)) {
            return Ok(&self.raw);
        }
        let reader = match self.open.get(&pack) {
            Some(reader) => Arc::clone(reader),
            None => {
                if self.open.len() >= OPEN_PACKS {
                    self.open.clear();
                }
                let reader = Arc::new(self.cluster.open_pack(pack)?);
                self.open.insert(pack, Arc::clone(&reader));
                reader
            }
        };
        self.last = None;
        reader.read_frame(frame, &mut self.raw)?;
        self.last = Some((pack, frame.number));
        Ok(&self.raw)
    }
}
