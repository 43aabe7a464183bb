//! Fixed values of everything that is stored.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "shared by tests, which fail by panicking"
)]

use everpoint_core::{Digest, LogEvent, LogOffset, Micros, RecordSpan, Span, TransactionEnd, Verdict};
use everpoint_format::FormatError;
use everpoint_format::bundle::{BundleSegment, BundleTable};
use everpoint_format::manifest::{
    BackupRecord, DamagedPage, Extent, FileEntry, FileKind, ManifestReader, ManifestWriter, PackId,
    TablespaceRecord,
};
use everpoint_format::pack::PackRun;
use everpoint_format::seal::FrameRef;

pub(crate) fn record() -> BackupRecord {
    BackupRecord {
        label: "20260129-143000F".into(),
        cluster: "orders".into(),
        engine: "postgresql".into(),
        kind: "full".into(),
        base: Some("20260128-143000F".into()),
        identity: 1,
        system_identifier: "7460012345678901234".into(),
        server_version: 160_015,
        server_version_text: "16.15".into(),
        timeline: 2,
        branch: "00000002-ab00000000000007".into(),
        started_at: 1_769_697_000_000_000,
        stopped_at: 1_769_697_060_000_000,
        start: 0x1_0300_0028,
        stop: 0x1_0400_0100,
        page_size: 8192,
        segment_size: 16 << 20,
        method: "files".into(),
        from_standby: false,
        size_bytes: 1 << 30,
        stored_bytes: 1 << 28,
        file_count: 5,
        pages_total: 131_072,
        pages_changed: 1000,
        damaged: vec![DamagedPage { path: "base/5/16384".into(), page: 7 }],
        damaged_count: 1,
        tablespaces: vec![
            TablespaceRecord { oid: 16_500, path: Some("/mnt/fast".into()) },
            TablespaceRecord { oid: 16_501, path: None },
        ],
        facts: vec![("wal_level".into(), "replica".into())],
        warnings: Vec::new(),
        labels: [("ticket".to_owned(), "OPS-7".to_owned())].into(),
        everpoint_version: "0.1.0".into(),
        duration_micros: 60_000_000,
        encrypted: true,
        codec: "zstd".into(),
    }
}

pub(crate) fn frame(number: u32, offset: u32, stored: u32, raw: u32) -> FrameRef {
    FrameRef { number, offset, stored, raw }
}

pub(crate) fn entry(path: &str, extents: Vec<Extent>) -> FileEntry {
    FileEntry {
        path: path.to_owned(),
        kind: FileKind::Pages,
        mode: 0o600,
        modified: 1_769_697_000_123_456,
        size: extents.iter().map(Extent::length).sum(),
        extents,
        page_hashes: Some(0),
        content_hash: None,
        damaged: Vec::new(),
    }
}

pub(crate) fn entries() -> Vec<FileEntry> {
    let (a, b) = (PackId([0xaa; 16]), PackId([0xbb; 16]));
    let stored = |pack, frame, skip, length| Extent::Stored { length, pack, frame, skip };
    let (first, second) = (frame(0, 64, 90_000, 262_144), frame(1, 90_064, 80_000, 262_144));
    vec![
        FileEntry {
            kind: FileKind::Plain,
            page_hashes: None,
            content_hash: Some([0xcc; 16]),
            ..entry("PG_VERSION", vec![stored(b, frame(3, 70_000, 200, 3), 0, 3)])
        },
        FileEntry {
            kind: FileKind::Directory,
            mode: 0o700,
            modified: -5,
            page_hashes: None,
            ..entry("base/5", vec![])
        },
        FileEntry {
            damaged: vec![7, 9],
            ..entry(
                "base/5/16384",
                vec![
                    stored(a, first, 0, 262_144),
                    stored(a, second, 0, 262_144),
                    Extent::Zero { length: 81_920 },
                    stored(b, frame(9, 500_000, 10_000, 65_536), 8192, 8192),
                    stored(b, frame(9, 500_000, 10_000, 65_536), 24_576, 16_384),
                    stored(a, first, 16_384, 8192),
                ],
            )
        },
        FileEntry {
            page_hashes: Some(u64::MAX - 1),
            ..entry("base/5/16384_vm", vec![Extent::Zero { length: u64::MAX >> 8 }])
        },
        FileEntry {
            kind: FileKind::External,
            page_hashes: None,
            ..entry("etc/postgresql/größe.conf", vec![])
        },
    ]
}

pub(crate) fn manifest(entries: &[FileEntry]) -> Result<Vec<u8>, FormatError> {
    let mut writer = ManifestWriter::new(Vec::new(), &record())?;
    entries.iter().try_for_each(|entry| writer.entry(entry))?;
    writer.finish()
}

pub(crate) fn read_manifest(bytes: &[u8]) -> Result<(BackupRecord, Vec<FileEntry>), FormatError> {
    let mut reader = ManifestReader::new(bytes)?;
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        entries.push(entry);
    }
    Ok((reader.record().clone(), entries))
}

pub(crate) fn runs() -> Vec<PackRun> {
    let run = |number: u32, skip, length, pages| PackRun {
        frame: frame(number, 64 + 1000 * number, 1000, 65_536),
        skip,
        length,
        hash: [u8::try_from(number).unwrap() + 1; 16],
        pages,
    };
    vec![run(0, 0, 65_536, true), run(1, 0, 8192, true), run(1, 8192, 300, false)]
}

fn at(start: u64, length: u64) -> RecordSpan {
    RecordSpan { start: LogOffset(start), end: LogOffset(start + length) }
}

/// Three segments of 16 MiB in frames of 8 MiB.
pub(crate) fn bundle_table() -> BundleTable {
    BundleTable {
        first: 0x1_0300_0000,
        segment_size: 16 << 20,
        frame_size: 8 << 20,
        frames: vec![1_234_567, 8_388_636, 28 + 77, 900_000, 900_001, 5000],
        segments: (0..3)
            .map(|number| BundleSegment { hash: [number; 32], digest: 300 * u32::from(number) })
            .collect(),
    }
}

pub(crate) fn events() -> Vec<LogEvent> {
    let end = |start: u64, micros: i64, subxids: Vec<u64>, prepared| TransactionEnd {
        xid: 731,
        time: Micros(micros),
        record: at(start, 46),
        subxids,
        prepared,
    };
    let time = Micros(1_769_697_000_000_000);
    vec![
        LogEvent::Commit(end(0x300_0100, time.0, vec![732, 740], false)),
        LogEvent::Abort(end(0x300_0200, time.0 - 3, vec![], true)),
        LogEvent::Prepare { xid: 733, gid: "two phase".into(), record: at(0x300_0300, 99) },
        LogEvent::RestorePoint { name: "before-deploy".into(), time, record: at(0x300_0400, 98) },
        LogEvent::Checkpoint {
            redo: LogOffset(0x300_0028),
            shutdown: false,
            time,
            timeline: 2,
            previous_timeline: 1,
            record: at(0x300_0500, 114),
        },
        LogEvent::EndOfRecovery { time, timeline: 2, previous_timeline: 1, record: at(0x300_0600, 42) },
        LogEvent::Parameters { minimal: false, limits: [100, 8, 10, 0, -1], record: at(0x300_0700, 50) },
        LogEvent::DatabaseCreate { xid: 734, database: 16_385, tablespace: 1663, record: at(0x300_0800, 40) },
        LogEvent::DatabaseDrop {
            xid: 735,
            database: 16_385,
            tablespaces: vec![1663, 16_500],
            record: at(0x300_0900, 44),
        },
        LogEvent::TablespaceCreate {
            xid: 736,
            tablespace: 16_500,
            path: "/mnt/fast".into(),
            record: at(0x300_0a00, 48),
        },
        LogEvent::TablespaceDrop { xid: 737, tablespace: 16_500, record: at(0x300_0b00, 30) },
        LogEvent::BackupEnd { start: LogOffset(0x200_0028), record: at(0x300_0c00, 34) },
        LogEvent::SegmentSwitch { record: at(0x300_0d00, 24) },
    ]
}

pub(crate) fn digest() -> Digest {
    Digest {
        system: 7_460_012_345_678_901_234,
        timeline: 2,
        log_format: 0xD113,
        span: Span { from: LogOffset(0x300_0000), to: LogOffset(0x400_0000) },
        content_hash: [0x11; 32],
        previous_hash: Some([0x22; 32]),
        verdict: Verdict::Intact,
        first_record: Some(LogOffset(0x300_0028)),
        last_record: Some(at(0x300_0d00, 24)),
        first_previous: Some(LogOffset(0x2ff_ff00)),
        head_unknown: false,
        covered_until: Some(Micros(1_769_697_000_500_000)),
        records: 4711,
        events: events(),
    }
}
