//! Expiry over histories made at random: what a kept window or backup needs stays, windows only shrink, and what was
//! decided once is not decided differently the next time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use everpoint_core::retention::{Attempted, Held};
use everpoint_core::{
    BackupFacts, BackupStatus, ExpireFacts, ExpirePlan, LogFacts, LogNeed, LogOffset, LogUnit, Micros,
    RetentionPolicy, Target, Window, expire, reach, windows,
};
use proptest::prelude::*;
use world::{World, request};

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

/// Numbers drawn at random before, so that a failing case can be made smaller.
struct Dice(std::vec::IntoIter<u32>);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        u64::from(self.0.next().unwrap_or_default()) % limit
    }
}

/// A cluster's life: some weeks of commits, backups, and perhaps a failover, with log lost here and there.
fn life(numbers: Vec<u32>) -> (World, Micros) {
    let mut dice = Dice(numbers.into_iter());
    let (mut world, mut clock) = (World::default(), 1_769_700_000_000_000);
    let mut branch = world.branch(1, None);
    for _ in 0..1 + dice.below(40) {
        clock += HOUR + i64::try_from(dice.below(40)).unwrap() * HOUR;
        match dice.below(8) {
            0..3 => {
                let (label, began) = (format!("b{}", world.backups.len()), clock);
                let start = world.filler(branch, 50);
                world.commit(branch, 7, clock);
                clock += HOUR;
                world.backup(branch, &label, start, began, clock);
                let made = world.backups.last_mut().unwrap();
                match dice.below(8) {
                    0 => made.status = BackupStatus::Damaged,
                    1 => made.damaged_pages = 1,
                    _ => {}
                }
            }
            3 => drop(world.filler(branch, 300 + dice.below(600))),
            4 if dice.below(3) == 0 => {
                let fork = world.end(branch);
                let timeline = 1 + u32::try_from(world.branches.len()).unwrap();
                branch = world.branch(timeline, Some((branch, fork)));
                world.commit(branch, 8, clock);
            }
            5 => drop(world.point(branch, &format!("p{}", dice.below(4)), clock)),
            _ => drop(world.commit(branch, 9, clock)),
        }
    }
    for branch in 0..world.branches.len() {
        world.store(branch, None);
        let count = world.branches[branch].stored.len() as u64;
        if dice.below(3) == 0 && count > 0 {
            let lost = usize::try_from(dice.below(count)).unwrap();
            world.branches[branch].stored.remove(lost);
        }
    }
    (world, Micros(clock + i64::try_from(dice.below(100)).unwrap() * HOUR))
}

fn policy() -> impl Strategy<Value = RetentionPolicy> {
    (0_u32..3, prop::option::of(0_i64..10), 0_u32..6, 0_u32..3, 0_u32..3, 0_u32..2, 0_u32..12, 0_u32..5)
        .prop_map(|(last, within, daily, weekly, monthly, yearly, window_days, failed_days)| {
            RetentionPolicy {
                last,
                within: within.map(|days| days * DAY),
                daily,
                weekly,
                monthly,
                yearly,
                window_days,
                failed_days,
                zone: jiff::tz::TimeZone::fixed(jiff::tz::offset(3)),
            }
        })
}

fn facts<'a>(log: &'a LogFacts, backups: &'a [BackupFacts]) -> ExpireFacts<'a> {
    ExpireFacts { log, backups, attempts: &[], holds: &[], needs: &[], units: &[] }
}

fn labels(plan: &ExpirePlan) -> Vec<&str> {
    plan.kept.iter().map(|kept| kept.label.as_str()).collect()
}

/// Whether one of `all` has every second of `part` that lies at or after `since`.
fn within(part: &Window, all: &[Window], since: Micros) -> bool {
    let wanted = part.from.max(since);
    wanted > part.to
        || all.iter().any(|whole| {
            (whole.identity, &whole.branch) == (part.identity, &part.branch)
                && whole.from <= wanted
                && part.to <= whole.to
                && part.to_position <= whole.to_position
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_second_of_the_window_can_still_be_brought_back(numbers in prop::collection::vec(any::<u32>(), 0..160), policy in policy()) {
        let (world, now) = life(numbers);
        let log = world.facts();
        let plan = expire(&facts(&log, &world.backups), &policy, now);
        for kept in &plan.kept {
            let distinct: std::collections::BTreeSet<&String> = kept.reasons.iter().collect();
            prop_assert_eq!(distinct.len(), kept.reasons.len(), "each reason once: {:?}", kept.reasons);
        }
        let young = plan.before.iter().filter(|window| window.to >= plan.window_from);
        for window in young {
            prop_assert!(within(window, &plan.after, plan.window_from), "{window:?} of {:?}, left {:?}", plan.before, plan.after);
        }
        // The newest good backup can still be followed to the end.
        if let Some(newest) = world.backups.iter().filter(|it| it.status == BackupStatus::Ok).max_by_key(|it| (it.stopped_at, &it.label)) {
            prop_assert!(labels(&plan).contains(&newest.label.as_str()));
            for window in plan.before.iter().filter(|window| window.backups.contains(&newest.label)) {
                prop_assert!(within(window, &plan.after, newest.stopped_at), "{window:?} {:?} {newest:?}", plan.after);
            }
        } else {
            prop_assert!(plan.dropped.is_empty() && plan.log.iter().all(|branch| branch.expired.is_none()));
        }
    }

    #[test]
    fn every_kept_backup_can_still_be_restored_to_its_end(numbers in prop::collection::vec(any::<u32>(), 0..160), policy in policy(), held in any::<prop::sample::Index>()) {
        let (mut world, now) = life(numbers);
        let log = world.facts();
        let backups = world.backups.clone();
        let hold: Vec<Held> = (!backups.is_empty()).then(|| Held { label: held.get(&backups).label.clone(), until: None }).into_iter().collect();
        let plan = expire(&ExpireFacts { holds: &hold, ..facts(&log, &backups) }, &policy, now);
        prop_assert!(hold.iter().all(|held| labels(&plan).contains(&held.label.as_str())));
        let (left, kept) = plan.applied(&log, &backups);
        let is_good = |label: &str| backups.iter().any(|it| it.label == label && it.status == BackupStatus::Ok);
        for label in labels(&plan).into_iter().filter(|label| is_good(label)) {
            let target = Target::Backup(label.to_owned());
            let before = world.plan(&request(target.clone())).is_ok();
            let after = everpoint_core::plan_restore(&left, &kept, &request(target), &mut world).unwrap();
            prop_assert!(after.is_ok() || !before, "{label} could be restored before: {after:?} {:?} {:?}", plan.log, backups);
        }
    }

    #[test]
    fn windows_only_shrink(numbers in prop::collection::vec(any::<u32>(), 0..160), policy in policy()) {
        let (world, now) = life(numbers);
        let log = world.facts();
        let plan = expire(&facts(&log, &world.backups), &policy, now);
        let (left, kept) = plan.applied(&log, &world.backups);
        let (more, less) = (reach(&log, &world.backups), reach(&left, &kept));
        for branch in &log.branches {
            for at in (0..4000).map(|at| LogOffset(at * 8)) {
                prop_assert!(more.holds(1, &branch.id, at) || !less.holds(1, &branch.id, at), "{at}");
            }
        }
        prop_assert_eq!(&plan.after, &windows(&left, &kept));
        // A hole that expiry made is no gap.
        let gaps = everpoint_core::gaps(&log);
        for gap in everpoint_core::gaps(&left) {
            prop_assert!(gaps.iter().any(|known| known.branch == gap.branch && known.span.to == gap.span.to), "{gap:?}");
        }
    }

    #[test]
    fn what_was_decided_is_decided_again(numbers in prop::collection::vec(any::<u32>(), 0..160), policy in policy()) {
        let (world, now) = life(numbers);
        let log = world.facts();
        let plan = expire(&facts(&log, &world.backups), &policy, now);
        let (left, kept) = plan.applied(&log, &world.backups);
        let again = expire(&facts(&left, &kept), &policy, now);
        prop_assert_eq!(again.dropped, []);
        prop_assert!(again.log.iter().all(|branch| branch.expired.is_none()), "more log goes: {:?}", again.log);
    }

    #[test]
    fn later_nothing_comes_back_that_would_have_gone_and_the_log_only_shrinks(
        numbers in prop::collection::vec(any::<u32>(), 0..160), policy in policy(), later in 0_i64..20,
    ) {
        let (world, now) = life(numbers);
        let log = world.facts();
        let plan = expire(&facts(&log, &world.backups), &policy, now);
        let then = expire(&facts(&log, &world.backups), &policy, Micros(now.0 + later * DAY));
        for (early, late) in plan.log.iter().zip(&then.log) {
            let pieces = &log.branch(1, &early.branch).unwrap().pieces;
            for piece in pieces.iter().filter(|piece| late.keeps(piece.span)) {
                prop_assert!(early.keeps(piece.span), "{:?} would come back", piece.span);
            }
        }
        // And the other way: expired now, then later, is as expired later.
        let (left, kept) = plan.applied(&log, &world.backups);
        let both = expire(&facts(&left, &kept), &policy, Micros(now.0 + later * DAY));
        let (then_left, then_kept) = both.applied(&left, &kept);
        let (more, less) = (reach(&left, &kept), reach(&then_left, &then_kept));
        for branch in &log.branches {
            for at in (0..4000).map(|at| LogOffset(at * 8)) {
                prop_assert!(more.holds(1, &branch.id, at) || !less.holds(1, &branch.id, at), "{at}");
            }
        }
    }

    #[test]
    fn log_that_somebody_needs_stays(numbers in prop::collection::vec(any::<u32>(), 0..160), policy in policy(), from in 0_u64..4000) {
        let (world, now) = life(numbers);
        let log = world.facts();
        let needs: Vec<LogNeed> = log.branches.iter().map(|branch| LogNeed { identity: 1, branch: branch.id.clone(), from: LogOffset(from) }).collect();
        let plan = expire(&ExpireFacts { needs: &needs, ..facts(&log, &world.backups) }, &policy, now);
        for (branch, kept) in log.branches.iter().zip(&plan.log) {
            for piece in branch.pieces.iter().filter(|piece| piece.span.to.0 > from) {
                prop_assert!(kept.keeps(piece.span));
            }
        }
    }
}

/// A year of daily backups at noon, an hour of log each day.
fn year() -> (World, Micros) {
    let (mut world, noon) = (World::default(), 1_735_732_800_000_000_i64);
    let branch = world.branch(1, None);
    for day in 0..365 {
        let clock = noon + day * DAY;
        let start = world.filler(branch, 50);
        world.commit(branch, 1, clock);
        world.backup(branch, &format!("d{day}"), start, clock, clock + HOUR);
        world.commit(branch, 2, clock + 2 * HOUR);
        world.filler(branch, 400);
    }
    world.store(branch, None);
    (world, Micros(noon + 364 * DAY + 3 * HOUR))
}

#[test]
fn the_default_keeps_days_weeks_and_months_and_the_log_of_its_window() {
    let (world, now) = year();
    let log = world.facts();
    let plan = expire(&facts(&log, &world.backups), &RetentionPolicy::default(), now);
    // 14 days, the Mondays of 4 weeks, the first of 12 months, and the one from which the 14 days begin.
    let day = |label: &&str| label[1..].parse::<u32>().unwrap();
    let kept: Vec<u32> = labels(&plan).iter().map(day).collect();
    let months = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let mondays = [341, 348, 355, 362];
    let mut expected: Vec<u32> = (350..365).chain(months).chain(mondays).collect();
    expected.sort_unstable();
    expected.dedup();
    assert_eq!(kept, expected);
    assert_eq!(plan.dropped.len(), 365 - expected.len());
    let whole: Vec<&Window> = plan.after.iter().filter(|window| window.to >= plan.window_from).collect();
    assert_eq!(whole.len(), 1);
    assert_eq!(whole[0].backup, "d350", "the log of the window begins with the backup before it");
    let kept_pieces = log.branches[0].pieces.iter().filter(|piece| plan.log[0].keeps(piece.span)).count();
    assert!(
        kept_pieces < log.branches[0].pieces.len() / 6,
        "{kept_pieces} of {}",
        log.branches[0].pieces.len()
    );
}

#[test]
fn a_bundle_that_is_needed_in_part_stays_as_a_whole() {
    let (world, now) = year();
    let log = world.facts();
    let policy =
        RetentionPolicy { daily: 1, weekly: 0, monthly: 0, window_days: 1, ..RetentionPolicy::default() };
    let held = [Held { label: "d7".to_owned(), until: None }];
    let start = world.backups[7].start.0;
    let unit =
        |from, to| LogUnit { identity: 1, branch: log.branches[0].id.clone(), span: world::span(from, to) };
    let units = [unit(start - 2560, start + 2560), unit(start + 2560, start + 5120)];
    let plan =
        expire(&ExpireFacts { holds: &held, units: &units, ..facts(&log, &world.backups) }, &policy, now);
    let kept = |at: u64| plan.log[0].keeps(world::span(at, at + 1));
    assert!(kept(start - 2560) && kept(start + 2559) && !kept(start - 2561) && !kept(start + 2560));
}

#[test]
fn a_clock_that_runs_ahead_and_a_cluster_that_stands_still_lose_nothing() {
    let (world, now) = year();
    let log = world.facts();
    let ask = |now| expire(&facts(&log, &world.backups), &RetentionPolicy::default(), now);
    let (sane, decade) = (ask(Micros(now.0 + DAY)), ask(Micros(now.0 + 3650 * DAY)));
    assert_eq!(labels(&sane), labels(&decade));
    let back = ask(Micros(0));
    assert_eq!(back.log[0].expired, None, "a clock set back keeps all log");
}

#[test]
fn failed_and_damaged_backups_go_once_a_newer_one_is_good_and_they_are_old() {
    let (mut world, now) = year();
    world.backups.truncate(5);
    for (at, backup) in world.backups.iter_mut().enumerate() {
        backup.status = if at == 3 { BackupStatus::Ok } else { BackupStatus::Damaged };
    }
    let attempt = |label: &str, day: i64, running| Attempted {
        label: label.to_owned(),
        at: Some(Micros(now.0 + day * DAY)),
        running,
    };
    let attempts = [
        attempt("f1", -364, false),
        attempt("f2", 1, false),
        attempt("r", -364, true),
        attempt("h", -364, false),
    ];
    let log = world.facts();
    let held = |label: &str, days| Held { label: label.to_owned(), until: Some(Micros(now.0 + days * DAY)) };
    let holds = [held("h", 1), held("f1", -360)];
    let plan = expire(
        &ExpireFacts { attempts: &attempts, holds: &holds, ..facts(&log, &world.backups) },
        &RetentionPolicy::default(),
        now,
    );
    let dropped: Vec<&str> = plan.dropped.iter().map(|dropped| dropped.label.as_str()).collect();
    assert_eq!(dropped, ["d0", "d1", "d2", "f1"], "{:?}", plan.kept);
    world.backups[3].status = BackupStatus::Damaged;
    let plan = expire(&facts(&log, &world.backups), &RetentionPolicy::default(), now);
    assert_eq!(plan.dropped, [], "without a good one nothing goes");
}
