//! What is seen of a log while it is being stored.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use everpoint_engine::StopFlag;
use everpoint_engine::fake::FakeEngine;
use everpoint_format::manifest::BackupRecord;
use everpoint_store::MemoryStore;

use super::load;
use super::placed::tests::record;
use crate::Quiet;
use crate::capture::{self, CaptureRequest};
use crate::testing::{SEGMENT, context, log};

#[test]
fn a_segment_whose_digest_is_not_stored_yet_is_no_hole_at_the_end_and_one_in_the_middle() {
    let mut server = log(20);
    (1..=150).for_each(|xid| {
        server.commit(100 + xid, everpoint_core::Micros(9_000_000), 30_000);
    });
    let engine = Arc::new(FakeEngine::new(server));
    let memory = MemoryStore::new();
    let context = context(Arc::new(memory.clone()), &engine);
    let (slot, stop) = ("everpoint_db".to_owned(), StopFlag::default());
    capture::run(&context, &CaptureRequest { once: true, slot, create_slot: true, stop }, &Quiet).unwrap();
    let whole = load(&context).unwrap().log.branches[0].clone();
    assert_eq!(whole.gaps, []);

    let named =
        |part: &str| memory.names().into_iter().filter(|name| name.contains(part)).collect::<Vec<_>>();
    let (digests, tails) = (named(".digest"), named(".tail/"));
    assert!(digests.len() > 2 && !tails.is_empty());
    let last = digests.last().unwrap();
    tails.iter().for_each(|name| assert!(memory.lose(name)));
    assert!(memory.lose(last));
    let shorter = load(&context).unwrap().log.branches[0].clone();
    let end = |branch: &everpoint_core::BranchFacts| branch.pieces.last().unwrap().span.to.0;
    assert_eq!(end(&shorter), end(&whole) / SEGMENT * SEGMENT - SEGMENT);
    assert!(!shorter.gaps.iter().any(|gap| gap.reason.contains("digest")), "{:?}", shorter.gaps);

    assert!(memory.lose(&digests[digests.len() - 3]));
    let broken = load(&context).unwrap().log.branches[0].clone();
    assert!(broken.gaps.iter().any(|gap| gap.reason.contains("its digest is not")), "{:?}", broken.gaps);
}

/// An early version could write a record without a branch: the backup was left out of plans, called good, and expired like
/// an attempt that came to nothing.
#[test]
fn a_backup_without_a_branch_is_used_where_it_can_be_placed_and_else_called_unusable() {
    let engine = Arc::new(FakeEngine::new(log(20)));
    let context = context(Arc::new(MemoryStore::new()), &engine);
    let (slot, stop) = ("everpoint_db".to_owned(), StopFlag::default());
    capture::run(&context, &CaptureRequest { once: true, slot, create_slot: true, stop }, &Quiet).unwrap();
    for (label, timeline) in [("placed", 1), ("lost", 9)] {
        let record = BackupRecord { label: label.to_owned(), ..record(timeline, "") };
        context.cluster.write_backup(label, &record).unwrap().finish().unwrap();
    }
    let facts = load(&context).unwrap();
    let planned: Vec<&str> = facts.backups.iter().map(|backup| backup.label.as_str()).collect();
    assert_eq!(planned, ["placed"]);
    let listed = crate::list::run(&context).unwrap().backups;
    let line = |label: &str| listed.iter().find(|line| line.label == label).unwrap();
    assert_eq!((line("placed").status, line("placed").incomplete), ("ok", false));
    assert!(line("placed").warnings[0].contains("does not say"), "{:?}", line("placed").warnings);
    assert_eq!(line("lost").status, "damaged");
    assert!(line("lost").reason.as_ref().unwrap().contains("which of the 0 stored branches of timeline 9"));
    assert!(crate::expire::facts::attempts(&facts).is_empty(), "an image is no attempt that came to nothing");
}
