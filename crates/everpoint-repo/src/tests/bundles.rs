//! Bundles: they hold what their segments held, whoever asks, and a crash between any two steps loses nothing.

use everpoint_core::{BundleHour, BundlePlan};

use super::*;
use crate::{PieceKind, Stored, code};

const COUNT: u64 = 3;

fn span(from: u64, to: u64) -> Span {
    Span { from: LogOffset(from * SIZE), to: LogOffset(to * SIZE) }
}

fn plan(from: u64, to: u64) -> BundlePlan {
    BundlePlan { hour: BundleHour::parse("2026/01/29/14").unwrap(), span: span(from, to) }
}

/// Content that compresses in no time, so that every step of a crash can be tried.
fn segment(number: u64) -> Vec<u8> {
    let line = bytes(number + 1, 4096);
    line.iter().copied().cycle().take(1 << 20).collect()
}

/// A log of some segments and a tail.
fn with_log() -> (MemoryStore, Repository) {
    let (memory, repository) = fresh();
    let log = log(&repository);
    for number in 0..COUNT {
        let raw = segment(number);
        log.put_segment(LogOffset(number * SIZE), &raw, &digest(number * SIZE, &raw), 1).unwrap();
    }
    let tail = &segment(COUNT)[..5000];
    log.put_tail(&digest(COUNT * SIZE, tail), tail).unwrap();
    (memory, repository)
}

/// Everything that can be asked of the log says what it said before there were bundles.
fn check(memory: &MemoryStore, what: &str) {
    let log = log(&open(memory));
    let pieces = log.pieces().expect(what);
    assert_eq!(
        pieces.iter().map(|piece| piece.span.from.0 / SIZE).collect::<Vec<_>>(),
        [0, 1, 2, 3],
        "{what}"
    );
    assert!(pieces.iter().all(|piece| piece.has_digest), "{what}: {pieces:?}");
    assert_eq!(
        log.pieces_between(LogOffset(SIZE + 5), LogOffset(2 * SIZE)).expect(what)[..],
        pieces[1..2],
        "{what}"
    );
    for number in 0..COUNT {
        let (start, raw) = (LogOffset(number * SIZE), segment(number));
        assert_eq!(
            log.digest(&pieces[usize::try_from(number).unwrap()]).expect(what),
            digest(start.0, &raw),
            "{what}"
        );
        assert_eq!(log.segment_hash(start).expect(what), Some(*blake3::hash(&raw).as_bytes()), "{what}");
        assert!(log.read_segment_into(start, 2).expect(what) == raw, "{what}");
        assert!(log.read_stored(start, 1).expect(what) == Some((raw.clone(), start.plus(SIZE))), "{what}");
        let mut read = Vec::new();
        log.read_segment(start, &mut |part| read.extend_from_slice(part)).expect(what);
        assert!(read == raw, "{what}");
        // Stored again is success, another content is refused.
        assert_eq!(log.put_segment(start, &raw, &digest(start.0, &raw), 1).expect(what), Stored::AlreadySame);
        let other = segment(99);
        let error = log.put_segment(start, &other, &digest(start.0, &other), 1).unwrap_err();
        assert_eq!(error.code, code::DIFFERS, "{what}");
        let mut writer = log.begin_segment(start).expect(what);
        writer.write(&raw).expect(what);
        assert_eq!(writer.finish(&digest(start.0, &raw)).expect(what), Stored::AlreadySame);
        log.remove_tails(start).expect(what);
    }
    assert_eq!(log.segment_hash(LogOffset(COUNT * SIZE)).expect(what), None);
    assert_eq!(open(memory).cluster("shop").unwrap().branches(1).unwrap(), [branch()]);
}

fn singles(memory: &MemoryStore) -> usize {
    memory.names().iter().filter(|name| name.contains("/log/1/") && !name.contains(".tail/")).count()
}

#[test]
fn a_bundle_serves_as_its_segments_did_and_replaces_them() {
    let (memory, repository) = with_log();
    check(&memory, "before");
    let before = memory.names();
    let made = log(&repository).bundle(&plan(0, COUNT), 2).unwrap();
    assert_eq!(made.raw_bytes, COUNT * SIZE);
    assert!(made.replaced_bytes > 0 && made.bundle.stored_bytes > 0, "{made:?}");
    assert_eq!(singles(&memory), 0);
    let base =
        "clusters/shop/bundles/1/00000001-0000000000000000/2026/01/29/14/0000000000000000-0000000000300000";
    let added: Vec<String> = memory.names().into_iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(added, [base.to_owned(), format!("{base}.index")]);
    check(&memory, "after");
    // Whoever listed before goes on.
    let (memory, repository) = with_log();
    let reader = log(&repository);
    let pieces = reader.pieces().unwrap();
    log(&open(&memory)).bundle(&plan(0, COUNT), 1).unwrap();
    assert_eq!(reader.digest(&pieces[1]).unwrap(), digest(SIZE, &segment(1)));
    assert!(reader.read_segment_into(LogOffset(SIZE), 2).unwrap() == segment(1));
    check(&memory, "made by another");
}

#[test]
fn bundles_are_listed_with_their_hour() {
    let (memory, repository) = with_log();
    let log = log(&repository);
    assert_eq!(log.bundles().unwrap(), []);
    log.bundle(&plan(1, 2), 1).unwrap();
    log.bundle(&BundlePlan { hour: BundleHour::parse("2025/12/31/23").unwrap(), ..plan(0, 1) }, 1).unwrap();
    let listed: Vec<_> =
        log.bundles().unwrap().iter().map(|bundle| (bundle.hour.to_string(), bundle.span)).collect();
    assert_eq!(listed, [("2025/12/31/23".to_owned(), span(0, 1)), ("2026/01/29/14".to_owned(), span(1, 2))]);
    assert_eq!(singles(&memory), 2, "one segment and its digest");
    check(&memory, "some bundled");
}

#[test]
fn what_can_not_be_bundled_stays() {
    let (memory, repository) = with_log();
    let log = log(&repository);
    assert_eq!(log.bundle(&plan(2, 4), 1).unwrap_err().code, code::MISSING, "a tail is no segment");
    let name = "clusters/shop/log/1/00000001-0000000000000000/000000010000000000000001";
    assert!(memory.flip(name, 700));
    let before = memory.names();
    assert_eq!(log.bundle(&plan(0, COUNT), 2).unwrap_err().code, code::DAMAGED);
    assert_eq!(memory.names(), before, "nothing is left of the attempt, nothing has gone");
}

#[test]
fn a_damaged_bundle_is_told_and_made_anew_while_its_segments_are_there() {
    let base =
        "clusters/shop/bundles/1/00000001-0000000000000000/2026/01/29/14/0000000000000000-0000000000300000";
    let (memory, repository) = with_log();
    let whole = memory.copy();
    log(&repository).bundle(&plan(0, COUNT), 2).unwrap();
    for (name, at) in [(base.to_owned(), 700), (format!("{base}.index"), 80)] {
        let broken = memory.copy();
        assert!(broken.flip(&name, at));
        let log = log(&open(&broken));
        assert_eq!(log.read_segment_into(LogOffset(0), 1).unwrap_err().code, code::DAMAGED, "{name}");
        assert_eq!(log.pieces().unwrap().len(), 4);
    }
    // A crash left the segments, and the disk damaged the index.
    let both = whole.copy();
    for name in [base.to_owned(), format!("{base}.index")] {
        both.put_new(&name, &memory.get(&name).unwrap()).unwrap();
    }
    assert!(both.flip(&format!("{base}.index"), 80));
    check(&both, "segments beside a bundle that can't be read");
    log(&open(&both)).finish_bundles().unwrap();
    assert_eq!(log(&open(&both)).bundles().unwrap(), []);
    check(&both, "given up");
}

#[test]
fn a_crash_at_every_step_loses_nothing() {
    let (base, _) = with_log();
    at_every_step(
        &base,
        &HONEST,
        |store| {
            let log = log(&Repository::open(store, Some(&key(1)))?);
            log.finish_bundles()?;
            log.bundle(&plan(0, COUNT), 1)
        },
        |memory, _, what| {
            check(memory, what);
            let log = log(&open(memory));
            log.finish_bundles().expect(what);
            if log.bundles().expect(what).is_empty() {
                log.bundle(&plan(0, COUNT), 2).expect(what);
            }
            assert_eq!(singles(memory), 0, "{what}");
            let bundles = memory.names().iter().filter(|name| name.contains("/bundles/")).count();
            assert_eq!(bundles, 2, "{what}");
            check(memory, what);
        },
    );
}

#[test]
fn a_disk_that_lies_about_the_bundle_costs_no_segment() {
    let (base, _) = with_log();
    at_every_step(
        &base,
        &[FaultKind::Lose, FaultKind::Truncate],
        |store| {
            let log = log(&Repository::open(store, Some(&key(1)))?);
            log.bundle(&plan(0, COUNT), 1)
        },
        |memory, _, what| check(memory, what),
    );
}

#[test]
fn segments_larger_than_a_frame_come_back_whole() {
    let (_, repository) = fresh();
    let size = 16 * SIZE;
    let log = repository.cluster("shop").unwrap().log(1, branch(), size);
    let segments: Vec<Vec<u8>> = (0..2).map(|number| bytes(number, 16 << 20)).collect();
    for (start, raw) in [0, size].into_iter().zip(&segments) {
        log.put_segment(LogOffset(start), raw, &digest(start, raw), 2).unwrap();
    }
    log.bundle(&BundlePlan { span: Span { from: LogOffset(0), to: LogOffset(2 * size) }, ..plan(0, 1) }, 3)
        .unwrap();
    for workers in [1, 3] {
        assert!(log.read_segment_into(LogOffset(size), workers).unwrap() == segments[1]);
    }
    assert_eq!(
        log.pieces().unwrap().iter().map(|piece| piece.kind).collect::<Vec<_>>(),
        [PieceKind::Segment; 2]
    );
}
