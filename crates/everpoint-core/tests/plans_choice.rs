//! Tables of plans: which backup, which pieces, what is refused and what is said.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use everpoint_core::{
    CreatedTablespace, LogEvent, Micros, RecordSpan, RestorePlan, RestoreRequest, Stop, Target, windows,
};
use world::{Harm, SEGMENT, World, aligned, ended, request};

fn stop(record: RecordSpan, inclusive: bool) -> Stop {
    Stop { record: record.start, inclusive }
}

/// One branch: a backup between 100 and 110, then transactions 11 to 13 at 200, 300 and 400.
struct Simple {
    world: World,
    commits: [RecordSpan; 3],
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
    world.filler(main, 30);
    world.store(main, None);
    Simple { world, commits }
}

#[test]
fn the_newest_backup_that_is_consistent_is_taken() {
    let Simple { mut world, .. } = simple();
    world.branches[0].stored.clear();
    let start = world.filler(0, 40);
    world.commit(0, 14, 500);
    world.backup(0, "b2", start, 480, 510);
    let late = world.commit(0, 15, 600);
    world.store(0, None);
    let plan = world.plan_to(Target::Latest).unwrap();
    assert_eq!((plan.backup.as_str(), plan.stop), ("b2", stop(late, true)));
    assert_eq!(plan.pieces.first().unwrap().span.from.0, start.start.0 / SEGMENT * SEGMENT);
    assert_eq!(plan.log_bytes, late.end.0 - start.start.0);
    let wanted = RestoreRequest { skip: vec!["b2".to_owned()], ..request(Target::Latest) };
    let older: RestorePlan = world.plan(&wanted).unwrap();
    assert_eq!((older.backup.as_str(), older.stop), ("b1", plan.stop));
    // 14 lies between b2's start and stop.
    assert_eq!(world.plan_to(Target::Xid { xid: 14, before: false }).unwrap().backup, "b1");
}

#[test]
fn a_backup_without_damaged_pages_is_preferred() {
    let Simple { mut world, .. } = simple();
    world.branches[0].stored.clear();
    let start = world.filler(0, 40);
    world.backup(0, "b2", start, 480, 510);
    let start = world.filler(0, 40);
    let end = world.backup(0, "b3", start, 520, 530);
    world.store(0, None);
    world.backups[1].damaged_pages = 3;
    world.backups[2].damaged_pages = 3;
    let plan = world.plan_to(Target::Backup("b3".to_owned())).unwrap();
    assert_eq!((plan.backup.as_str(), plan.stop), ("b1", stop(end, true)));
    assert!(plan.reasons.iter().any(|it| it.contains("b3 holds 3 pages")), "{:?}", plan.reasons);
    // Where none leads there without damage, the newest that has some.
    let first = world.branches[0].stored[0].span.from.0;
    world.lose(0, first);
    let plan = world.plan_to(Target::Latest).unwrap();
    assert_eq!(plan.backup, "b3");
    assert!(plan.warnings.iter().any(|it| it.contains("b3 holds 3 pages")), "{:?}", plan.warnings);
}

#[test]
fn nothing_is_offered_across_a_hole_or_a_break() {
    for harm in [None, Some(Harm::Swapped), Some(Harm::Broken(0))] {
        let Simple { mut world, commits, .. } = simple();
        let place = commits[1].start.0 / SEGMENT * SEGMENT;
        match harm {
            None => world.lose(0, place),
            Some(Harm::Broken(_)) => world.piece_at(0, place).harm = Harm::Broken(place),
            Some(harm) => world.piece_at(0, place).harm = harm,
        }
        world.plan_to(Target::Time(Micros(150))).unwrap();
        for target in [
            Target::Time(Micros(350)),
            Target::Xid { xid: 13, before: false },
            Target::Latest,
            Target::Position(commits[2].start),
        ] {
            let refused = world.plan_to(target.clone()).unwrap_err();
            let before = refused.nearest_before.unwrap_or_else(|| panic!("{target:?}: {refused:?}"));
            assert!(before.position.0 <= place, "{target:?} {refused:?}");
            let again = world.plan_to(Target::Position(before.position)).unwrap();
            assert_eq!(again.reached.position, before.position);
            world.plan_to(Target::Time(before.time.unwrap())).unwrap();
        }
    }
}

#[test]
fn what_a_restore_must_prepare_for_is_told() {
    let mut world = World::default();
    let main = world.branch(1, None);
    let space = |tablespace, path: &str| {
        let path = path.to_owned();
        move |record| Some(LogEvent::TablespaceCreate { xid: 3, tablespace, path, record })
    };
    let limits = |limits| move |record| Some(LogEvent::Parameters { minimal: false, limits, record });
    world.record(main, 40, space(1, "/before"));
    let start = world.filler(main, 40);
    world.record(main, 40, limits([100, 8, 10, 0, 64]));
    world.backup(main, "b", start, 1, 2);
    world.record(main, 40, limits([50, 20, 10, 0, 64]));
    world.record(main, 40, space(2, "/data/two"));
    world.commit(main, 3, 9);
    world.record(main, 40, |record| {
        let path = "/data/unfinished".to_owned();
        Some(LogEvent::TablespaceCreate { xid: 5, tablespace: 4, path, record })
    });
    world.commit(main, 4, 10);
    world.commit(main, 5, 11);
    world.record(main, 40, space(3, "/after"));
    world.record(main, 40, limits([900, 8, 10, 0, 64]));
    world.store(main, None);
    let plan = world.plan_to(Target::Xid { xid: 4, before: false }).unwrap();
    let space = |oid, path: &str, finished| CreatedTablespace { oid, path: path.to_owned(), finished };
    let created = [space(2, "/data/two", true), space(4, "/data/unfinished", false)];
    assert_eq!(plan.created_tablespaces, created, "the second does not exist yet");
    let value = |name: &str| plan.limits.iter().find(|it| it.0 == name).map(|it| it.1.as_str());
    assert_eq!(value("max_connections"), Some("100"));
    assert_eq!(value("max_worker_processes"), Some("20"));
    assert_eq!(value("max_locks_per_transaction"), Some("64"));
}

#[test]
fn only_the_pieces_that_matter_are_read() {
    let mut world = World::default();
    let main = world.branch(1, None);
    let start = world.filler(main, 40);
    world.backup(main, "b", start, 1, 2);
    for xid in 10..200_u64 {
        world.filler(main, 200);
        world.commit(main, xid, i64::try_from(xid).unwrap());
    }
    world.store(main, None);
    assert!(world.branches[0].stored.len() > 150);
    for target in [Target::Time(Micros(100)), Target::Xid { xid: 100, before: true }, Target::Latest] {
        world.digests_read = 0;
        world.plan_to(target.clone()).unwrap();
        assert!(world.digests_read <= 6, "{target:?} read {}", world.digests_read);
    }
}

#[test]
fn a_commit_that_crosses_into_a_piece_read_alone_is_found() {
    let mut world = World::default();
    let main = world.branch(1, None);
    let start = world.filler(main, 40);
    world.backup(main, "b", start, 1, 2);
    world.commit(main, 10, 5);
    let room = 2 * SEGMENT - world.end(main) - 16;
    world.filler(main, room);
    let crossing = world.commit(main, 11, 20);
    world.filler(main, 400);
    world.commit(main, 12, 30);
    world.store(main, None);
    world.piece_at(main, 2 * SEGMENT).harm = Harm::HeadUnknown;
    assert_eq!(world.plan_to(Target::Time(Micros(15))).unwrap().stop, stop(crossing, false));
    assert_eq!(world.plan_to(Target::Xid { xid: 11, before: false }).unwrap().stop, stop(crossing, true));
}

#[test]
fn a_clock_put_back_is_told_and_never_guessed_about() {
    let mut world = World::default();
    let main = world.branch(1, None);
    let start = world.filler(main, 40);
    world.backup(main, "b1", start, 1, 2);
    world.filler(main, 300);
    world.commit(main, 10, 900);
    world.filler(main, 300);
    let start = world.filler(main, 40);
    world.commit(main, 12, 950);
    world.backup(main, "b2", start, 100, 110);
    let next = world.commit(main, 11, 200);
    world.store(main, None);
    let to = || request(Target::Time(Micros(150)));
    let plan = world.plan(&to()).unwrap();
    assert_eq!((plan.backup.as_str(), plan.stop), ("b2", stop(next, false)));
    // Of the transactions in the backup two are from the future.
    assert_eq!(plan.reached.xid, Some(12));
    assert!(plan.warnings[0].contains("clock was put back"), "{:?}", plan.warnings);
    // Without the log of b2 nothing tells what was there at 150.
    world.lose(main, start.start.0);
    let refused = world.plan(&to()).unwrap_err();
    assert!(refused.reason.contains("b2"), "{}", refused.reason);
    // From 110 on b2 is the newest, so that the window ends before it, though the log before the hole goes on to 900.
    let found = windows(&world.facts(), &world.backups);
    assert_eq!((found[0].from, found[0].to), (Micros(2), Micros(109)));
    assert_eq!(refused.nearest_before.unwrap().time, Some(Micros(109)));
    world.plan_to(Target::Time(Micros(109))).unwrap();
}

/// The clock of the primary that was lost went ahead of the standby's, and the log around the fork is missing.
#[test]
fn what_is_offered_is_reached_even_if_the_promoted_standby_lived_in_the_past() {
    for ended in [30, 1] {
        let mut world = World::default();
        let main = world.branch(1, None);
        let start = world.filler(main, 40);
        world.backup(main, "b1", start, 1, 2);
        world.commit(main, 10, 40);
        let lost = world.filler(main, 2 * SEGMENT);
        let child = world.branch(2, Some((main, aligned(world.end(main)))));
        let start = world.filler(child, 40);
        world.backup(child, "b2", start, ended - 1, ended);
        world.filler(child, 40);
        [main, child].into_iter().for_each(|branch| world.store(branch, None));
        world.branches[main].covered = Some((lost.start, Micros(50)));
        world.lose(main, lost.start.0 + SEGMENT);
        let refused = world.plan_to(Target::Time(Micros(60))).unwrap_err();
        let near = refused.nearest_before.unwrap();
        let reached = world.plan_to(near.time.map_or(Target::Position(near.position), Target::Time)).unwrap();
        assert_eq!(reached.backup, if near.position.0 > lost.end.0 { "b2" } else { "b1" }, "{near:?}");
        // Before 1 no backup had ended: of the log before the hole only positions are left.
        let refused = world.plan_to(Target::Position(lost.end)).unwrap_err();
        let near = refused.nearest_before.unwrap();
        assert_eq!(near.time, (ended == 30).then_some(Micros(29)));
        assert_eq!(world.plan_to(Target::Position(near.position)).unwrap().backup, "b1");
    }
}

#[test]
fn latest_is_refused_where_the_newest_log_is_broken() {
    let Simple { mut world, commits, .. } = simple();
    world.plan_to(Target::Latest).unwrap();
    world.piece_at(0, commits[2].start.0).harm = Harm::Broken(commits[2].start.0);
    let refused = world.plan_to(Target::Latest).unwrap_err();
    assert!(refused.reason.contains("broken record"), "{}", refused.reason);
    let before = refused.nearest_before.unwrap();
    assert!(before.position <= commits[2].start && before.xid == Some(12));
}

#[test]
fn a_prepared_transaction_that_ended_is_not_warned_of() {
    let mut world = World::default();
    let main = world.branch(1, None);
    let start = world.filler(main, 40);
    world.backup(main, "b", start, 1, 2);
    let prepare = |xid, gid: &str| {
        let gid = gid.to_owned();
        move |record| Some(LogEvent::Prepare { xid, gid, record })
    };
    world.record(main, 60, prepare(11, "ended"));
    world.record(main, 60, prepare(12, "open"));
    world.record(main, 40, |record| {
        let mut end = ended(11, 10, record);
        end.prepared = true;
        Some(LogEvent::Commit(end))
    });
    world.commit(main, 13, 20);
    world.record(main, 60, prepare(14, "later"));
    world.store(main, None);
    let plan = world.plan_to(Target::Xid { xid: 13, before: false }).unwrap();
    assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
    assert!(plan.warnings[0].contains("\"open\""));
}
