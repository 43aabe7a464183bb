//! Packages of a scripted server.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use everpoint_core::{LogOffset, Micros};
use everpoint_engine::StopFlag;
use everpoint_engine::fake::FakeEngine;
use everpoint_store::MemoryStore;

use super::*;
use crate::capture::{self, CaptureRequest};
use crate::testing::{SEGMENT, context, log, reopen};
use crate::{ClusterContext, Quiet};

fn capture(context: &ClusterContext) {
    let (slot, stop) = ("everpoint_db".to_owned(), StopFlag::default());
    capture::run(context, &CaptureRequest { once: true, slot, create_slot: true, stop }, &Quiet).unwrap();
}

fn request(name: &str, directory: &Path, arrived: &Contents) -> BuildRequest {
    let identity = age::x25519::Identity::generate();
    BuildRequest {
        name: name.to_owned(),
        directory: directory.to_owned(),
        recipients: vec![identity.to_public()],
        limit: None,
        arrived: arrived.clone(),
        identity: Some(identity),
        shortfalls: Vec::new(),
        stop: StopFlag::default(),
    }
}

/// A package of one cluster with a log of so many commits.
struct Packaged {
    directory: tempfile::TempDir,
    clusters: [ClusterContext; 1],
    request: BuildRequest,
    made: BuildReport,
    identities: [age::x25519::Identity; 1],
}

impl Packaged {
    fn of(commits: u64) -> Self {
        let engine = Arc::new(FakeEngine::new(log(commits)));
        let clusters = [context(Arc::new(MemoryStore::new()), &engine)];
        capture(&clusters[0]);
        let directory = tempfile::tempdir().unwrap();
        let request = request("one.tar.age", directory.path(), &Contents::default());
        let made = build(&clusters, &request, &Quiet).unwrap();
        let identities = [request.identity.clone().unwrap()];
        Self { directory, clusters, request, made, identities }
    }

    fn opening(&self) -> Opening<'_> {
        Opening { file: &self.made.file, identities: &self.identities, stop: &self.request.stop }
    }
}

#[test]
fn a_package_of_the_same_name_is_neither_written_over_nor_taken_away() {
    let package = Packaged::of(20);
    build(&package.clusters, &package.request, &Quiet).unwrap_err();
    package.opening().verify().unwrap();
    let left: Vec<_> =
        std::fs::read_dir(package.directory.path()).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(left, [package.made.file], "no scratch stays");
}

#[test]
fn a_package_goes_on_with_the_segment_in_which_the_last_that_arrived_ended() {
    let mut log = log(100);
    let engine = Arc::new(FakeEngine::new(log.clone()));
    let clusters = [context(Arc::new(MemoryStore::new()), &engine)];
    let directory = tempfile::tempdir().unwrap();
    let (mut arrived, mut held) = (Contents::default(), log.start().0);
    for (day, call_fails) in [false, true, false].into_iter().enumerate() {
        (1..=60).for_each(|xid| {
            log.commit(1000 * (day as u64 + 1) + xid, Micros(9_000_000 * (day as i64 + 1)), 30_000);
        });
        engine.server().timelines[0].log = log.clone();
        capture(&clusters[0]);
        // The first holds nothing of it, as there is no image that could ask for it: what is new must come all the same.
        if day == 0 {
            arrived = build(&clusters, &request("0", directory.path(), &arrived), &Quiet).unwrap().contents;
            held = log.end().0;
            continue;
        }
        let request = request(&day.to_string(), directory.path(), &arrived);
        let made = build(&clusters, &request, &Quiet).unwrap();
        let identities = [request.identity.clone().unwrap()];
        let opening = Opening { file: &made.file, identities: &identities, stop: &request.stop };
        let manifest = opening.verify().unwrap();
        let range = manifest.cluster("db").unwrap().log[0].ranges[0];
        assert!(range.from <= held && held < range.to && range.to == log.end().0, "{day}: {range:?} {held}");
        if !call_fails {
            (arrived, held) = (joined(&arrived, &made.contents), range.to);
        }
    }
    assert_eq!(held, log.end().0);
}

/// The log of the scripted server, read back from a package.
fn ranges(made: &BuildReport, request: &BuildRequest) -> Vec<(u64, u64)> {
    let identities = [request.identity.clone().unwrap()];
    let opening = Opening { file: &made.file, identities: &identities, stop: &request.stop };
    let manifest = opening.verify().unwrap();
    let logs = manifest.cluster("db").unwrap().log.iter();
    logs.flat_map(|log| log.ranges.iter().map(|range| (range.from, range.to))).collect()
}

#[test]
fn without_any_image_the_first_package_holds_all_log_and_claims_no_more() {
    let log = log(100);
    let engine = Arc::new(FakeEngine::new(log.clone()));
    let clusters = [context(Arc::new(MemoryStore::new()), &engine)];
    capture(&clusters[0]);
    let directory = tempfile::tempdir().unwrap();
    let request = request("first", directory.path(), &Contents::default());
    let made = build(&clusters, &request, &Quiet).unwrap();
    assert_eq!(ranges(&made, &request), [(log.start().0, log.end().0)]);
    assert_eq!(made.contents.clusters["db"][0].to, log.end().0);
}

#[test]
fn what_can_t_be_read_is_named_and_no_later_log_is_said_to_have_arrived() {
    let log = log(150);
    let engine = Arc::new(FakeEngine::new(log.clone()));
    let store = MemoryStore::new();
    let clusters = [context(Arc::new(store.clone()), &engine)];
    capture(&clusters[0]);
    let directory = tempfile::tempdir().unwrap();
    let (second, third) = (LogOffset(2 * SEGMENT), LogOffset(3 * SEGMENT));
    let name = store.names().into_iter().find(|name| name.ends_with("/000000010000000000000002")).unwrap();
    let whole = store.copy();
    assert!(store.flip(&name, 5000), "{name}");

    let request = request("holed", directory.path(), &Contents::default());
    let made = build(&clusters, &request, &Quiet).unwrap();
    assert_eq!(ranges(&made, &request), [(log.start().0, second.0), (third.0, log.end().0)]);
    assert_eq!(made.contents.clusters["db"][0].to, second.0, "the chain ends before what is missing");
    let named = made.shortfalls.iter().any(|shortfall| shortfall.contains("from 0/200000 to 0/300000"));
    assert!(named, "{:?}", made.shortfalls);

    // Brought back, it comes with the next package.
    let repaired = [reopen(Arc::new(whole), &engine).unwrap()];
    let next = BuildRequest { name: "next".to_owned(), arrived: made.contents, ..request };
    let made = build(&repaired, &next, &Quiet).unwrap();
    assert_eq!(ranges(&made, &next), [(second.0, log.end().0)]);
    assert_eq!(made.contents.clusters["db"][0].to, log.end().0);
}

#[test]
fn a_killed_process_leaves_nothing_that_looks_like_a_package_and_its_scratch_goes_with_the_next() {
    let engine = Arc::new(FakeEngine::new(log(20)));
    let clusters = [context(Arc::new(MemoryStore::new()), &engine)];
    capture(&clusters[0]);
    let directory = tempfile::tempdir().unwrap();
    let left = directory.path().join("package-killed");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("lock"), b"").unwrap();
    std::fs::write(left.join("package"), b"half of one").unwrap();
    let busy = directory.path().join("package-busy");
    std::fs::create_dir(&busy).unwrap();
    let lock = std::fs::File::create_new(busy.join("lock")).unwrap();
    lock.lock().unwrap();
    let seen = Seen(directory.path().join("one.tar.age"), std::sync::Mutex::default());
    build(&clusters, &request("one.tar.age", directory.path(), &Contents::default()), &seen).unwrap();
    assert!(!left.exists() && busy.exists());
    let steps = seen.1.into_inner().unwrap();
    assert!(steps.len() >= 3 && steps.iter().all(|there| !there), "named before it was verified: {steps:?}");
}

/// Whether the file was there at each step.
struct Seen(std::path::PathBuf, std::sync::Mutex<Vec<bool>>);

impl crate::Events for Seen {
    fn emit(&self, event: crate::Event) {
        if let crate::Event::Step(_) = event {
            self.1.lock().unwrap().push(self.0.exists());
        }
    }
}

#[test]
fn a_damaged_file_is_named_and_nothing_of_it_stays_where_it_was_to_be_unpacked() {
    let package = Packaged::of(4000);
    let (opening, directory, made) = (package.opening(), &package.directory, &package.made);
    let (new, empty) = (directory.path().join("new"), directory.path().join("empty"));
    std::fs::create_dir(&empty).unwrap();
    let whole = std::fs::read(&made.file).unwrap();
    let mut flipped = whole.clone();
    assert!(flipped.len() > 80_000, "more than one chunk: {}", flipped.len());
    let last = flipped.len() - 5000;
    flipped[last] ^= 1;
    for bytes in [&flipped[..], &whole[..whole.len() - 5000]] {
        std::fs::write(&made.file, bytes).unwrap();
        for place in [&new, &empty] {
            let error = opening.unpack(place).unwrap_err();
            assert_eq!(
                (error.code.as_str(), error.class),
                ("package.damaged", FailureClass::Damaged),
                "{error}"
            );
            assert!(
                error.object.contains("one.tar.age") && error.message.contains("damaged or cut"),
                "{error}"
            );
        }
        assert!(!new.exists());
        assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0);
    }
    std::fs::write(&made.file, &whole).unwrap();
    for place in [&new, &empty] {
        opening.unpack(place).unwrap();
        assert!(place.join("RESTORE.md").exists() && place.join("clusters/db").is_dir());
    }
}

#[test]
fn what_a_killed_unpack_left_goes_with_the_next_and_nothing_else_does() {
    let package = Packaged::of(20);
    let (opening, directory) = (package.opening(), &package.directory);
    let place = directory.path().join("place");
    let left = place.join(".unpacking-killed");
    std::fs::create_dir_all(left.join("clusters")).unwrap();

    let other = std::fs::File::open(&place).unwrap();
    other.lock().unwrap();
    let refused = opening.unpack(&place).unwrap_err();
    assert_eq!((refused.code.as_str(), refused.class), ("package.unpacking", FailureClass::Locked));
    assert!(left.exists());
    drop(other);

    std::fs::write(place.join("mine"), "").unwrap();
    let refused = opening.unpack(&place).unwrap_err();
    assert_eq!((refused.code.as_str(), refused.class), ("package.not_empty", FailureClass::Usage));
    assert!(refused.message.contains("killed") && left.exists());

    std::fs::remove_file(place.join("mine")).unwrap();
    opening.unpack(&place).unwrap();
    assert!(!left.exists() && place.join("RESTORE.md").exists());
}
