//! What a transaction destroys before its end is there when one restores to just before it.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use everpoint_core::{LogEvent, Micros, RecordSpan, RestoreRequest, Stop, Target};
use world::World;

const DATABASE: u32 = 16_400;

fn drop_of(world: &mut World, xid: u64, database: u32, tablespaces: &[u32]) -> RecordSpan {
    let tablespaces = tablespaces.to_vec();
    world.record(0, 40, |record| Some(LogEvent::DatabaseDrop { xid, database, tablespaces, record }))
}

fn started() -> World {
    let mut world = World::default();
    let main = world.branch(1, None);
    let start = world.filler(main, 40);
    world.backup(main, "b", start, 1, 2);
    world.commit(main, 10, 100);
    world
}

fn stop_of(world: &mut World, target: Target) -> Stop {
    let request = RestoreRequest { target, exclusive: false, timeline: None, skip: Vec::new() };
    world.plan(&request).unwrap().stop
}

fn before(record: RecordSpan) -> Stop {
    Stop { record: record.start, inclusive: false }
}

#[test]
fn a_dropped_database_comes_back_from_before_the_mark_that_locks_it() {
    // A mark that tells the database, and one that does not.
    for told in [DATABASE, 0] {
        let mut world = started();
        // Of a database that had the same number, and of another one.
        drop_of(&mut world, 0, DATABASE, &[]);
        drop_of(&mut world, 10, DATABASE, &[1663]);
        world.filler(0, 300);
        let mark = drop_of(&mut world, 0, told, &[]);
        drop_of(&mut world, 0, 5, &[]);
        world.filler(0, 600);
        drop_of(&mut world, 11, DATABASE, &[1663]);
        drop_of(&mut world, 11, DATABASE, &[16_390]);
        world.commit(0, 11, 200);
        world.store(0, None);
        assert_eq!(stop_of(&mut world, Target::Xid { xid: 11, before: true }), before(mark));
        assert_eq!(stop_of(&mut world, Target::Time(Micros(199))), before(mark));
    }
}

#[test]
fn without_a_mark_it_is_the_first_removal_of_files() {
    let mut world = started();
    drop_of(&mut world, 0, DATABASE, &[]);
    drop_of(&mut world, 9, DATABASE, &[1663]);
    let first = drop_of(&mut world, 11, DATABASE, &[1663]);
    drop_of(&mut world, 11, DATABASE, &[16_390]);
    let end = world.commit(0, 11, 200);
    world.commit(0, 12, 300);
    world.store(0, None);
    assert_eq!(stop_of(&mut world, Target::Xid { xid: 11, before: true }), before(first));
    assert_eq!(stop_of(&mut world, Target::Time(Micros(150))), before(first));
    // The moment of the drop itself is behind it.
    assert_ne!(stop_of(&mut world, Target::Time(Micros(200))), before(end));
}

#[test]
fn a_moment_keeps_what_others_committed_while_a_database_was_dropped() {
    let mut world = started();
    drop_of(&mut world, 0, DATABASE, &[]);
    world.commit(0, 12, 150);
    drop_of(&mut world, 11, DATABASE, &[1663]);
    let end = world.commit(0, 11, 200);
    world.store(0, None);
    let request = RestoreRequest {
        target: Target::Time(Micros(180)),
        exclusive: false,
        timeline: None,
        skip: Vec::new(),
    };
    let plan = world.plan(&request).unwrap();
    assert_eq!(plan.stop, before(end));
    assert!(plan.warnings.iter().any(|it| it.contains("before-xid:11")), "{:?}", plan.warnings);
}
