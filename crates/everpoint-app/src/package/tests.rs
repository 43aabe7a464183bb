//! Packages of a scripted server.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use everpoint_core::Micros;
use everpoint_engine::StopFlag;
use everpoint_engine::fake::FakeEngine;
use everpoint_store::MemoryStore;

use super::*;
use crate::capture::{self, CaptureRequest};
use crate::testing::{context, log};
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

#[test]
fn a_package_of_the_same_name_is_neither_written_over_nor_taken_away() {
    let engine = Arc::new(FakeEngine::new(log(20)));
    let clusters = [context(Arc::new(MemoryStore::new()), &engine)];
    capture(&clusters[0]);
    let directory = tempfile::tempdir().unwrap();
    let request = request("one.tar.age", directory.path(), &Contents::default());
    let made = build(&clusters, &request, &Quiet).unwrap();
    build(&clusters, &request, &Quiet).unwrap_err();
    let identities = [request.identity.clone().unwrap()];
    Opening { file: &made.file, identities: &identities, stop: &request.stop }.verify().unwrap();
    let left: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(left, [made.file], "no scratch stays");
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
