//! Which packs go: those that no map names, some time after a tombstone was set for them.
//!
//! All moments are those of the store's own clock; no two clocks are compared.

use crate::position::Micros;

/// Packs younger than the newest map are of a backup that was interrupted, and the next one reuses them: for so long.
const SPARE: i64 = 3 * 86_400_000_000;

/// Id of a pack.
pub type Id = [u8; 16];

/// A pack that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackFacts {
    /// Its id.
    pub id: Id,
    /// Bytes that it takes.
    pub bytes: u64,
    /// When it was stored.
    pub stored_at: Micros,
    /// A map names it.
    pub named: bool,
}

/// A tombstone that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TombstoneFacts {
    /// Its number.
    pub number: u32,
    /// When it was stored.
    pub stored_at: Micros,
    /// The packs for which it was set.
    pub packs: Vec<Id>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReclaimPlan {
    /// Packs to set a tombstone for.
    pub bury: Vec<Id>,
    /// Packs to remove now.
    pub remove: Vec<Id>,
    /// Tombstones that are done once those are removed.
    pub close: Vec<u32>,
    /// Bytes of the packs that are removed.
    pub freed: u64,
    /// Bytes of the packs that wait behind tombstones afterwards.
    pub waiting: u64,
}

/// Decides what to do with packs that no map names.
///
/// `grace`: microseconds that a tombstone stands before its packs go; 0: no tombstone is needed. `newest_map`: when the
/// newest map was stored. `now`: the store's clock.
#[must_use]
pub fn reclaim(
    packs: &[PackFacts],
    tombstones: &[TombstoneFacts],
    newest_map: Option<Micros>,
    grace: i64,
    now: Micros,
) -> ReclaimPlan {
    let mut plan = ReclaimPlan::default();
    let set_for =
        |id: &Id| tombstones.iter().filter(|stone| stone.packs.contains(id)).map(|it| it.stored_at).min();
    let age = |since: Micros| now.0.saturating_sub(since.0);
    for pack in packs.iter().filter(|pack| !pack.named) {
        let since = set_for(&pack.id);
        let spare = newest_map.is_none_or(|newest| pack.stored_at > newest) && age(pack.stored_at) < SPARE;
        if since.is_some_and(|since| age(since) >= grace) || (since.is_none() && !spare && grace == 0) {
            plan.remove.push(pack.id);
            plan.freed = plan.freed.saturating_add(pack.bytes);
        } else if since.is_some() {
            plan.waiting = plan.waiting.saturating_add(pack.bytes);
        } else if !spare {
            plan.bury.push(pack.id);
            plan.waiting = plan.waiting.saturating_add(pack.bytes);
        }
    }
    let waits = |id: &Id| packs.iter().any(|pack| pack.id == *id && !pack.named) && !plan.remove.contains(id);
    let done = tombstones.iter().filter(|stone| !stone.packs.iter().any(waits));
    plan.close = done.map(|stone| stone.number).collect();
    plan
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pack(id: u8, stored_at: i64, named: bool) -> PackFacts {
        PackFacts { id: [id; 16], bytes: 10, stored_at: Micros(stored_at), named }
    }

    fn stone(number: u32, stored_at: i64, packs: &[u8]) -> TombstoneFacts {
        TombstoneFacts {
            number,
            stored_at: Micros(stored_at),
            packs: packs.iter().map(|id| [*id; 16]).collect(),
        }
    }

    #[test]
    fn a_pack_goes_when_its_tombstone_is_old_enough() {
        let packs = [pack(1, 5, false), pack(2, 5, true), pack(3, 5, false)];
        let stones = [stone(1, 100, &[1]), stone(2, 150, &[3])];
        let at = |now| reclaim(&packs, &stones, Some(Micros(50)), 60, Micros(now));
        assert_eq!(at(159), ReclaimPlan { waiting: 20, ..ReclaimPlan::default() });
        let plan = ReclaimPlan {
            remove: vec![[1; 16]],
            close: vec![1],
            freed: 10,
            waiting: 10,
            ..ReclaimPlan::default()
        };
        assert_eq!(at(160), plan);
        assert_eq!(at(90), ReclaimPlan { waiting: 20, ..ReclaimPlan::default() }, "a clock set back waits");
    }

    #[test]
    fn what_is_named_again_stays_and_its_tombstone_is_done() {
        let plan = reclaim(&[pack(1, 5, true)], &[stone(7, 0, &[1, 2])], Some(Micros(50)), 60, Micros(999));
        assert_eq!(plan, ReclaimPlan { close: vec![7], ..ReclaimPlan::default() });
    }

    #[test]
    fn what_an_interrupted_backup_left_is_spared_for_the_next() {
        let packs = [pack(1, 60, false), pack(2, 40, false)];
        let plan = |now, grace| reclaim(&packs, &[], Some(Micros(50)), grace, Micros(now));
        assert_eq!(plan(100, 10).bury, [[2; 16]]);
        assert_eq!(plan(100, 0).remove, [[2; 16]], "without grace at once");
        assert_eq!(plan(SPARE + 60, 10).bury, [[1; 16], [2; 16]]);
        assert_eq!(reclaim(&packs, &[], None, 0, Micros(100)), ReclaimPlan::default(), "there is no map yet");
    }

    proptest! {
        #[test]
        fn nothing_that_is_named_goes_and_nothing_without_its_tombstone(
            all in prop::collection::vec((0_i64..200, any::<bool>()), 0..12),
            stones in prop::collection::vec((0_i64..300, prop::collection::vec(0_u8..12, 0..5)), 0..4),
            newest in prop::option::of(0_i64..200), grace in 1_i64..100, now in 0_i64..400,
        ) {
            let packs: Vec<PackFacts> = (0..).zip(&all).map(|(id, (at, named))| pack(id, *at, *named)).collect();
            let stones: Vec<TombstoneFacts> = (1..).zip(&stones).map(|(n, (at, ids))| stone(n, *at, ids)).collect();
            let plan = reclaim(&packs, &stones, newest.map(Micros), grace, Micros(now));
            for id in plan.remove.iter().chain(&plan.bury) {
                prop_assert!(packs.iter().any(|pack| pack.id == *id && !pack.named));
            }
            for id in &plan.remove {
                prop_assert!(stones.iter().any(|stone| stone.packs.contains(id) && now - stone.stored_at.0 >= grace));
            }
            for stone in stones.iter().filter(|stone| !plan.close.contains(&stone.number)) {
                prop_assert!(stone.packs.iter().any(|id| packs.iter().any(|pack| pack.id == *id)));
            }
        }
    }
}
