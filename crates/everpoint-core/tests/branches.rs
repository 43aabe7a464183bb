//! Tables of paths, breaks, windows and gaps.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use everpoint_core::{
    BranchChoice, BranchFacts, BranchId, BreakReason, KnownGap, LogEvent, LogOffset, Micros, PieceFacts,
    RestoreRequest, SeenBy, Sighting, Stop, Target, Verdict, continuity, gaps, path, windows,
};
use world::{SEGMENT, World, request, span};

/// Timeline 1 with a backup; timeline 2 leaves it within a segment; 1 goes on.
fn forked() -> (World, u64) {
    let mut world = World::default();
    let one = world.branch(1, None);
    let start = world.filler(one, 40);
    world.backup(one, "b1", start, 1, 2);
    for xid in 0..4 {
        world.filler(one, 190);
        world.commit(one, 10 + xid, 100 + 10 * i64::try_from(xid).unwrap());
    }
    let fork = world.end(one);
    assert_ne!(fork % SEGMENT, 0);
    let start = world.filler(one, 50);
    world.backup(one, "abandoned", start, 140, 145);
    for xid in 0..4 {
        world.commit(one, 20 + xid, 150 + 10 * i64::try_from(xid).unwrap());
        world.filler(one, 190);
    }
    let two = world.branch(2, Some((one, fork)));
    for xid in 0..4 {
        world.commit(two, 30 + xid, 300 + 10 * i64::try_from(xid).unwrap());
        world.filler(two, 190);
    }
    world.sightings = vec![world.seen(two)];
    (world, fork)
}

fn on(timeline: u32, target: Target) -> RestoreRequest {
    RestoreRequest { timeline: Some(BranchChoice::Timeline(timeline)), ..request(target) }
}

#[test]
fn the_segment_of_the_fork_is_taken_from_the_child_if_it_has_it() {
    let (mut world, fork) = forked();
    world.store(0, None);
    world.store(1, None);
    let segment = fork / SEGMENT * SEGMENT;
    let facts = world.facts();
    let steps = path(&facts, &facts.branches[1]);
    assert_eq!(steps.iter().map(|it| it.span.to.0).collect::<Vec<_>>(), [segment, u64::MAX]);
    assert_eq!(steps[0].fork.0, fork);
    let found = continuity(&steps);
    assert_eq!((found.runs.len(), found.breaks.len()), (1, 0), "{found:?}");

    world.branches[1].stored.remove(0);
    let facts = world.facts();
    let steps = path(&facts, &facts.branches[1]);
    assert_eq!(steps[0].span.to.0, fork);
    let found = continuity(&steps);
    assert_eq!(found.breaks[0].span, span(fork, segment + SEGMENT));
    assert_eq!(found.breaks[0].branch, facts.branches[1].id);
    assert_eq!(gaps(&facts), found.breaks);
    // The state at the fork is there, what the parent did after it is not on this path.
    let plan = world.plan(&on(2, Target::Position(LogOffset(fork)))).unwrap();
    let last = world.records(1).iter().map(|it| it.span).rfind(|it| it.start.0 < fork).unwrap();
    assert_eq!(plan.stop, Stop { record: last.start, inclusive: true });
    world.plan(&on(2, Target::Xid { xid: 30, before: false })).unwrap_err();
    world.plan(&on(2, Target::Xid { xid: 20, before: false })).unwrap_err();
}

#[test]
fn what_the_abandoned_branch_did_is_reached_only_on_it() {
    let (mut world, _) = forked();
    world.store(0, None);
    world.store(1, None);
    assert_eq!(world.plan_to(Target::Latest).unwrap().timeline, 2);
    assert_eq!(world.plan(&on(1, Target::Latest)).unwrap().timeline, 1);
    // A backup of timeline 1 that stopped behind the fork would bring its rows into timeline 2.
    let plan = world.plan_to(Target::Xid { xid: 33, before: false }).unwrap();
    assert_eq!((plan.backup.as_str(), plan.timeline), ("b1", 2));
    assert_eq!(world.plan(&on(1, Target::Latest)).unwrap().backup, "abandoned");
    world.plan_to(Target::Xid { xid: 22, before: false }).unwrap_err();
    assert_eq!(world.plan(&on(1, Target::Xid { xid: 22, before: false })).unwrap().timeline, 1);
    // A backup knows its own branch.
    assert_eq!(world.plan_to(Target::Backup("abandoned".to_owned())).unwrap().timeline, 1);
    let refused = world.plan(&on(3, Target::Latest)).unwrap_err();
    assert!(refused.reason.contains("timeline 3"), "{}", refused.reason);
    // At 165 timeline 1 was alive: on timeline 2 that moment is the fork, and that is said.
    let plan = world.plan_to(Target::Time(Micros(165))).unwrap();
    assert_eq!(plan.reached.xid, Some(13));
    assert!(plan.warnings.iter().any(|it| it.contains("timeline 1")), "{:?}", plan.warnings);
    assert_eq!(world.plan(&on(1, Target::Time(Micros(165)))).unwrap().reached.xid, Some(21));
    assert_eq!(world.plan_to(Target::Time(Micros(115))).unwrap().warnings, Vec::<String>::new());
}

#[test]
fn which_of_two_branches_production_is_on_is_never_guessed() {
    let (mut world, fork) = forked();
    world.sightings.clear();
    let other = world.branch(2, Some((0, fork)));
    world.commit(other, 40, 250);
    for branch in 0..3 {
        world.store(branch, None);
    }
    let names = [world.branches[1].id.clone(), world.branches[other].id.clone()];
    for target in [Target::Latest, Target::Time(Micros(240))] {
        let refused = world.plan_to(target).unwrap_err();
        assert!(names.iter().all(|name| refused.reason.contains(name.as_str())), "{}", refused.reason);
    }
    world.plan(&on(2, Target::Latest)).unwrap_err();
    // Before the fork they agree, and what only one of them holds is meant.
    assert_eq!(world.plan_to(Target::Time(Micros(115))).unwrap().timeline, 1);
    let plan = world.plan_to(Target::Xid { xid: 40, before: false }).unwrap();
    assert_eq!(plan.stop_branch, names[1]);
    for (index, name) in [1, other].into_iter().zip(&names) {
        let named =
            RestoreRequest { timeline: Some(BranchChoice::Named(name.clone())), ..request(Target::Latest) };
        assert_eq!(&world.plan(&named).unwrap().branch, name);
        world.sightings = vec![world.seen(0), world.seen(index)];
        assert_eq!(&world.plan_to(Target::Latest).unwrap().branch, name);
        assert_eq!(&world.plan(&on(2, Target::Latest)).unwrap().branch, name);
        world.sightings.clear();
    }
    // Back to before the fork: production is on the older number, whatever the copies did since.
    world.sightings = vec![world.seen(1), world.seen(0)];
    assert_eq!(world.plan_to(Target::Latest).unwrap().timeline, 1);
    // One that can't be read may have said anything, until the next.
    let unreadable = Sighting { by: SeenBy::Unreadable, identity: 0, ..world.seen(0) };
    world.sightings.push(unreadable);
    world.plan_to(Target::Latest).unwrap_err();
    world.sightings.push(world.seen(1));
    assert_eq!(world.plan_to(Target::Latest).unwrap().timeline, 2);
    // What it was last seen on is not stored.
    world.sightings.push(Sighting { branch: BranchId::new(5, [9; 8]), ..world.seen(0) });
    let refused = world.plan_to(Target::Latest).unwrap_err();
    assert!(
        refused.reason.contains("timeline 5") && refused.reason.contains("there is"),
        "{}",
        refused.reason
    );
}

#[test]
fn recovery_is_pinned_to_the_timeline_of_the_stop() {
    let (mut world, fork) = forked();
    world.store(0, None);
    world.store(1, None);
    let plan = world.plan(&on(2, Target::Position(LogOffset(fork - 8)))).unwrap();
    assert_eq!((plan.timeline, plan.stop_branch.timeline(), plan.branch.timeline()), (1, 1, 2));
    let plan = world.plan(&on(2, Target::Position(LogOffset(fork)))).unwrap();
    assert_eq!(plan.timeline, 2, "the first record behind the fork");
    assert_eq!(world.plan(&on(2, Target::Latest)).unwrap().timeline, 2);
}

#[test]
fn nothing_stored_of_the_newest_branch_is_no_latest() {
    let (mut world, fork) = forked();
    world.store(0, None);
    let refused = world.plan_to(Target::Latest).unwrap_err();
    assert!(refused.reason.contains("nothing is stored of timeline 2"), "{}", refused.reason);
    assert_eq!(refused.nearest_before.unwrap().position.0, fork);
    // That the old primary stood still says nothing of what the new one did.
    world.branches[0].covered = Some((LogOffset(fork), Micros(9999)));
    world.plan_to(Target::Time(Micros(200))).unwrap_err();
}

#[test]
fn a_fork_at_the_start_of_a_segment_and_two_within_one() {
    let mut world = World::default();
    let one = world.branch(1, None);
    let start = world.filler(one, 40);
    world.backup(one, "b", start, 1, 2);
    world.filler(one, 2 * SEGMENT - world.end(one));
    let fork = world.end(one);
    assert_eq!(fork, 2 * SEGMENT);
    world.commit(one, 9, 50);
    let two = world.branch(2, Some((one, fork)));
    world.commit(two, 10, 100);
    let second = world.end(two);
    let three = world.branch(3, Some((two, second)));
    let last = world.commit(three, 11, 200);
    world.sightings = vec![world.seen(three)];
    world.store(one, None);
    // Nothing is stored of timeline 2 itself: the segment of timeline 3 holds it.
    world.store(three, None);
    let plan = world.plan_to(Target::Latest).unwrap();
    assert_eq!(plan.stop, Stop { record: last.start, inclusive: true });
    let branches: Vec<u32> = plan.pieces.iter().map(|it| it.branch.timeline()).collect();
    assert_eq!(branches, [1, 3]);
    let plan = world.plan_to(Target::Xid { xid: 10, before: false }).unwrap();
    assert_eq!((plan.timeline, plan.branch.timeline()), (2, 3));
    world.plan_to(Target::Xid { xid: 9, before: false }).unwrap_err();
}

/// Facts of one branch with five segments, changed by `change`; the breaks that are found.
fn breaks(change: impl FnOnce(&mut BranchFacts)) -> Vec<(u64, u64, BreakReason)> {
    let mut world = World::default();
    let main = world.branch(1, None);
    for _ in 0..16 {
        world.filler(main, 80);
    }
    world.store(main, None);
    let mut facts = world.facts();
    assert!(facts.branches[0].pieces.len() >= 5);
    change(&mut facts.branches[0]);
    let found = continuity(&path(&facts, &facts.branches[0]));
    assert_eq!(found.breaks, gaps(&facts));
    assert_eq!(found.runs.iter().filter(|it| it.ended_by.is_some()).count(), found.breaks.len());
    found.breaks.into_iter().map(|gap| (gap.span.from.0, gap.span.to.0, gap.reason)).collect()
}

#[test]
fn breaks_are_named() {
    let at = |number: u64| (number + 1) * SEGMENT;
    assert_eq!(breaks(|_| {}), []);
    let hole = breaks(|it| drop(it.pieces.remove(2)));
    assert_eq!(hole, [(at(2), at(3), BreakReason::Hole(None))]);
    let known = KnownGap { span: span(at(2), at(3)), reason: "the slot was lost".to_owned() };
    let hole = breaks(|it| {
        it.pieces.remove(2);
        it.gaps.push(known.clone());
    });
    assert_eq!(hole[0].2.to_string(), "hole: the slot was lost");
    // A known gap that was filled later is none.
    assert_eq!(breaks(|it| it.gaps.push(known.clone())), []);
    let later = KnownGap { span: span(at(9), at(10)), ..known };
    assert_eq!(breaks(|it| it.gaps.push(later))[0].0, at(9));

    let foreign: [fn(&mut PieceFacts); 6] = [
        |it| it.previous_hash = Some([9; 32]),
        |it| it.system = 8,
        |it| it.timeline = 2,
        |it| it.first_previous = Some(LogOffset(3)),
        |it| it.first_previous = it.first_record,
        |it| it.timeline = 9,
    ];
    for (number, change) in foreign.into_iter().enumerate() {
        let found = breaks(|it| change(&mut it.pieces[3]));
        assert!(matches!(found[0].2, BreakReason::Foreign(_)), "{number}: {found:?}");
        assert_eq!(found[0].0, at(3), "{number}");
    }
    let found = breaks(|it| it.pieces[1].content_hash = [1; 32]);
    assert_eq!((found.len(), found[0].0), (1, at(2)));

    let found = breaks(|it| it.pieces[3].first_previous = Some(LogOffset(0)));
    assert_eq!(found, [(at(3), at(3), BreakReason::Reset)]);
    assert_eq!(breaks(|it| it.pieces[0].first_previous = Some(LogOffset(0))), []);
    let found = breaks(|it| {
        it.pieces[3].verdict = Verdict::Broken { at: LogOffset(at(3) + 8), reason: "checksum".to_owned() };
    });
    assert_eq!(found, [(at(3) + 8, at(4), BreakReason::Broken("checksum".to_owned()))]);
    let found = breaks(|it| it.pieces[3].minimal = Some(span(at(3) + 80, at(3) + 160)));
    assert_eq!(found, [(at(3) + 80, at(3) + 160, BreakReason::Minimal)]);
    let found = breaks(|it| it.pieces[3].span.from = LogOffset(at(3) - 8));
    assert_eq!(found[0].2, BreakReason::Overlap);
    // The same bytes twice (a tail that a segment replaces) are no break.
    assert_eq!(breaks(|it| it.pieces.insert(4, it.pieces[3].clone())), []);
}

#[test]
fn windows_begin_at_the_earliest_backup_and_end_where_the_log_is_known() {
    let (mut world, fork) = forked();
    world.store(0, None);
    world.store(1, None);
    let found = windows(&world.facts(), &world.backups);
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].timeline, found[0].from, found[0].to), (1, Micros(2), Micros(180)));
    assert_eq!(found[0].backups, ["b1", "abandoned"]);
    assert_eq!((found[1].timeline, found[1].from, found[1].to), (2, Micros(2), Micros(330)));
    assert_eq!((found[1].backup.as_str(), found[1].backups.len()), ("b1", 1));
    assert_eq!(found[1].to_position, world.records(1).last().unwrap().span.end);

    // A hole behind the fork splits timeline 2; what follows it has no backup.
    world.lose(1, fork + 2 * SEGMENT);
    let found = windows(&world.facts(), &world.backups);
    assert_eq!(found.len(), 2);
    assert!(found[1].to < Micros(330) && found[1].to_position.0 <= fork + 2 * SEGMENT);
    assert_eq!(gaps(&world.facts()).len(), 1);
}

#[test]
fn minimal_ends_the_window_until_the_next_backup() {
    let mut world = World::default();
    let main = world.branch(1, None);
    let level = |minimal| move |record| Some(LogEvent::Parameters { minimal, limits: [1; 5], record });
    let start = world.filler(main, 40);
    world.backup(main, "b1", start, 1, 2);
    world.commit(main, 10, 10);
    let before = world.filler(main, 24);
    let minimal = world.record(main, 40, level(true));
    world.commit(main, 11, 20);
    world.record(main, 40, level(false));
    let start = world.filler(main, 40);
    world.backup(main, "b2", start, 30, 31);
    world.commit(main, 12, 40);
    world.store(main, None);
    let found = windows(&world.facts(), &world.backups);
    assert_eq!(found.iter().map(|it| it.backup.as_str()).collect::<Vec<_>>(), ["b1", "b2"]);
    assert_eq!((found[0].to_position, found[1].to), (minimal.start, Micros(40)));
    let plan = world.plan_to(Target::Position(minimal.start)).unwrap();
    assert_eq!(plan.stop, Stop { record: before.start, inclusive: true });
    let refused = world.plan_to(Target::Xid { xid: 11, before: false }).unwrap_err();
    assert!(refused.reason.contains("wal_level minimal"), "{}", refused.reason);
    assert_eq!(world.plan_to(Target::Xid { xid: 12, before: false }).unwrap().backup, "b2");
}

#[test]
fn a_moment_before_an_upgrade_is_found_in_the_older_identity() {
    let (mut world, _) = forked();
    world.store(0, None);
    let mut facts = world.facts();
    facts.branches.truncate(1);
    facts.sightings.clear();
    let mut newer = facts.branches[0].clone();
    newer.identity = 2;
    newer.pieces.clear();
    facts.branches.push(newer);
    let backups = world.backups.clone();
    let mut plan =
        |target| everpoint_core::plan_restore(&facts, &backups, &request(target), &mut world).unwrap();
    assert_eq!(plan(Target::Time(Micros(115))).unwrap().identity, 1);
    plan(Target::Latest).unwrap_err();
}

#[test]
fn facts_stay_small() {
    assert!(size_of::<PieceFacts>() <= 320, "{}", size_of::<PieceFacts>());
}

#[test]
fn a_piece_that_goes_on_behind_the_fork_counts_only_before_it() {
    let mut world = World::default();
    let one = world.branch(1, None);
    let start = world.filler(one, 40);
    world.backup(one, "b", start, 1, 2);
    let point = world.point(one, "p", 10);
    let fork = world.end(one);
    world.point(one, "p", 20);
    world.commit(one, 10, 30);
    let two = world.branch(2, Some((one, fork)));
    world.filler(two, 3 * SEGMENT);
    world.store(one, None);
    world.store(two, None);
    world.branches[two].stored.remove(0);
    let named = || Target::Name("p".to_owned());
    assert_eq!(world.plan(&on(2, named())).unwrap().stop, Stop { record: point.start, inclusive: true });
    assert_ne!(world.plan(&on(1, named())).unwrap().stop.record, point.start);
    assert_eq!(world.plan(&on(2, named())).unwrap().warnings, Vec::<String>::new());
}
