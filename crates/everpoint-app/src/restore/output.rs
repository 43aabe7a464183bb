//! Where the bytes of a restored image go: into files, through the kernel's page cache or past it.
//!
//! A file is written in one way only, so that the kernel never has an older copy of what went past its cache.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::scatter::Piece;
use crate::AppError;

/// Files that a worker keeps open.
const OPEN_FILES: usize = 64;
/// After so many bytes of a file the disk is asked to write them.
const WRITE_BACK: u64 = 32 << 20;
/// What goes past the cache begins and ends, in memory and in the file, at a multiple of this: the largest block of common
/// disks.
const BLOCK: usize = 4096;
/// Bytes that are gathered for one write past the cache: the disk has nothing to do between two.
const GATHERED: usize = 4 << 20;
/// A file whose pieces are shorter than this on average goes through the cache, which puts them together.
const LONG: u64 = 256 << 10;

/// A file to write into. It exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it goes past the page cache, if the file system can.
    pub past_cache: bool,
}

/// Bytes of memory that this machine has.
pub(super) fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

/// Whether the pieces of a file can and should go past the page cache: long ones at whole blocks.
pub fn suit_past_cache(pieces: &[Piece]) -> bool {
    let whole = |piece: &Piece| {
        piece.offset.is_multiple_of(BLOCK as u64) && (piece.length as usize).is_multiple_of(BLOCK)
    };
    let bytes: u64 = pieces.iter().map(|piece| u64::from(piece.length)).sum();
    bytes >= LONG.saturating_mul(pieces.len().max(1) as u64) && pieces.iter().all(whole)
}

/// Has the disk write what the workers have written while they go on, so that the end need not wait for all of it.
pub(super) fn write_back(files: Receiver<File>) -> Result<(), AppError> {
    for file in files {
        file.sync_data()
            .map_err(|error| AppError::io("make durable", Path::new("a restored file"), error))?;
    }
    Ok(())
}

/// The output of one worker.
pub(super) struct Output<'a> {
    targets: &'a [Target],
    open: Vec<Handle>,
    gathered: Gathered,
    /// Files of which much was written.
    written: SyncSender<File>,
}

impl<'a> Output<'a> {
    pub(super) fn new(targets: &'a [Target], written: SyncSender<File>) -> Self {
        Self { targets, open: Vec::new(), gathered: Gathered::default(), written }
    }

    /// Writes bytes of a file, at the latest with [`Output::flush`].
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn put(&mut self, file: u32, offset: u64, bytes: &[u8]) -> Result<(), AppError> {
        if !self.targets.get(file as usize).is_some_and(|target| target.past_cache) {
            return self.write(file, offset, bytes);
        }
        let mut at = offset;
        for part in bytes.chunks(GATHERED) {
            if !self.gathered.take(file, at, part) {
                self.flush()?;
                if !self.gathered.take(file, at, part) {
                    self.write(file, at, part)?;
                }
            }
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Writes what was gathered.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn flush(&mut self) -> Result<(), AppError> {
        let gathered = std::mem::take(&mut self.gathered);
        if gathered.length > 0 {
            self.write(gathered.file, gathered.offset, gathered.bytes())?;
        }
        self.gathered = Gathered { length: 0, ..gathered };
        Ok(())
    }

    fn write(&mut self, file: u32, offset: u64, bytes: &[u8]) -> Result<(), AppError> {
        let path = self.targets.get(file as usize).map_or(Path::new(""), |target| &target.path);
        let io = |error| AppError::io("write", path, error);
        let at = self.handle(file).map_err(io)?;
        let Some(handle) = self.open.get_mut(at) else { return Ok(()) };
        handle.write(path, offset, bytes).map_err(io)?;
        // If the disk can't be asked now, it is with the next bytes, or in the end.
        if handle.waiting >= WRITE_BACK
            && let Ok(file) = handle.file.try_clone()
            && self.written.try_send(file).is_ok()
        {
            handle.waiting = 0;
        }
        Ok(())
    }

    /// Place of the open file among the handles.
    fn handle(&mut self, number: u32) -> io::Result<usize> {
        if let Some(at) = self.open.iter().position(|known| known.number == number) {
            return Ok(at);
        }
        let target = self.targets.get(number as usize).ok_or(io::ErrorKind::NotFound)?;
        let handle = Handle::open(number, target)?;
        if self.open.len() >= OPEN_FILES {
            self.open.remove(0);
        }
        self.open.push(handle);
        Ok(self.open.len() - 1)
    }
}

/// An open file.
struct Handle {
    number: u32,
    file: File,
    past_cache: bool,
    /// Bytes written since the disk was asked to write them.
    waiting: u64,
}

impl Handle {
    fn open(number: u32, target: &Target) -> io::Result<Self> {
        if target.past_cache
            && let Some(file) = supported(past_cache(&target.path))?
        {
            return Ok(Self { number, file, past_cache: true, waiting: 0 });
        }
        let file = through_cache(&target.path)?;
        Ok(Self { number, file, past_cache: false, waiting: 0 })
    }

    fn write(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.past_cache {
            if supported(self.file.write_all_at(bytes, offset))?.is_some() {
                return Ok(());
            }
            // It could be opened, but its blocks are larger.
            self.file = through_cache(path)?;
            self.past_cache = false;
        }
        self.file.write_all_at(bytes, offset)?;
        self.waiting += bytes.len() as u64;
        Ok(())
    }
}

fn past_cache(path: &Path) -> io::Result<File> {
    open(path, OFlags::DIRECT)
}

fn through_cache(path: &Path) -> io::Result<File> {
    open(path, OFlags::empty())
}

/// Never through a link that somebody has put there.
fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = i32::try_from((flags | OFlags::NOFOLLOW).bits()).unwrap_or_default();
    OpenOptions::new().write(true).custom_flags(flags).open(path)
}

/// `None`: the file system can't write past the cache.
fn supported<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error)
            if [Errno::INVAL, Errno::OPNOTSUPP]
                .iter()
                .any(|it| Some(it.raw_os_error()) == error.raw_os_error()) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Bytes in a row that were not yet written.
#[derive(Default)]
struct Gathered {
    file: u32,
    offset: u64,
    length: usize,
    /// One block longer than [`GATHERED`], so that so many bytes in it begin at a whole block.
    memory: Vec<u8>,
}

impl Gathered {
    fn begin(&self) -> usize {
        self.memory.as_ptr().align_offset(BLOCK)
    }

    fn bytes(&self) -> &[u8] {
        let begin = self.begin();
        self.memory.get(begin..begin.saturating_add(self.length)).unwrap_or_default()
    }

    /// Takes bytes that follow those that are there; `false` if they don't, or there is no room.
    fn take(&mut self, file: u32, offset: u64, bytes: &[u8]) -> bool {
        if self.memory.is_empty() {
            self.memory.resize(GATHERED + BLOCK, 0);
        }
        if self.length == 0 {
            (self.file, self.offset) = (file, offset);
        }
        let (begin, end) = (self.begin(), self.length + bytes.len());
        let follows = file == self.file && offset == self.offset + self.length as u64;
        match self.memory.get_mut(begin + self.length..begin + end) {
            Some(room) if follows && end <= GATHERED => room.copy_from_slice(bytes),
            _ => return false,
        }
        self.length = end;
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use everpoint_format::manifest::PackId;

    fn piece(offset: u64, length: u32) -> Piece {
        Piece { pack: PackId([0; 16]), number: 0, skip: 0, length, file: 0, offset, place: (0, 0, 0) }
    }

    #[test]
    fn only_long_pieces_of_whole_blocks_go_past_the_cache() {
        assert!(suit_past_cache(&[piece(0, 1 << 20), piece(1 << 20, 8192)]));
        assert!(!suit_past_cache(&[piece(0, 1 << 20), piece(1 << 20, 8191)]), "a part of a block");
        assert!(!suit_past_cache(&[piece(512, 1 << 20)]), "not at a block");
        assert!(!suit_past_cache(&vec![piece(0, 8192); 1000]), "single pages");
        assert!(!suit_past_cache(&[]));
    }

    /// Both ways, on a disk and in memory, which may know no way past the cache.
    #[test]
    fn what_is_put_is_in_the_file() {
        let (written, _disk) = std::sync::mpsc::sync_channel(1);
        let places = [std::env::temp_dir(), "/var/tmp".into(), "/dev/shm".into()];
        for place in places.into_iter().filter(|place| place.is_dir()) {
            let directory = tempfile::tempdir_in(&place).unwrap();
            let targets = [true, false].map(|past_cache| {
                let path = directory.path().join(past_cache.to_string());
                File::create(&path).unwrap().set_len(20 << 20).unwrap();
                Target { path, past_cache }
            });
            let mut wanted = vec![0; 20 << 20];
            let mut output = Output::new(&targets, written.clone());
            let puts =
                [(0, 1 << 20), (1 << 20, 3 << 20), (4 << 20, 1 << 20), (8 << 20, 4096), (9 << 20, 10 << 20)];
            for (number, (offset, length)) in (1..).zip(puts) {
                let bytes = vec![number; length];
                wanted[offset..offset + length].copy_from_slice(&bytes);
                for file in [0, 1] {
                    output.put(file, offset as u64, &bytes).unwrap();
                }
            }
            output.flush().unwrap();
            let direct =
                |handle: &Handle| rustix::fs::fcntl_getfl(&handle.file).unwrap().contains(OFlags::DIRECT);
            assert!(output.open.iter().all(|handle| handle.past_cache == direct(handle)));
            let possible = past_cache(&targets[0].path).is_ok();
            assert_eq!(output.open.iter().any(direct), possible, "{place:?}");
            for target in &targets {
                assert!(std::fs::read(&target.path).unwrap() == wanted, "{target:?}");
            }
        }
    }

    #[test]
    fn gathered_bytes_lie_at_a_block_and_in_a_row() {
        let mut gathered = Gathered::default();
        assert!(gathered.take(1, 8192, &[1; 8192]) && gathered.take(1, 16384, &[2; 8192]));
        assert!(!gathered.take(2, 24576, &[3; 8192]) && !gathered.take(1, 32768, &[3; 8192]));
        assert!(!gathered.take(1, 24576, &vec![3; GATHERED]));
        assert_eq!((gathered.file, gathered.offset, gathered.bytes().len()), (1, 8192, 16384));
        assert_eq!(gathered.bytes().as_ptr().align_offset(BLOCK), 0);
    }
}
