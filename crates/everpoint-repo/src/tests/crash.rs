//! A crash at every step: the repository opens, what was acknowledged is there, what is there is whole.

use everpoint_core::Micros;

use super::*;
use crate::code;

#[test]
fn of_a_backup() {
    let (base, repository) = fresh();
    take_backup(&repository.cluster("shop").unwrap(), "before").unwrap();
    at_every_step(
        &base,
        &HONEST,
        |store| {
            let repository = Repository::open(store, Some(&key(1)))?;
            take_backup(&repository.cluster("shop")?, "new")
        },
        |memory, acknowledged, what| {
            let shop = open(memory).cluster("shop").unwrap();
            check_backup(&shop, "before");
            let all = shop.backups().expect(what);
            let new = all.iter().find(|listing| listing.label == "new");
            let exists = new.is_some_and(|listing| listing.record.is_some());
            assert!(exists || acknowledged.is_err(), "{what}: acknowledged and not there");
            if exists {
                // Data before reference: a backup that exists is whole, acknowledged or not.
                check_backup(&shop, "new");
            } else {
                assert_eq!(
                    shop.packs().unwrap().len(),
                    FILES + shop.orphan_packs().expect(what).len(),
                    "{what}"
                );
            }
            take_backup(&shop, "next").expect(what);
            check_backup(&shop, "next");
        },
    );
}

/// Tails of `raw` that hold its first bytes; a store holds them before the action.
fn with_tails(raw: &[u8]) -> MemoryStore {
    let (memory, repository) = fresh();
    let log = log(&repository);
    for range in [0..100_000, 100_000..600_000, 600_000..1 << 20] {
        log.put_tail(&digest(range.start as u64, &raw[range.clone()]), &raw[range]).unwrap();
    }
    memory
}

fn compact(store: Arc<dyn Store>, raw: &[u8]) -> Result<(), RepoError> {
    let log = log(&Repository::open(store, Some(&key(1)))?);
    let mut writer = log.begin_segment(LogOffset(0))?;
    for part in raw.chunks(300_000) {
        writer.write(part)?;
    }
    writer.finish(&digest(0, raw))?;
    log.remove_tails(LogOffset(0))
}

/// Every byte of the segment can be read, and a reader finds a digest for it.
fn check_log(memory: &MemoryStore, raw: &[u8], what: &str) {
    let log = log(&open(memory));
    let (found, end) = log.read_stored(LogOffset(0), 2).expect(what).expect(what);
    assert!(end == LogOffset(SIZE) && found == raw, "{what}: acknowledged log is missing");
    let pieces = log.pieces().expect(what);
    assert!(pieces.iter().all(|piece| piece.has_digest), "{what}: {pieces:?}");
    let mut position = LogOffset(0);
    for piece in &pieces {
        assert_eq!(piece.span.from, position, "{what}");
        log.digest(piece).expect(what);
        position = piece.span.to;
    }
    assert_eq!(position, LogOffset(SIZE), "{what}");
}

#[test]
fn of_a_compaction() {
    let raw = bytes(1, 1 << 20);
    at_every_step(
        &with_tails(&raw),
        &HONEST,
        |store| compact(store, &raw),
        |memory, _, what| {
            check_log(memory, &raw, what);
            compact(store_of(memory), &raw).expect(what);
            check_log(memory, &raw, what);
            assert!(!memory.names().iter().any(|name| name.contains(".tail/")), "{what}");
        },
    );
}

#[test]
fn of_a_compaction_onto_a_disk_that_lies() {
    // The tails were stored by an honest disk; what is lost or cut off is written during the compaction.
    let raw = bytes(1, 1 << 20);
    at_every_step(
        &with_tails(&raw),
        &[FaultKind::Lose, FaultKind::Truncate],
        |store| compact(store, &raw),
        |memory, _, what| {
            let log = log(&open(memory));
            let (found, end) = log.read_stored(LogOffset(0), 2).expect(what).expect(what);
            assert!(end == LogOffset(SIZE) && found == raw, "{what}: acknowledged log is missing");
        },
    );
}

#[test]
fn of_a_segment_pushed_whole() {
    let raw = bytes(1, 1 << 20);
    let (base, _) = fresh();
    at_every_step(
        &base,
        &HONEST,
        |store| {
            let log = log(&Repository::open(store, Some(&key(1)))?);
            log.put_segment(LogOffset(0), &raw, &digest(0, &raw), 2)
        },
        |memory, acknowledged, what| {
            if acknowledged.is_ok() {
                check_log(memory, &raw, what);
            }
            let log = log(&open(memory));
            let other = bytes(2, 1 << 20);
            if log.pieces().unwrap().is_empty() {
                // Nothing is left of it: the name is free.
                log.put_segment(LogOffset(0), &raw, &digest(0, &raw), 1).expect(what);
            } else {
                let error = log.put_segment(LogOffset(0), &other, &digest(0, &other), 1).unwrap_err();
                assert_eq!(error.code, code::DIFFERS, "{what}");
                log.put_segment(LogOffset(0), &raw, &digest(0, &raw), 1).expect(what);
            }
            check_log(memory, &raw, what);
        },
    );
}

#[test]
fn of_tails_and_covered() {
    let raw = bytes(1, 3000);
    let (base, _) = fresh();
    at_every_step(
        &base,
        &HONEST,
        |store| {
            let (mut durable, mut covered) = (0, None);
            let Ok(repository) = Repository::open(store, Some(&key(1))) else {
                return (durable, covered);
            };
            let log = log(&repository);
            for (number, part) in raw.chunks(1000).enumerate() {
                if log.put_tail(&digest(number as u64 * 1000, part), part).is_err() {
                    break;
                }
                durable += part.len();
                let until = Micros(number as i64 + 1);
                if log.put_covered(LogOffset(durable as u64), until).is_ok() {
                    covered = Some((LogOffset(durable as u64), until));
                }
            }
            (durable, covered)
        },
        |memory, (durable, covered), what| {
            let log = log(&open(memory));
            let stored = log.read_stored(LogOffset(0), 1).expect(what);
            let found = stored.map(|(bytes, _)| bytes).unwrap_or_default();
            assert!(found.len() >= durable && raw.starts_with(&found), "{what}");
            assert!(log.covered().expect(what) >= covered, "{what}");
        },
    );
}
