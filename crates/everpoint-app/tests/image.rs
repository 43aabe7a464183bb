//! An image goes into a repository and comes back byte for byte: full, incremental, over an interrupted attempt, as delta.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use everpoint_app::Quiet;
use everpoint_app::backup::image::ImageWriter;
use everpoint_app::backup::prior::PriorImage;
use everpoint_app::backup::resume::Resumed;
use everpoint_app::backup::spill::EntrySorter;
use everpoint_app::backup::{DEFAULT_CODEC, PAGE};
use everpoint_app::restore::image::{ImageRestore, Over};
use everpoint_app::restore::known::Known;
use everpoint_app::restore::mark::Mark;
use everpoint_app::restore::progress::Meter;
use everpoint_app::restore::tree::Tree;
use everpoint_core::{LogOffset, Micros};
use everpoint_engine::{BackupBegin, FileKind, FileMeta, ImageSink, PART_BYTES, Part, StopFlag};
use everpoint_format::attempt::Attempt;
use everpoint_format::keyslot::KeyText;
use everpoint_format::manifest::BackupRecord;
use everpoint_repo::{ClusterRepo, Repository};
use everpoint_store::MemoryStore;

type Files = BTreeMap<String, Vec<u8>>;

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|i| {
            if i % 64 == 0 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
            }
            (state >> (i % 8)) as u8
        })
        .collect()
}

fn sample() -> Files {
    let mut files = Files::new();
    files.insert("global/pg_control".into(), noise(1, 8192));
    files.insert("base/5/16384".into(), noise(2, 3 * PART_BYTES + 5 * PAGE));
    files.insert("base/5/16385".into(), vec![0; 40 * PAGE]);
    let mut mixed = noise(3, 100 * PAGE);
    mixed[10 * PAGE..20 * PAGE].fill(0);
    files.insert("base/5/16386".into(), mixed);
    files.insert("base/5/empty".into(), Vec::new());
    for i in 0..300 {
        files.insert(format!("base/6/{i}"), noise(100 + i, PAGE * (1 + i as usize % 3)));
    }
    files.insert("PG_VERSION".into(), b"15\n".to_vec());
    files
}

fn kind(path: &str) -> FileKind {
    if path.starts_with("base/") { FileKind::Pages } else { FileKind::Plain }
}

fn feed(image: &ImageWriter<'_>, files: &Files, workers: usize, until: usize) {
    let begin = BackupBegin {
        start: LogOffset(1),
        timeline: 1,
        started_at: Micros(0),
        tablespaces: vec![],
        expected_bytes: 0,
        page_size: PAGE as u32,
        method: "files",
    };
    image.begin(&begin).unwrap();
    let mut first = image.worker().unwrap();
    for path in ["base", "base/5", "base/6", "global"] {
        let path = path.to_owned();
        let meta =
            FileMeta { path, kind: FileKind::Directory, mode: 0o700, modified: Micros(0), size_hint: 0 };
        first.part(&meta, Part { offset: 0, data: &[], last: true, damaged_pages: &[] }).unwrap();
    }
    first.finish().unwrap();
    let parts: Vec<(&String, usize)> = files
        .iter()
        .flat_map(|(path, data)| (0..data.len().div_ceil(PART_BYTES).max(1)).map(move |part| (path, part)))
        .take(until)
        .collect();
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let parts = &parts;
            scope.spawn(move || {
                let mut hand = image.worker().unwrap();
                for (path, part) in parts.iter().skip(worker).step_by(workers) {
                    let data = &files[*path];
                    let offset = part * PART_BYTES;
                    let end = (offset + PART_BYTES).min(data.len());
                    let meta = FileMeta {
                        path: (*path).clone(),
                        kind: kind(path),
                        mode: 0o600,
                        modified: Micros(0),
                        size_hint: data.len() as u64,
                    };
                    let last = end == data.len();
                    hand.part(
                        &meta,
                        Part { offset: offset as u64, data: &data[offset..end], last, damaged_pages: &[] },
                    )
                    .unwrap();
                }
                hand.finish().unwrap();
            });
        }
    });
}

fn record(label: &str) -> BackupRecord {
    serde_json::from_value(serde_json::json!({
        "label": label, "cluster": "c", "engine": "postgresql", "kind": "full", "identity": 1,
        "system_identifier": "1", "server_version": 150_000, "server_version_text": "15", "timeline": 1,
        "branch": "", "started_at": 0, "stopped_at": 0, "start": 1, "stop": 2, "page_size": 8192,
        "segment_size": 1, "method": "files", "from_standby": false, "size_bytes": 0, "stored_bytes": 0,
        "file_count": 0, "pages_total": 0, "pages_changed": 0, "everpoint_version": "", "duration_micros": 0,
        "encrypted": true, "codec": ""
    }))
    .unwrap()
}

/// Backs up; returns how many bytes had to be stored.
fn backup(cluster: &ClusterRepo, label: &str, base: Option<&str>, files: &Files, scratch: &Path) -> u64 {
    cluster.begin_backup(label, &Attempt::new(label, "full", 0, 1)).unwrap();
    let prior = base.map(|base| PriorImage::open(cluster, base, scratch).unwrap());
    let resumed = Resumed::load(cluster).unwrap();
    let sorter = EntrySorter::new(scratch, 10_000);
    let image = ImageWriter::new(cluster, DEFAULT_CODEC, prior, resumed, sorter, StopFlag::default(), &Quiet);
    feed(&image, files, 3, usize::MAX);
    let (totals, _, sorter) = image.into_parts().unwrap();
    assert_eq!(
        totals.image.load(Ordering::Relaxed),
        files.values().map(|data| data.len() as u64).sum::<u64>()
    );
    let mut writer = cluster.write_backup(label, &record(label)).unwrap();
    sorter.drain(|spilled| Ok(writer.entry(spilled.entry, &spilled.hashes)?)).unwrap();
    writer.finish().unwrap();
    totals.new.load(Ordering::Relaxed)
}

fn restore(cluster: &ClusterRepo, label: &str, to: &Path, delta: bool) -> u64 {
    let mark = Mark::new("repository", "shop", to, label);
    let tree = Tree::new(to, std::collections::BTreeMap::new(), None, mark).unwrap();
    let known = Known::read(cluster, label, &tree, &StopFlag::default()).unwrap();
    let over = delta.then_some(Over { known: &known, is_log_name: &|_| true });
    let (meter, stop) = (Meter::new(&Quiet, 0), StopFlag::default());
    // The restores of whole clusters go through the cache.
    let past_cache = true;
    let job = ImageRestore {
        cluster,
        label,
        tree: &tree,
        over,
        left: &[],
        past_cache,
        workers: 2,
        meter: &meter,
        stop: &stop,
    };
    job.write().unwrap();
    tree.finish().unwrap();
    // Until the recovery settings are there, a server that somebody starts must not run without them.
    std::fs::remove_file(to.join("recovery.signal")).unwrap();
    meter.written()
}

fn compare(files: &Files, at: &Path) {
    for (path, data) in files {
        assert!(std::fs::read(at.join(path)).unwrap() == *data, "{path} differs");
    }
    let mut count = 0;
    let mut todo = vec![at.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() { todo.push(entry.path()) } else { count += 1 }
        }
    }
    assert_eq!(count, files.len());
}

fn repository() -> ClusterRepo {
    let key = KeyText::generate([7; 32]);
    Repository::create(Arc::new(MemoryStore::new()), Some(&key)).unwrap().cluster("c").unwrap()
}

#[test]
fn images_come_back_byte_for_byte_and_later_ones_store_only_what_differs() {
    let (cluster, scratch, place) =
        (repository(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = sample();
    backup(&cluster, "a", None, &first, scratch.path());
    restore(&cluster, "a", &place.path().join("a"), false);
    compare(&first, &place.path().join("a"));

    let mut second = first.clone();
    second.get_mut("base/5/16384").unwrap()[PAGE * 7 + 100] ^= 1;
    second.get_mut("base/5/16384").unwrap().extend(noise(77, 2 * PAGE));
    second.get_mut("base/5/16386").unwrap()[..PAGE].fill(0);
    second.get_mut("base/5/16386").unwrap().truncate(50 * PAGE);
    second.remove("base/6/7");
    second.insert("base/6/new".into(), noise(5, PAGE));
    let new = backup(&cluster, "b", Some("a"), &second, scratch.path());
    assert!(new < 8 * PAGE as u64, "stored {new} bytes anew");
    restore(&cluster, "b", &place.path().join("b"), false);
    compare(&second, &place.path().join("b"));

    // Delta: from the one state to the other and back, over a directory that also holds what does not belong.
    std::fs::write(place.path().join("b/base/5/stray"), "x").unwrap();
    let written = restore(&cluster, "a", &place.path().join("b"), true);
    compare(&first, &place.path().join("b"));
    assert!(written < 80 * PAGE as u64, "wrote {written} bytes");
    restore(&cluster, "b", &place.path().join("b"), true);
    compare(&second, &place.path().join("b"));
}

#[test]
fn an_interrupted_attempt_is_reused() {
    let (cluster, scratch, place) =
        (repository(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = sample();
    let all: u64 = files.values().map(|data| data.len() as u64).sum();
    let sorter = EntrySorter::new(scratch.path(), 10_000);
    let (codec, stop) = (DEFAULT_CODEC, StopFlag::default());
    let image = ImageWriter::new(&cluster, codec, None, Resumed::default(), sorter, stop, &Quiet);
    feed(&image, &files, 1, 200);
    drop(image);
    let new = backup(&cluster, "b", None, &files, scratch.path());
    assert!(new < all / 2, "stored {new} of {all} bytes anew");
    restore(&cluster, "b", &place.path().join("b"), false);
    compare(&files, &place.path().join("b"));
}
