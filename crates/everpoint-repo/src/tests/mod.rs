//! Tests over the public API: what is stored comes back, and a crash between any two steps harms nothing.

mod backups;
mod bundles;
mod crash;
mod expiry;
mod leases;
mod logs;
mod offsite;
mod opening;

use std::sync::Arc;

use everpoint_core::{BranchId, Digest, LogOffset, Span, Verdict};
use everpoint_format::codec::Codec;
use everpoint_format::keyslot::KeyText;
use everpoint_format::manifest::{BackupRecord, Extent, FileEntry, FileKind};
use everpoint_store::{Fault, FaultKind, FaultyStore, MemoryStore, Store};

use crate::{ClusterRepo, LogStore, PackRunInput, RepoError, Repository};

/// Segment size of the tests: the smallest that PostgreSQL knows.
pub(super) const SIZE: u64 = 1 << 20;

pub(super) fn key(number: u8) -> KeyText {
    KeyText::generate([number; 32])
}

pub(super) fn store_of(memory: &MemoryStore) -> Arc<dyn Store> {
    Arc::new(memory.clone())
}

/// A new repository in memory, encrypted.
pub(super) fn fresh() -> (MemoryStore, Repository) {
    let memory = MemoryStore::new();
    let repository = Repository::create(store_of(&memory), Some(&key(1))).unwrap();
    (memory, repository)
}

pub(super) fn open(memory: &MemoryStore) -> Repository {
    Repository::open(store_of(memory), Some(&key(1))).unwrap()
}

/// Bytes that compress somewhat and differ by seed.
pub(super) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            b'a' + u8::try_from(state % 16).unwrap()
        })
        .collect()
}

pub(super) fn branch() -> BranchId {
    BranchId::new(1, [0; 8])
}

pub(super) fn log(repository: &Repository) -> LogStore {
    repository.cluster("shop").unwrap().log(1, branch(), SIZE)
}

/// A digest of `bytes` that begin at `from`.
pub(super) fn digest(from: u64, bytes: &[u8]) -> Digest {
    Digest {
        system: 7,
        timeline: 1,
        log_format: 0xD110,
        span: Span { from: LogOffset(from), to: LogOffset(from + bytes.len() as u64) },
        content_hash: *blake3::hash(bytes).as_bytes(),
        previous_hash: None,
        verdict: Verdict::Intact,
        first_record: None,
        last_record: None,
        first_previous: None,
        head_unknown: false,
        covered_until: None,
        records: 0,
        events: Vec::new(),
    }
}

pub(super) fn record(label: &str) -> BackupRecord {
    BackupRecord {
        label: label.to_owned(),
        cluster: "shop".to_owned(),
        engine: "postgresql".to_owned(),
        kind: "full".to_owned(),
        base: None,
        identity: 1,
        system_identifier: "7".to_owned(),
        server_version: 150_018,
        server_version_text: "15.18".to_owned(),
        timeline: 1,
        branch: branch().as_str().to_owned(),
        started_at: 1,
        stopped_at: 2,
        start: 0,
        stop: 1,
        page_size: 8192,
        segment_size: SIZE,
        method: "files".to_owned(),
        from_standby: false,
        size_bytes: 0,
        stored_bytes: 0,
        file_count: 1,
        pages_total: 1,
        pages_changed: 1,
        damaged: Vec::new(),
        damaged_count: 0,
        tablespaces: Vec::new(),
        facts: Vec::new(),
        warnings: Vec::new(),
        labels: std::collections::BTreeMap::new(),
        everpoint_version: "0".to_owned(),
        duration_micros: 1,
        encrypted: true,
        codec: "zstd".to_owned(),
    }
}

/// Content of file number `file` of backup `label`.
pub(super) fn content(label: &str, file: usize) -> Vec<u8> {
    bytes(label.bytes().map(u64::from).sum::<u64>() * 100 + file as u64, 16384)
}

/// Files of each backup of the tests, each in a pack of its own.
pub(super) const FILES: usize = 2;

/// Takes a backup from its first to its last step.
pub(super) fn take_backup(cluster: &ClusterRepo, label: &str) -> Result<(), RepoError> {
    use everpoint_format::records::Attempt;
    cluster.begin_backup(label, &Attempt::new(label, "full", 1, 1))?;
    let mut entries = Vec::new();
    for file in 0..FILES {
        let raw = content(label, file);
        let hash = *blake3::hash(&raw).as_bytes().first_chunk().unwrap();
        let mut pack = cluster.pack_writer()?;
        let run = PackRunInput { skip: 0, length: 16384, hash, pages: true };
        let frame = pack.add(Codec::Zstd(1), &raw, &[run])?;
        let stored = Extent::Stored { length: 16384, pack: pack.finish()?, frame, skip: 0 };
        entries.push(FileEntry {
            path: format!("base/5/{file}"),
            kind: FileKind::Pages,
            mode: 0o600,
            modified: 1,
            size: 16384 + 8192,
            extents: vec![stored, Extent::Zero { length: 8192 }],
            page_hashes: None,
            content_hash: None,
            damaged: Vec::new(),
        });
    }
    let mut writer = cluster.write_backup(label, &record(label))?;
    for (file, entry) in entries.into_iter().enumerate() {
        writer.entry(entry, &[file as u64 + 1, 2, 0])?;
    }
    writer.finish()
}

/// Reads a backup wholly and compares it with what was taken.
pub(super) fn check_backup(cluster: &ClusterRepo, label: &str) {
    let mut manifest = cluster.open_manifest(label).unwrap();
    assert_eq!(manifest.record().label, label);
    let pages = cluster.open_pages(label).unwrap();
    for file in 0..FILES {
        let entry = manifest.next_entry().unwrap().unwrap();
        let Some(Extent::Stored { pack, frame, .. }) = entry.extents.first() else { panic!("{entry:?}") };
        let mut raw = Vec::new();
        cluster.open_pack(*pack).unwrap().read_frame(frame, &mut raw).unwrap();
        assert!(raw == content(label, file), "{label}: other bytes came back");
        assert_eq!(pages.read(entry.page_hashes.unwrap(), 3).unwrap(), [file as u64 + 1, 2, 0]);
    }
    assert!(manifest.next_entry().unwrap().is_none());
}

/// Runs `action` once for each of its steps and each way in which that step can fail, on a copy of `base` each time.
/// `action` returns what was acknowledged; `check` sees what is left.
pub(super) fn at_every_step<T>(
    base: &MemoryStore,
    kinds: &[FaultKind],
    action: impl Fn(Arc<dyn Store>) -> T,
    check: impl Fn(&MemoryStore, T, &str),
) {
    let count = {
        let faulty = Arc::new(FaultyStore::new(store_of(&base.copy()), Vec::new()));
        action(Arc::clone(&faulty) as Arc<dyn Store>);
        faulty.steps()
    };
    assert!(count > 1, "the action does nothing");
    for kind in kinds {
        for step in 1..=count {
            let memory = base.copy();
            let faulty = FaultyStore::new(store_of(&memory), vec![Fault { step, kind: *kind }]);
            let acknowledged = action(Arc::new(faulty));
            check(&memory, acknowledged, &format!("{kind:?} at step {step} of {count}"));
        }
    }
}

/// The ways in which an honest store fails.
pub(super) const HONEST: [FaultKind; 4] =
    [FaultKind::Fail, FaultKind::LoseAnswer, FaultKind::CrashBefore, FaultKind::CrashAfter];
