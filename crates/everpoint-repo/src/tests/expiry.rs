//! Letting go: what stays is whole after a crash at any step, and what goes is gone after the next run.

use everpoint_core::reclaim::reclaim;
use everpoint_core::{BundleHour, BundlePlan, Micros};

use super::*;
use crate::Freed;

/// A branch of six segments, of which the third and fourth are bundled, and three backups.
fn world() -> (MemoryStore, Repository) {
    let (memory, repository) = fresh();
    let (log, shop) = (log(&repository), repository.cluster("shop").unwrap());
    for number in 0..6 {
        let raw = bytes(number, 1 << 20);
        log.put_segment(LogOffset(number * SIZE), &raw, &digest(number * SIZE, &raw), 1).unwrap();
    }
    let span = Span { from: LogOffset(2 * SIZE), to: LogOffset(4 * SIZE) };
    log.bundle(&BundlePlan { hour: BundleHour::parse("2026/01/29/14").unwrap(), span }, 1).unwrap();
    log.put_gap(Span { from: LogOffset(5), to: LogOffset(9) }, "lost").unwrap();
    log.put_other("000000010000000000000001.00000028.backup", b"x").unwrap();
    log.put_history(b"history").unwrap();
    for label in ["one", "two", "three"] {
        take_backup(&shop, label).unwrap();
    }
    (memory, repository)
}

fn left(log: &LogStore) -> Vec<u64> {
    log.pieces().unwrap().iter().map(|piece| piece.span.from.0 / SIZE).collect()
}

#[test]
fn log_that_is_not_kept_goes_and_a_bundle_goes_as_a_whole_or_not_at_all() {
    let (memory, repository) = world();
    let log = log(&repository);
    let keep = [Span { from: LogOffset(3 * SIZE), to: LogOffset(3 * SIZE + 1) }];
    let names = memory.names();
    let counted = log.expire(&keep, LogOffset(5 * SIZE), true).unwrap();
    assert_eq!(memory.names(), names, "counting removes nothing");
    assert_eq!(log.expire(&keep, LogOffset(5 * SIZE), false).unwrap(), counted);
    assert_eq!(counted.objects, 8, "three segments with their digests, a gap, a file");
    assert_eq!(left(&log), [2, 3, 5]);
    assert!(log.read_segment_into(LogOffset(2 * SIZE), 1).is_ok());
    assert_eq!(log.gaps().unwrap(), []);
    assert_eq!(log.history().unwrap().unwrap(), b"history", "it names the branch, and stays");
    log.expire(&[], LogOffset(5 * SIZE), false).unwrap();
    assert_eq!(left(&log), [5], "what ends later stays whatever is kept");
    assert!(!memory.names().iter().any(|name| name.contains("/bundles/")));
    assert_eq!(log.expire(&[], LogOffset(5 * SIZE), false).unwrap(), Freed::default());
}

#[test]
fn what_was_let_go_is_remembered() {
    let (memory, repository) = world();
    let log = log(&repository);
    assert_eq!(log.expired().unwrap(), None);
    for position in [7, 5, 9] {
        log.put_expired(LogOffset(position)).unwrap();
    }
    assert_eq!(log.expired().unwrap(), Some(LogOffset(9)));
    assert_eq!(memory.names().iter().filter(|name| name.contains("/expired/")).count(), 1);
}

#[test]
fn a_backup_goes_with_its_map_and_its_packs_when_nobody_names_them() {
    let (memory, repository) = world();
    let shop = repository.cluster("shop").unwrap();
    let unnamed = |without: &[String]| {
        shop.pack_facts(without)
            .unwrap()
            .iter()
            .filter(|pack| !pack.named)
            .map(|pack| pack.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(unnamed(&[]), Vec::<[u8; 16]>::new());
    let soon = unnamed(&["one".to_owned()]);
    assert_eq!(soon.len(), FILES);
    assert_eq!(shop.remove_backup("one", true).unwrap(), shop.remove_backup("one", false).unwrap());
    assert_eq!(unnamed(&[]), soon);
    assert_eq!(shop.orphan_packs().unwrap().len(), FILES, "the next backup may reuse them");
    shop.bury(&soon).unwrap();
    assert_eq!(shop.orphan_packs().unwrap(), [], "not what goes soon");
    let plan = |memory: &MemoryStore| {
        let shop = open(memory).cluster("shop").unwrap();
        let (packs, stones) = (shop.pack_facts(&[]).unwrap(), shop.tombstones().unwrap());
        reclaim(&packs, &stones, shop.newest_map().unwrap(), 60_000_000, shop.store_now().unwrap())
    };
    assert_eq!(plan(&memory).remove, Vec::<[u8; 16]>::new(), "its tombstone is young");
    memory.advance(61_000_000);
    let ready = plan(&memory);
    assert_eq!((&ready.remove, &ready.close), (&soon, &vec![1]));
    ready.remove.iter().for_each(|id| shop.remove_pack(*id).unwrap());
    shop.close_tombstone(1).unwrap();
    assert_eq!(plan(&memory), everpoint_core::reclaim::ReclaimPlan::default());
    check_backup(&shop, "two");
    check_backup(&shop, "three");
}

#[test]
fn a_map_that_can_not_be_read_keeps_all_packs() {
    let (memory, repository) = world();
    assert!(memory.flip("clusters/shop/backups/two/manifest", 100));
    assert!(repository.cluster("shop").unwrap().pack_facts(&[]).is_err());
}

#[test]
fn of_holds_the_newest_counts() {
    let (memory, repository) = world();
    let shop = repository.cluster("shop").unwrap();
    let held = |shop: &ClusterRepo| {
        shop.holds().unwrap().iter().map(|held| (held.label.clone(), held.until)).collect::<Vec<_>>()
    };
    assert_eq!(held(&shop), []);
    shop.hold("one", Some(Micros(5))).unwrap();
    shop.hold("two", None).unwrap();
    assert_eq!(held(&shop), [("one".to_owned(), Some(Micros(5))), ("two".to_owned(), None)]);
    shop.release_hold("two").unwrap();
    shop.hold("one", None).unwrap();
    assert_eq!(held(&shop), [("one".to_owned(), None)]);
    assert!(shop.hold("a/b", None).is_err());
    assert!(memory.flip("clusters/shop/holds/two/2", 80));
    assert_eq!(held(&shop).len(), 2, "a release that can't be read releases nothing");
}

#[test]
fn leases_for_one_use_are_swept_when_nobody_holds_them() {
    let (memory, repository) = world();
    let ask = || repository.holders_of_single_use(&|id| id.starts_with("reading-")).unwrap();
    let lease = repository.lease("reading-shop-1", "restore", std::time::Duration::from_secs(60)).unwrap();
    assert_eq!(ask(), ["restore"]);
    drop(lease);
    assert_eq!(ask(), Vec::<String>::new());
    assert!(!memory.names().iter().any(|name| name.starts_with("leases/reading")));
}

/// All that an expiry does to a repository, in its order.
fn let_go(store: Arc<dyn Store>) -> Result<(), RepoError> {
    let repository = Repository::open(store, Some(&key(1)))?;
    let (log, shop) = (log(&repository), repository.cluster("shop")?);
    log.put_expired(LogOffset(5 * SIZE))?;
    shop.remove_backup("one", false)?;
    shop.sweep_backups()?;
    log.expire(&[Span { from: LogOffset(SIZE), to: LogOffset(2 * SIZE) }], LogOffset(5 * SIZE), false)?;
    let (stones, newest) = (shop.tombstones()?, shop.newest_map()?);
    let plan = reclaim(&shop.pack_facts(&[])?, &stones, newest, 0, Micros(i64::MAX / 2));
    shop.bury(&plan.remove)?;
    plan.remove.iter().try_for_each(|id| shop.remove_pack(*id))?;
    shop.tombstones()?.iter().try_for_each(|stone| shop.close_tombstone(stone.number))
}

#[test]
fn a_crash_at_every_step_leaves_what_stays_whole() {
    let (base, _) = world();
    at_every_step(&base, &HONEST, let_go, |memory, result, what| {
        let whole = |what: &str| {
            let repository = open(memory);
            let (log, shop) = (log(&repository), repository.cluster("shop").unwrap());
            for label in ["two", "three"] {
                check_backup(&shop, label);
            }
            for number in [1, 5] {
                assert!(
                    log.read_segment_into(LogOffset(number * SIZE), 1).expect(what) == bytes(number, 1 << 20)
                );
            }
            shop
        };
        let shop = whole(what);
        // One that is listed with its map is whole.
        if shop
            .backups()
            .expect(what)
            .iter()
            .any(|listing| listing.label == "one" && listing.record.is_some())
        {
            check_backup(&shop, "one");
        }
        let_go(store_of(memory)).expect(what);
        let shop = whole(what);
        assert_eq!(shop.packs().unwrap().len(), 2 * FILES, "{what}");
        assert_eq!(left(&log(&open(memory))), [1, 5], "{what}");
        let left: Vec<String> = memory
            .names()
            .into_iter()
            .filter(|name| name.contains("/one/") || name.contains("tombstones"))
            .collect();
        assert_eq!(left, Vec::<String>::new(), "{what}");
        drop(result);
    });
}
