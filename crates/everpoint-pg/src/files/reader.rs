//! Reads files in parts and checks the pages in them.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use everpoint_core::LogOffset;
use everpoint_engine::{EngineError, FileKind, ImageWorker, PART_BYTES, Part, StopFlag};
use rustix::fs::OFlags;

use super::notes::Notes;
use super::throttle::Throttle;
use super::walk::{Found, is_gone};
use super::{Fork, Pages, settled};
use crate::page::{self, Verdict};

/// Pauses before a page that failed its checksum is read again: the server needs microseconds to write one.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
];

/// A page that changed under our eyes on every reading. Replay heals it, if the server wrote it during the backup.
#[derive(Debug, Clone)]
pub(super) struct TornPage {
    pub(super) path: String,
    pub(super) block: u32,
    pub(super) lsn: LogOffset,
}

/// What all readers of a backup share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) page_size: usize,
    pub(super) pages_per_file: u32,
    pub(super) checksums: bool,
    pub(super) start: LogOffset,
    pub(super) throttle: Throttle,
    pub(super) stop: StopFlag,
    pub(super) torn: Mutex<Vec<TornPage>>,
    pub(super) notes: Notes,
}

/// One thread's reader, with its one buffer.
pub(super) struct Reader<'a> {
    shared: &'a Shared,
    buffer: Vec<u8>,
    damaged: Vec<u32>,
}

/// The error of an operation on a file.
pub(super) fn failed(operation: &'static str, object: impl Into<String>, error: io::Error) -> EngineError {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Some("run as the user that owns the data directory, or leave data_dir out of the configuration")
        }
        io::ErrorKind::InvalidData => Some("look at the disk and the server's log before anything else"),
        _ => None,
    };
    let result = EngineError::new("pg.files", operation, object, "the file system refused it").cause(error);
    match hint {
        Some(hint) => result.hint(hint),
        None => result,
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self { shared, buffer: vec![0; PART_BYTES], damaged: Vec::new() }
    }

    /// Hands a file or directory to the worker. One that is gone is passed over.
    pub(super) fn read(&mut self, found: &Found, worker: &mut dyn ImageWorker) -> Result<(), EngineError> {
        if found.meta.kind == FileKind::Directory {
            return give(worker, found, 0, &[], true, &[]);
        }
        if found.settles {
            return match settled::read(&found.path, &found.meta.path) {
                Ok(bytes) => give(worker, found, 0, &bytes, true, &[]),
                Err(error) if is_gone(&error) => Ok(()),
                Err(error) => Err(failed("read", found.path.display().to_string(), error)),
            };
        }
        let opened = open(&found.path).and_then(|file| match file.metadata()? {
            it if it.is_file() => Ok((file, it.len())),
            _ => Err(io::ErrorKind::NotFound.into()),
        });
        let (file, size) = match opened {
            // What is appended from now on comes with the log.
            Ok((file, size)) => (file, size),
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return self.unread(found, error),
        };
        let size =
            if found.meta.kind == FileKind::Pages { self.whole_pages(&file, size, found) } else { size };
        self.parts(&file, size, found, worker)
    }

    /// A file that can't be read: whose the server needs ends the backup.
    fn unread(&self, found: &Found, error: io::Error) -> Result<(), EngineError> {
        if found.needed {
            return Err(failed("read", found.path.display().to_string(), error));
        }
        self.shared.notes.lacks(&found.meta.path, format!("it can't be read: {error}"));
        Ok(())
    }

    /// The size of a file of pages. One that ends within a page is being extended, or was cut off there once: what is
    /// behind its last whole page is no page, and is kept as it is.
    fn whole_pages(&self, file: &File, size: u64, found: &Found) -> u64 {
        let page = self.shared.page_size as u64;
        let mut size = size;
        for pause in PAUSES {
            if size.is_multiple_of(page) {
                return size;
            }
            sleep(pause);
            size = file.metadata().map_or(size, |metadata| metadata.len());
        }
        if !size.is_multiple_of(page) {
            self.shared.notes.odd(&found.meta.path, beyond(size, page));
        }
        size
    }

    fn parts(
        &mut self,
        file: &File,
        size: u64,
        found: &Found,
        worker: &mut dyn ImageWorker,
    ) -> Result<(), EngineError> {
        let mut offset = 0;
        loop {
            if self.shared.stop.is_set() {
                return Err(stopped());
            }
            let wanted = usize::try_from(size - offset).unwrap_or(PART_BYTES).min(PART_BYTES);
            self.shared.throttle.wait(wanted);
            let filled = match self.fill(file, offset, wanted) {
                Ok(filled) => filled,
                Err(error) if found.needed => {
                    return Err(failed("read", found.path.display().to_string(), error));
                }
                Err(error) => {
                    let reason = format!("only its first {offset} bytes could be read: {error}");
                    self.shared.notes.lacks(&found.meta.path, reason);
                    return give(worker, found, offset, &[], true, &[]);
                }
            };
            self.damaged.clear();
            if let Some(pages) = found.pages
                && self.shared.checksums
            {
                self.check_pages(file, offset, filled, found, pages)
                    .map_err(|error| failed("read again", found.path.display().to_string(), error))?;
            }
            // A file that has become shorter ends here: the log says so too.
            let last = filled < PART_BYTES || offset + filled as u64 >= size;
            let data = self.buffer.get(..filled).unwrap_or_default();
            give(worker, found, offset, data, last, &self.damaged)?;
            if last {
                return Ok(());
            }
            offset += filled as u64;
        }
    }

    /// Reads until `wanted` bytes are there or the file ends.
    fn fill(&mut self, file: &File, offset: u64, wanted: usize) -> io::Result<usize> {
        let mut filled = 0;
        while filled < wanted {
            let Some(space) = self.buffer.get_mut(filled..wanted) else {
                break;
            };
            match file.read_at(space, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn check_pages(
        &mut self,
        file: &File,
        offset: u64,
        filled: usize,
        found: &Found,
        pages: Pages,
    ) -> io::Result<()> {
        let shared = self.shared;
        let size = shared.page_size;
        let in_file = u32::try_from(offset / size as u64).unwrap_or(u32::MAX);
        let first = pages.first_block(shared.pages_per_file).wrapping_add(in_file);
        let data = self.buffer.get_mut(..filled).unwrap_or_default();
        for (index, page) in (0_u32..).zip(data.chunks_exact_mut(size)) {
            let block = first.wrapping_add(index);
            if !matches!(page::verify(page, block), Verdict::Bad { .. }) {
                continue;
            }
            let at = offset + u64::from(index) * size as u64;
            match second_look(file, at, page, block, shared.start)? {
                Look::Good => {}
                Look::Torn(lsn) => {
                    let mut torn = shared.torn.lock().unwrap_or_else(PoisonError::into_inner);
                    torn.push(TornPage { path: found.meta.path.clone(), block, lsn });
                }
                // Both maps may always be empty: the server fills them again.
                Look::Damaged if matches!(pages.fork, Fork::FreeSpace | Fork::Visibility) => page.fill(0),
                Look::Damaged => self.damaged.push(in_file.wrapping_add(index)),
            }
        }
        Ok(())
    }
}

/// Opens a file; one that has become a fifo meanwhile does not make us wait.
fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    File::options().read(true).custom_flags(flags).open(path)
}

/// What is odd about a file of pages of this size.
pub(crate) fn beyond(size: u64, page: u64) -> String {
    format!(
        "{} bytes follow its last whole page; they are kept, and the server does not read them",
        size % page
    )
}

enum Look {
    Good,
    Torn(LogOffset),
    Damaged,
}

/// Reads a bad page again, several times. It is torn only if it keeps changing and was written during the backup;
/// a page that stays as it is, is damaged.
fn second_look(file: &File, at: u64, page: &mut [u8], block: u32, start: LogOffset) -> io::Result<Look> {
    let mut changed = false;
    let mut again = vec![0; page.len()];
    for pause in PAUSES {
        sleep(pause);
        match file.read_exact_at(&mut again, at) {
            Ok(()) => {}
            // Truncated meanwhile: whatever the page held, the log says that it goes.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                page.fill(0);
                return Ok(Look::Good);
            }
            Err(error) => return Err(error),
        }
        changed |= page != again;
        page.copy_from_slice(&again);
        if !matches!(page::verify(page, block), Verdict::Bad { .. }) {
            return Ok(Look::Good);
        }
    }
    let lsn = page::lsn(page).unwrap_or_default();
    Ok(if changed && lsn >= start { Look::Torn(lsn) } else { Look::Damaged })
}

fn give(
    worker: &mut dyn ImageWorker,
    found: &Found,
    offset: u64,
    data: &[u8],
    last: bool,
    damaged_pages: &[u32],
) -> Result<(), EngineError> {
    worker.part(&found.meta, Part { offset, data, last, damaged_pages })
}

/// The error of a backup that was asked to stop.
pub(super) fn stopped() -> EngineError {
    EngineError::new("pg.stopped", "back up", "the data directory", "it was asked to stop")
}
