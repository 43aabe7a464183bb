//! Tables of targets and the plans that they get.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use everpoint_core::{
    BackupStatus, LogEvent, LogOffset, Micros, RecordSpan, RestoreRequest, Stop, Target, windows,
};
use world::{SEGMENT, World, ended, request, span};

fn stop(record: RecordSpan, inclusive: bool) -> Stop {
    Stop { record: record.start, inclusive }
}

fn exclusive(target: Target) -> RestoreRequest {
    RestoreRequest { exclusive: true, ..request(target) }
}

/// One branch: a backup between 100 and 110, then transactions 11 to 13 at 200, 300 and 400.
struct Simple {
    world: World,
    commits: [RecordSpan; 3],
    last: RecordSpan,
}

fn simple() -> Simple {
    let mut world = World::default();
    let main = world.branch(1, None);
    world.commit(main, 10, 50);
    let start = world.filler(main, 40);
    world.filler(main, 300);
    world.backup(main, "b1", start, 100, 110);
    let commits = [(11, 200), (12, 300), (13, 400)].map(|(xid, time)| {
        world.filler(main, 300);
        world.commit(main, xid, time)
    });
    let last = world.filler(main, 30);
    world.store(main, None);
    Simple { world, commits, last }
}

#[test]
fn a_moment_stops_before_the_first_later_end() {
    let Simple { mut world, commits, .. } = simple();
    for (time, is_exclusive, wanted, xid) in [
        (110, false, commits[0], 10),
        (199, false, commits[0], 10),
        (200, false, commits[1], 11),
        (200, true, commits[0], 10),
        (299, false, commits[1], 11),
        (399, false, commits[2], 12),
        (400, true, commits[2], 12),
    ] {
        let target = Target::Time(Micros(time));
        let plan = world.plan(&RestoreRequest { exclusive: is_exclusive, ..request(target) }).unwrap();
        assert_eq!(plan.stop, stop(wanted, false), "{time}");
        assert_eq!(plan.reached.xid, Some(xid), "{time}");
        assert_eq!(plan.reached.position, wanted.start);
        assert_eq!(plan.warnings, Vec::<String>::new());
    }
}

#[test]
fn an_abort_stops_too() {
    let mut world = World::default();
    let main = world.branch(1, None);
    let start = world.filler(main, 40);
    world.backup(main, "b", start, 100, 110);
    let abort = world.abort(main, 11, 200);
    world.commit(main, 12, 190);
    world.store(main, None);
    let plan = world.plan_to(Target::Time(Micros(195))).unwrap();
    assert_eq!(plan.stop, stop(abort, false));
    assert_eq!(plan.reached.xid, None);
    // That 12 bears an earlier time and lies behind the stop is said.
    assert!(plan.warnings[0].contains("out of order") && plan.warnings[0].contains("transaction 12"));
}

#[test]
fn the_end_of_the_log_is_no_proof_that_nothing_happened() {
    let Simple { mut world, last, .. } = simple();
    let refused = world.plan_to(Target::Time(Micros(401))).unwrap_err();
    assert!(refused.reason.contains("known to be complete until"), "{}", refused.reason);
    let before = refused.nearest_before.unwrap();
    assert_eq!((before.time, before.position, before.xid), (Some(Micros(400)), last.end, Some(13)));
    assert_eq!(refused.nearest_after, None);
    // Offered is what can be had, with a word about the microsecond.
    let plan = world.plan_to(Target::Time(Micros(400))).unwrap();
    assert_eq!(plan.stop, stop(last, true));
    assert!(plan.warnings[0].contains("same microsecond"), "{:?}", plan.warnings);

    let end = LogOffset(world.end(0) + 8);
    world.branches[0].covered = Some((end, Micros(900)));
    let refused = world.plan_to(Target::Time(Micros(900))).unwrap_err();
    assert!(refused.reason.contains("stored log ends"), "covered at a position that is not stored");
    world.branches[0].covered = Some((last.end, Micros(900)));
    let plan = world.plan_to(Target::Time(Micros(900))).unwrap();
    assert_eq!((plan.stop, plan.warnings.len()), (stop(last, true), 0));
    assert_eq!(plan.reached.time, Some(Micros(400)));
    world.plan_to(Target::Time(Micros(901))).unwrap_err();
}

#[test]
fn before_the_first_backup_and_without_one() {
    let Simple { mut world, .. } = simple();
    let refused = world.plan_to(Target::Time(Micros(109))).unwrap_err();
    assert!(refused.reason.contains("b1"), "{}", refused.reason);
    assert_eq!(refused.nearest_before, None);
    assert_eq!(refused.nearest_after.unwrap().time, Some(Micros(110)));
    for status in [BackupStatus::Damaged, BackupStatus::Failed, BackupStatus::Running] {
        world.backups[0].status = status;
        let refused = world.plan_to(Target::Latest).unwrap_err();
        assert!(refused.reason.contains("no usable backup"), "{}", refused.reason);
        assert!(windows(&world.facts(), &world.backups).is_empty());
    }
    world.backups.clear();
    world.plan_to(Target::Time(Micros(200))).unwrap_err();
    assert!(World::default().plan_to(Target::Latest).unwrap_err().reason.contains("no log"));
}

#[test]
fn positions() {
    let Simple { mut world, commits, last } = simple();
    let position = |at: u64| Target::Position(LogOffset(at));
    let (first, at) = (commits[0], commits[0].start.0);
    let before = world.records(0).iter().map(|it| it.span).rfind(|it| it.start.0 < at).unwrap();
    for (target, is_exclusive, wanted) in [
        (at, false, first),
        (at + 1, false, first),
        (at + 39, false, first),
        (at, true, before),
        (at + 1, true, first),
        (at - 1, false, before),
        // The end of the log, where no record begins.
        (last.end.0, false, last),
        (last.end.0, true, last),
    ] {
        let plan =
            world.plan(&RestoreRequest { exclusive: is_exclusive, ..request(position(target)) }).unwrap();
        assert_eq!(plan.stop, stop(wanted, true), "{target} {is_exclusive}");
        assert_eq!(plan.reached.position, wanted.end);
    }
    let refused = world.plan_to(position(world.end(0) + 8)).unwrap_err();
    assert!(refused.reason.contains("ends at"), "{}", refused.reason);
    assert_eq!(refused.nearest_before.unwrap().position, last.end);
    let refused = world.plan_to(position(SEGMENT + 50)).unwrap_err();
    assert!(refused.reason.contains("earliest usable backup"), "{}", refused.reason);
    assert_eq!(refused.nearest_after.unwrap().position, world.backups[0].stop);
    world.plan_to(position(3)).unwrap_err();
}

#[test]
fn a_record_that_crosses_pieces_belongs_to_where_it_ends_but_begins_before() {
    let mut world = World::default();
    let main = world.branch(1, None);
    let start = world.filler(main, 40);
    world.backup(main, "b", start, 1, 2);
    let long = world.filler(main, 3 * SEGMENT);
    let after = world.commit(main, 5, 10);
    world.store(main, None);
    for at in [long.start.0, long.start.0 + SEGMENT, long.end.0 - 1] {
        assert_eq!(world.plan_to(Target::Position(LogOffset(at))).unwrap().stop, stop(long, true), "{at}");
    }
    assert_eq!(world.plan_to(Target::Position(after.start)).unwrap().stop, stop(after, true));
    // Cut within the long record: everything before it is still there, at the end of the log.
    world.branches[0].stored.clear();
    world.store(main, Some(long.start.0 + SEGMENT));
    let plan = world.plan_to(Target::Position(LogOffset(long.start.0 + SEGMENT))).unwrap();
    assert_eq!(plan.stop.record, world.records(0)[1].span.start);
}

#[test]
fn transactions_by_id() {
    let Simple { mut world, commits, .. } = simple();
    let xid = |xid, before| Target::Xid { xid, before };
    assert_eq!(world.plan_to(xid(12, false)).unwrap().stop, stop(commits[1], true));
    assert_eq!(world.plan_to(xid(12, true)).unwrap().stop, stop(commits[1], false));
    assert_eq!(world.plan(&exclusive(xid(12, false))).unwrap().stop, stop(commits[1], false));
    let refused = world.plan_to(xid(99, false)).unwrap_err();
    assert!(refused.reason.contains("transaction 99"), "{}", refused.reason);
    // Before the backup is consistent.
    assert!(world.plan_to(xid(10, false)).unwrap_err().nearest_after.is_some());
}

#[test]
fn ids_repeat_subtransactions_count_and_rollbacks_are_said() {
    let mut world = World::default();
    let main = world.branch(1, None);
    let start = world.filler(main, 40);
    world.backup(main, "b", start, 1, 2);
    world.commit(main, 11, 10);
    world.filler(main, 900);
    let again = world.commit(main, 11, 20);
    let with_subs = world.record(main, 60, |record| {
        let mut end = ended(12, 30, record);
        end.subxids = vec![13, 14];
        Some(LogEvent::Commit(end))
    });
    let abort = world.abort(main, 15, 40);
    world.record(main, 60, |record| Some(LogEvent::Prepare { xid: 16, gid: "two".to_owned(), record }));
    world.commit(main, 17, 50);
    world.store(main, None);
    let to = |xid| Target::Xid { xid, before: false };
    assert_eq!(world.plan_to(to(11)).unwrap().stop, stop(again, true));
    assert_eq!(world.plan_to(to(14)).unwrap().stop, stop(with_subs, true));
    let plan = world.plan_to(to(15)).unwrap();
    assert_eq!(plan.stop, stop(abort, true));
    assert!(plan.warnings[0].contains("rolled back"));
    assert!(world.plan_to(to(16)).unwrap_err().reason.contains("\"two\""));
    let plan = world.plan_to(to(17)).unwrap();
    assert!(
        plan.warnings.iter().any(|it| it.contains("\"two\"") && it.contains("16")),
        "{:?}",
        plan.warnings
    );
}

#[test]
fn before_a_drop_of_a_database_is_before_its_files_go() {
    let mut world = World::default();
    let main = world.branch(1, None);
    let start = world.filler(main, 40);
    world.backup(main, "b", start, 1, 2);
    let drop_of = |xid| {
        move |record| Some(LogEvent::DatabaseDrop { xid, database: 5, tablespaces: vec![1663], record })
    };
    world.record(main, 40, drop_of(20));
    world.commit(main, 20, 5);
    world.filler(main, 500);
    let drop = world.record(main, 40, drop_of(20));
    world.filler(main, 400);
    world.record(main, 40, |record| Some(LogEvent::TablespaceDrop { xid: 20, tablespace: 9, record }));
    world.record(main, 40, drop_of(21));
    let commit = world.commit(main, 20, 10);
    world.store(main, None);
    let plan = world.plan_to(Target::Xid { xid: 20, before: true }).unwrap();
    assert_eq!(plan.stop, stop(drop, false));
    assert!(plan.reasons.iter().any(|it| it.contains("files go")), "{:?}", plan.reasons);
    assert_eq!(world.plan_to(Target::Xid { xid: 20, before: false }).unwrap().stop, stop(commit, true));
}

#[test]
fn named_points_and_backups() {
    let mut world = World::default();
    let main = world.branch(1, None);
    let start = world.filler(main, 40);
    let end = world.backup(main, "b1", start, 1, 2);
    world.point(main, "twice", 3);
    let start = world.filler(main, 400);
    let standby_end = world.filler(main, 33);
    let at = span(start.start.0, world.end(main));
    world.note_backup(main, "standby", at, (4, 5), true);
    let twice = world.point(main, "twice", 6);
    world.commit(main, 11, 10);
    world.store(main, None);
    let plan = world.plan_to(Target::Name("twice".to_owned())).unwrap();
    assert_eq!((plan.stop, plan.backup.as_str()), (stop(twice, true), "standby"));
    assert!(plan.warnings[0].contains("same name"));
    let plan = world.plan(&exclusive(Target::Name("twice".to_owned()))).unwrap();
    assert_eq!(plan.stop, stop(twice, false));
    assert!(world.plan_to(Target::Name("never".to_owned())).unwrap_err().reason.contains("\"never\""));

    for (label, wanted) in [("b1", end), ("standby", standby_end)] {
        let plan = world.plan_to(Target::Backup(label.to_owned())).unwrap();
        assert_eq!((plan.stop, plan.backup.as_str()), (stop(wanted, true), label));
    }
    // If that one proves damaged, the one before it and more log lead to the same state.
    let skip = vec!["standby".to_owned()];
    let wanted = RestoreRequest { skip, ..request(Target::Backup("standby".to_owned())) };
    let plan = world.plan(&wanted).unwrap();
    assert_eq!((plan.stop, plan.backup.as_str()), (stop(standby_end, true), "b1"));
    assert!(world.plan_to(Target::Backup("b9".to_owned())).unwrap_err().reason.contains("b9"));
}

#[test]
fn extensions_are_named_if_the_log_to_be_replayed_may_need_them() {
    // All of it fits into one segment.
    let mut world = World::default();
    let main = world.branch(1, None);
    let extension = |manager: u32| move |record| Some(LogEvent::Extension { manager, record });
    world.record(main, 16, extension(200));
    world.record(main, 16, extension(201));
    let start = world.filler(main, 16);
    world.backup(main, "b", start, 100, 110);
    world.commit(main, 11, 200);
    let needed = world.record(main, 16, extension(128));
    world.commit(main, 12, 300);
    world.record(main, 16, extension(200));
    world.commit(main, 13, 400);
    world.store(main, None);
    let mut needs = |xid: u64| {
        let plan = world.plan_to(Target::Xid { xid, before: false }).unwrap();
        plan.extensions.into_iter().map(|(manager, at)| (manager, at == needed.start)).collect::<Vec<_>>()
    };
    // Of 200 only the first and the last record are known, and they lie around what is replayed: one within is assumed.
    assert_eq!(needs(11), [(200, false)]);
    assert_eq!(needs(12), [(200, false), (128, true)]);
    assert_eq!(needs(13), [(200, false), (128, true)]);
}
