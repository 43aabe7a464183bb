//! The map of an image of 1 TiB is written and read in bounded memory. Alone in its file: it measures its process.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod samples;

use std::io::{Seek, SeekFrom};

use everpoint_format::codec::Codec;
use everpoint_format::manifest::{Extent, ManifestReader, ManifestWriter, PackId};
use everpoint_format::seal::{
    DataKey, FrameRef, FrameStreamReader, FrameStreamWriter, HEADER_LEN, KeyRing, ObjectAddress, ObjectKind,
    RepositoryId,
};
use samples::{entry, record};

const FRAME: u32 = 256 << 10;
const FILE: u64 = 1 << 30;
const FILES: u64 = 1024;
/// Stored bytes of a frame: varies, as what compression makes of it does.
const STORED: std::ops::Range<u32> = 60_000..130_000;
const FRAMES_OF_A_PACK: u32 = 700;
/// Threads of the backup that made the image: each with a pack of its own, they take parts of 1 MiB in turn.
const WORKERS: usize = 4;
const LIMIT: u64 = 64 << 20;

/// Gives frames as a backup with several workers does.
struct Frames {
    workers: [(u32, FrameRef); WORKERS],
    packs: u32,
    noise: u64,
}

impl Frames {
    fn new() -> Self {
        let workers = std::array::from_fn(|worker| (worker as u32, Self::before_first()));
        Self { workers, packs: WORKERS as u32, noise: 0x9e37_79b9_7f4a_7c15 }
    }

    fn before_first() -> FrameRef {
        FrameRef { number: u32::MAX, offset: HEADER_LEN as u32, stored: 0, raw: FRAME }
    }

    fn next(&mut self, worker: usize) -> Extent {
        self.noise =
            self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let stored = STORED.start + (self.noise >> 33) as u32 % (STORED.end - STORED.start);
        let (pack, last) = &mut self.workers[worker];
        if last.number == FRAMES_OF_A_PACK {
            (*pack, *last) = (self.packs, Self::before_first());
            self.packs += 1;
        }
        let number = last.number.wrapping_add(1);
        *last = FrameRef { number, offset: last.offset + last.stored, stored, raw: FRAME };
        let id = blake3::hash(&pack.to_le_bytes()).as_bytes()[..16].try_into().unwrap();
        Extent::Stored { length: FRAME, pack: PackId(id), frame: *last, skip: 0 }
    }

    fn file(&mut self, number: u64) -> everpoint_format::manifest::FileEntry {
        let parts = (FILE >> 20) as usize;
        let extents =
            (0..parts).flat_map(|part| [part % WORKERS; 4]).map(|worker| self.next(worker)).collect();
        entry(&format!("base/16384/{:06}", 24_576 + number), extents)
    }
}

/// Peak memory of this process in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn a_map_of_1_tib_takes_bounded_memory() {
    let before = peak();
    let ring = KeyRing::new(vec![DataKey::new([1; 8], [2; 32])]);
    let address =
        ObjectAddress { repository: RepositoryId([7; 16]), name: "manifest", kind: ObjectKind::Manifest };
    let file = tempfile::tempfile().unwrap();
    let stream = FrameStreamWriter::new(file, &address, &ring, [3; 32], Codec::Zstd(3)).unwrap();
    let mut writer = ManifestWriter::new(stream, &record()).unwrap();
    let mut frames = Frames::new();
    (0..FILES).for_each(|number| writer.entry(&frames.file(number)).unwrap());
    let mut file = writer.finish().unwrap().finish(&[]).unwrap();
    let written = peak() - before;

    let size = file.seek(SeekFrom::End(0)).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut reader = ManifestReader::new(FrameStreamReader::new(file, &address, &ring).unwrap()).unwrap();
    let mut frames = Frames::new();
    let (mut bytes, mut extents) = (0, 0);
    while let Some(entry) = reader.next_entry().unwrap() {
        assert_eq!(entry, frames.file(bytes / FILE));
        bytes += entry.size;
        extents += entry.extents.len() as u64;
    }
    let grown = peak() - before;
    println!("{extents} extents in {size} bytes; memory grew by {written} (written) and {grown} (and read)");
    assert_eq!((bytes, extents), (1 << 40, 4 << 20));
    assert!(grown < LIMIT, "memory grew by {grown}");
    assert!(size < 5 * extents, "{size} bytes for {extents} extents");
}
