//! Plans against a naive model of what a server replays, over histories made at random.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod naive;
mod world;

use everpoint_core::{
    BackupFacts, BranchChoice, LogEvent, LogOffset, Micros, Present, RecordSpan, RestoreRequest, Target,
    present, windows,
};
use naive::Naive;
use proptest::prelude::*;
use world::{Harm, Record, SEGMENT, Stored, World, aligned, request, span};

/// Numbers drawn at random before, so that a failing case can be made smaller.
struct Dice(std::vec::IntoIter<u32>);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        u64::from(self.0.next().unwrap_or_default()) % limit
    }
}

/// Adds records to a branch; the clock goes on, commit times lag behind it a little.
fn live(world: &mut World, branch: usize, dice: &mut Dice, clock: &mut i64) {
    let mut begun: Option<(RecordSpan, i64)> = None;
    for _ in 0..dice.below(26) {
        *clock += 1 + i64::try_from(dice.below(8)).unwrap();
        let time = *clock - i64::try_from(dice.below(6)).unwrap();
        match dice.below(12) {
            0..4 => drop(world.commit(branch, 10 + dice.below(20), time)),
            4 => drop(world.abort(branch, 10 + dice.below(20), time)),
            5 => begun = Some((world.filler(branch, 50), *clock)),
            6 if let Some((start, began)) = begun.take() => {
                let label = format!("b{}", world.backups.len());
                let ended = *clock + i64::try_from(dice.below(4)).unwrap();
                world.backup(branch, &label, start, began, ended);
            }
            7 if let Some((start, began)) = begun.take() => {
                world.filler(branch, 41);
                let label = format!("b{}", world.backups.len());
                let at = span(start.start.0, world.end(branch));
                world.note_backup(branch, &label, at, (began, *clock), true);
            }
            8 => drop(world.filler(branch, 300 + dice.below(400))),
            9 => drop(world.point(branch, &format!("p{}", dice.below(3)), *clock)),
            _ => drop(world.filler(branch, 24 + dice.below(60))),
        }
    }
}

/// Moments that a record or a backup states are honest: nothing that follows bears an earlier time.
fn be_honest(world: &mut World) {
    let ends = |record: &Record| match &record.event {
        Some(LogEvent::Commit(end) | LogEvent::Abort(end)) => Some((end.record.end.0, end.time.0)),
        _ => None,
    };
    let all: Vec<(u64, i64)> =
        world.branches.iter().flat_map(|it| it.records.iter().filter_map(ends)).collect();
    let earliest_after = |at: u64| {
        let later = all.iter().filter(|(end, _)| *end > at).map(|(_, time)| *time);
        later.min().unwrap_or(i64::MAX)
    };
    for branch in &mut world.branches {
        for record in &mut branch.records {
            if let Some(LogEvent::RestorePoint { time, record, .. }) = &mut record.event {
                time.0 = time.0.min(earliest_after(record.start.0) - 1);
            }
        }
        if let Some((at, until)) = &mut branch.covered {
            until.0 = until.0.min(earliest_after(at.0) - 1);
        }
    }
    for backup in &mut world.backups {
        backup.started_at.0 = backup.started_at.0.min(earliest_after(backup.stop.0) - 1);
    }
}

fn history(numbers: Vec<u32>) -> World {
    let mut dice = Dice(numbers.into_iter());
    let (mut world, mut clock) = (World::default(), 1000);
    let one = world.branch(1, None);
    live(&mut world, one, &mut dice, &mut clock);
    for timeline in 2..2 + u32::try_from(dice.below(3)).unwrap() {
        let parent = usize::try_from(dice.below(world.branches.len() as u64)).unwrap();
        let own = &world.branches[parent].records;
        if own.is_empty() {
            continue;
        }
        let last = own[usize::try_from(dice.below(own.len() as u64)).unwrap()].span.end.0;
        let branch = world.branch(timeline, Some((parent, aligned(last))));
        // The standby's clock may be behind that of the lost primary.
        clock -= i64::try_from(dice.below(3) * dice.below(40)).unwrap();
        live(&mut world, branch, &mut dice, &mut clock);
        // The old primary may go on for a while.
        if dice.below(3) == 0 {
            live(&mut world, parent, &mut dice, &mut clock);
        }
    }
    for branch in 0..world.branches.len() {
        store(&mut world, branch, &mut dice, clock);
    }
    be_honest(&mut world);
    world
}

fn store(world: &mut World, branch: usize, dice: &mut Dice, clock: i64) {
    let end = world.end(branch);
    let lost = if dice.below(2) == 0 { 0 } else { dice.below(400) };
    world.store(branch, Some(end.saturating_sub(lost) / 8 * 8));
    if dice.below(3) > 0
        && let Some(last) = world.branches[branch].stored.last()
    {
        let at = last.span.to.0.saturating_sub(dice.below(100)) / 8 * 8;
        world.branches[branch].covered = Some((LogOffset(at), Micros(clock + 50)));
    }
    harm(world, branch, dice);
    // Next to a hole, a fork or a tail nothing tells that a segment is another server's.
    let pieces = &mut world.branches[branch].stored;
    for index in 0..pieces.len() {
        let before = index.checked_sub(1).map(|it| pieces[it]);
        let is_sound = |it: &Stored| it.span.to.0 - it.span.from.0 == SEGMENT && it.harm == Harm::None;
        let told = is_sound(&Stored { harm: Harm::None, ..pieces[index] })
            && before.is_some_and(|it| is_sound(&it) && it.span.to == pieces[index].span.from)
            && pieces
                .get(index + 1)
                .is_none_or(|it| it.harm == Harm::None && it.span.from == pieces[index].span.to);
        if pieces[index].harm == Harm::Swapped && !told {
            pieces[index].harm = Harm::None;
        }
    }
}

fn harm(world: &mut World, branch: usize, dice: &mut Dice) {
    let count = world.branches[branch].stored.len() as u64;
    for _ in 0..dice.below(3) {
        let index = usize::try_from(dice.below(count.max(1))).unwrap();
        let Some(piece) = world.branches[branch].stored.get_mut(index) else {
            continue;
        };
        let broken = piece.span.from.0 + dice.below(SEGMENT / 8) * 8;
        match dice.below(4) {
            0 => drop(world.branches[branch].stored.remove(index)),
            1 if broken < piece.span.to.0 => piece.harm = Harm::Broken(broken),
            2 => piece.harm = Harm::Swapped,
            _ => piece.harm = Harm::HeadUnknown,
        }
    }
}

fn commits(records: &[&Record]) -> Vec<u64> {
    let commit = |it: &&Record| matches!(it.event, Some(LogEvent::Commit(_)));
    records.iter().copied().filter(commit).map(|it| it.span.start.0).collect()
}

fn on_branch(world: &World, branch: usize, target: Target) -> RestoreRequest {
    RestoreRequest {
        timeline: Some(BranchChoice::Named(world.branches[branch].id.clone())),
        ..request(target)
    }
}

/// A restore to a moment has exactly what a server would have replayed, and is planned whenever that can be known.
fn check_time(world: &mut World, branch: usize, time: i64, exclusive: bool) {
    let wanted = RestoreRequest { exclusive, ..on_branch(world, branch, Target::Time(Micros(time))) };
    let outcome = world.plan(&wanted);
    let world = &*world;
    let naive = Naive::new(world, branch);
    let candidates = naive.backups();
    let newest = candidates.into_iter().filter(|it| it.stopped_at.0 <= time).max_by_key(|it| it.stop);
    let stop = newest.and_then(|backup| naive.stop_for(backup, time, exclusive));
    match outcome {
        Ok(plan) => {
            naive.check(&plan);
            let in_time: Vec<&Record> = match stop {
                Some(stop) => {
                    naive.records.iter().filter(|it| it.span.start < stop.span.start).copied().collect()
                }
                None => naive.records.clone(),
            };
            let told = plan.warnings.iter().any(|it| it.contains("same microsecond"));
            let same = commits(&naive.replayed(&plan)) == commits(&in_time);
            assert!(
                same || told,
                "{plan:?}\nwanted {:?}\n{time} {:?} {:?}",
                in_time.last(),
                world.branches,
                world.backups
            );
        }
        Err(shortfall) => {
            let Some(backup) = newest else { return };
            if let Some(stop) = stop {
                let readable = naive.reads_all(backup.start.0, stop.span.end.0);
                assert!(!readable, "refused without need: {shortfall:?}");
            } else if let Some((at, until)) = world.branches[branch].covered {
                let readable = naive.reads_all(backup.start.0, at.0.max(backup.stop.0));
                let own = naive.reads(at.0.max(backup.stop.0) - 8)
                    && world.branches[branch].parent.is_none_or(|(_, fork)| at.0 > fork);
                assert!(!(readable && own && until.0 >= time), "refused without need: {shortfall:?}");
            }
        }
    }
}

/// A restore to a position replays what begins at or before it.
fn check_position(world: &mut World, branch: usize, at: u64) {
    let outcome = world.plan(&on_branch(world, branch, Target::Position(LogOffset(at))));
    let world = &*world;
    let naive = Naive::new(world, branch);
    let record = naive.records.iter().rfind(|it| it.span.start.0 <= at).copied();
    match outcome {
        Ok(plan) => {
            naive.check(&plan);
            let reached = naive.replayed(&plan);
            let last = reached.last().unwrap().span;
            if record.is_some_and(|it| it.span != last) {
                // Only at the end of what is stored: the next record is not there whole, what ends before is.
                let next = naive.records[reached.len()].span;
                assert!(naive.reads_all(last.end.0, at), "silently short of {at}: {plan:?}");
                // Read on from the last record: a segment of another server shows where it begins.
                assert!(!naive.reads_all(last.start.0, next.end.0), "short of {at}: {plan:?}");
            }
        }
        Err(shortfall) => {
            let Some(record) = record else { return };
            let usable = naive.backups().into_iter().any(|it| {
                it.stop <= record.span.start && naive.reads_all(it.start.0, record.span.end.0.max(at))
            });
            assert!(!usable, "refused without need: {shortfall:?}");
        }
    }
}

fn check_xid(world: &mut World, branch: usize, xid: u64, before: bool) {
    let outcome = world.plan(&on_branch(world, branch, Target::Xid { xid, before }));
    let Ok(plan) = outcome else { return };
    let naive = Naive::new(world, branch);
    naive.check(&plan);
    let end = naive.records.iter().find(|it| it.span.start == plan.stop.record).unwrap();
    let is_end = matches!(&end.event, Some(LogEvent::Commit(it) | LogEvent::Abort(it)) if it.xid == xid);
    assert!(is_end && plan.stop.inclusive != before);
    for later in naive.records.iter().filter(|it| it.span.start > plan.stop.record) {
        let again = matches!(&later.event, Some(LogEvent::Commit(it) | LogEvent::Abort(it)) if it.xid == xid);
        assert!(!again || !naive.reads_all(later.span.start.0, later.span.end.0), "not the last one");
    }
}

/// Each moment of a window can be restored, and so can both of its positions.
fn check_windows(world: &mut World) {
    for window in windows(&world.facts(), &world.backups.clone()) {
        let wanted = |target| RestoreRequest {
            timeline: Some(BranchChoice::Timeline(window.timeline)),
            ..request(target)
        };
        // After a clock was put back a later backup may have ended before this log begins: then only positions lead here.
        let later = |it: &BackupFacts| it.stop > window.to_position && it.stopped_at <= window.from;
        let none = window.from == window.to && world.backups.iter().any(later);
        let times = [window.from.0, (window.from.0 + window.to.0) / 2, window.to.0];
        for time in times.into_iter().filter(|_| !none) {
            world
                .plan(&wanted(Target::Time(Micros(time))))
                .unwrap_or_else(|it| panic!("{window:?} {time} {it:?}"));
        }
        for at in [window.from_position, window.to_position] {
            world.plan(&wanted(Target::Position(at))).unwrap_or_else(|it| panic!("{window:?} {at} {it:?}"));
        }
        world.plan(&wanted(Target::Backup(window.backup.clone()))).unwrap();
    }
}

/// What is offered instead of an unreachable target can be reached.
fn check_offers(world: &mut World, branch: usize, target: Target) {
    let Err(shortfall) = world.plan(&on_branch(world, branch, target)) else {
        return;
    };
    for offer in [shortfall.nearest_before, shortfall.nearest_after].into_iter().flatten() {
        let at = on_branch(world, branch, Target::Position(offer.position));
        world.plan(&at).unwrap_or_else(|it| panic!("{shortfall:?}: {it:?}"));
        // A later backup may have ended first, if a clock was put back: then a position alone leads to some log.
        if let Some(time) = offer.time {
            let moment = on_branch(world, branch, Target::Time(time));
            world.plan(&moment).unwrap_or_else(|it| panic!("{shortfall:?}: {it:?}"));
        }
    }
}

/// What is said of the newest state is what a restore to it finds.
fn check_present(world: &mut World) {
    let latest = world.plan(&request(Target::Latest));
    let (facts, backups) = (world.facts(), world.backups.clone());
    match (present(&facts, &backups), latest) {
        (Present::From(_), Ok(_)) | (Present::Lost(_) | Present::Unknown, Err(_)) => {}
        // A record that is not there whole tells of nothing that is lost.
        (Present::From(_), Err(shortfall)) => {
            let harmless = ["nothing is stored of timeline", "no whole record", "on either of"];
            assert!(harmless.iter().any(|it| shortfall.reason.contains(it)), "{shortfall:?}");
        }
        (said, Ok(plan)) => panic!("{said:?} {plan:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_agree_with_what_a_server_replays(
        numbers in prop::collection::vec(any::<u32>(), 0..400),
        asked in prop::collection::vec((any::<u16>(), any::<bool>()), 1..8),
    ) {
        let mut world = history(numbers);
        check_windows(&mut world);
        check_present(&mut world);
        for branch in 0..world.branches.len() {
            // Equal numbers never occur here; which of several is meant has tables of its own.
            let end = world.end(branch) + 64;
            for (number, flag) in &asked {
                let number = u64::from(*number);
                check_time(&mut world, branch, 990 + i64::try_from(number % 350).unwrap(), *flag);
                check_position(&mut world, branch, number % end);
                check_xid(&mut world, branch, 10 + number % 20, *flag);
                check_offers(&mut world, branch, Target::Position(LogOffset(number % end)));
                check_offers(&mut world, branch, Target::Time(Micros(990 + i64::try_from(number % 350).unwrap())));
            }
            check_offers(&mut world, branch, Target::Latest);
            if let Ok(plan) = world.plan(&on_branch(&world, branch, Target::Latest)) {
                Naive::new(&world, branch).check(&plan);
            }
        }
    }
}
