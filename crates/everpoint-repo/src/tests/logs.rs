//! Segments, tails, marks.

use everpoint_core::Micros;

use super::*;
use crate::{PieceKind, Stored, code};

#[test]
fn a_segment_comes_back_and_is_stored_once() {
    let (memory, repository) = fresh();
    let log = log(&repository);
    let raw = bytes(1, 1 << 20);
    let start = LogOffset(3 * SIZE);
    assert_eq!(log.segment_name(start.plus(5)), "000000010000000000000003");
    let mut writer = log.begin_segment(start).unwrap();
    for part in raw.chunks(10_007) {
        writer.write(part).unwrap();
    }
    assert_eq!(writer.finish(&digest(start.0, &raw)).unwrap(), Stored::New);
    let before = memory.names();
    for workers in [1, 4] {
        assert_eq!(
            log.put_segment(start, &raw, &digest(start.0, &raw), workers).unwrap(),
            Stored::AlreadySame
        );
        assert!(log.read_segment_into(start, workers).unwrap() == raw);
    }
    let mut read = Vec::new();
    log.read_segment(start, &mut |part| read.extend_from_slice(part)).unwrap();
    assert!(read == raw);
    let other = bytes(2, 1 << 20);
    let error = log.put_segment(start, &other, &digest(start.0, &other), 2).unwrap_err();
    assert_eq!((error.code, error.class), (code::DIFFERS, everpoint_core::FailureClass::Damaged));
    assert_eq!(memory.names(), before);
    assert_eq!(log.segment_hash(start).unwrap(), Some(*blake3::hash(&raw).as_bytes()));
    assert_eq!(log.segment_hash(start.plus(SIZE)).unwrap(), None);
    assert_eq!(log.read_segment_into(start.plus(SIZE), 2).unwrap_err().code, code::MISSING);
}

#[test]
fn what_is_not_a_whole_segment_is_refused() {
    let (memory, repository) = fresh();
    let log = log(&repository);
    let raw = bytes(1, 1 << 20);
    assert_eq!(log.begin_segment(LogOffset(5)).err().unwrap().code, code::INVALID);
    let short = &raw[..1000];
    assert_eq!(log.put_segment(LogOffset(0), short, &digest(0, short), 1).unwrap_err().code, code::INVALID);
    assert_eq!(log.put_segment(LogOffset(0), short, &digest(0, &raw), 1).unwrap_err().code, code::INVALID);
    assert_eq!(log.put_segment(LogOffset(0), &raw, &digest(SIZE, &raw), 1).unwrap_err().code, code::INVALID);
    // Bytes that are not those of the digest are noticed when they are read back.
    let error = log.put_segment(LogOffset(0), &raw, &digest(0, &bytes(2, 1 << 20)), 1).unwrap_err();
    assert_eq!(error.code, code::DAMAGED);
    assert_eq!(memory.names(), ["config", "keys/1"]);
}

#[test]
fn a_segment_without_digest_is_repaired_and_a_torn_one_replaced() {
    let (memory, repository) = fresh();
    let log = log(&repository);
    let raw = bytes(1, 1 << 20);
    log.put_segment(LogOffset(0), &raw, &digest(0, &raw), 1).unwrap();
    let name = "clusters/shop/log/1/00000001-0000000000000000/000000010000000000000000";
    assert!(memory.lose(&format!("{name}.digest")));
    assert!(!log.pieces().unwrap()[0].has_digest);
    let other = bytes(2, 1 << 20);
    assert_eq!(log.put_segment(LogOffset(0), &other, &digest(0, &other), 1).unwrap_err().code, code::DIFFERS);
    assert!(!log.pieces().unwrap()[0].has_digest);
    assert_eq!(log.put_segment(LogOffset(0), &raw, &digest(0, &raw), 1).unwrap(), Stored::AlreadySame);
    assert!(log.pieces().unwrap()[0].has_digest);
    // Torn and without digest: nobody relied on it.
    assert!(memory.lose(&format!("{name}.digest")) && memory.cut(name, 5000));
    assert_eq!(log.put_segment(LogOffset(0), &raw, &digest(0, &raw), 1).unwrap(), Stored::New);
    assert!(log.read_segment_into(LogOffset(0), 1).unwrap() == raw);
    // Torn and with digest: damage to be told, never silently written over.
    assert!(memory.cut(name, 5000));
    assert_eq!(log.read_segment_into(LogOffset(0), 2).unwrap_err().code, code::DAMAGED);
    assert_eq!(log.read_segment(LogOffset(0), &mut |_| {}).unwrap_err().code, code::DAMAGED);
    assert_eq!(memory.head(name).unwrap().unwrap().size, 5000);
}

#[test]
fn two_writers_of_one_segment() {
    for differing in [false, true] {
        for _ in 0..10 {
            let (memory, _) = fresh();
            let results: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..2)
                    .map(|writer| {
                        let memory = &memory;
                        scope.spawn(move || {
                            let raw = bytes(if differing { writer } else { 0 }, 1 << 20);
                            log(&open(memory)).put_segment(LogOffset(0), &raw, &digest(0, &raw), 1)
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let won = results.iter().position(Result::is_ok).unwrap() as u64;
            let stored = log(&open(&memory)).read_segment_into(LogOffset(0), 1).unwrap();
            if differing {
                let lost: Vec<_> = results.iter().filter_map(|one| one.as_ref().err()).collect();
                assert_eq!(lost.iter().map(|error| error.code).collect::<Vec<_>>(), [code::DIFFERS]);
                assert!(stored == bytes(won, 1 << 20));
            } else {
                assert!(results.iter().all(Result::is_ok), "{results:?}");
                assert!(stored == bytes(0, 1 << 20));
            }
            assert!(log(&open(&memory)).pieces().unwrap()[0].has_digest);
        }
    }
}

#[test]
fn tails_serve_until_their_segment_is_whole() {
    let (memory, repository) = fresh();
    let log = log(&repository);
    let raw = bytes(1, 1 << 20);
    for range in [0..100_000, 100_000..100_001, 100_001..900_000] {
        let part = &raw[range.clone()];
        assert_eq!(log.put_tail(&digest(range.start as u64, part), part).unwrap(), Stored::New);
        assert_eq!(log.put_tail(&digest(range.start as u64, part), part).unwrap(), Stored::AlreadySame);
    }
    let error = log.put_tail(&digest(0, &bytes(2, 100_000)), &bytes(2, 100_000)).unwrap_err();
    assert_eq!(error.code, code::DIFFERS);
    assert_eq!(log.put_tail(&digest(0, &raw[..5]), &raw[5..10]).unwrap_err().code, code::INVALID);
    assert_eq!(log.put_tail(&digest(SIZE - 5, &raw[..10]), &raw[..10]).unwrap_err().code, code::INVALID);
    let pieces = log.pieces().unwrap();
    assert_eq!(pieces.iter().map(|piece| piece.span.to.0).collect::<Vec<_>>(), [100_000, 100_001, 900_000]);
    assert_eq!(log.digest(&pieces[1]).unwrap(), digest(100_000, &raw[100_000..100_001]));
    let (found, end) = log.read_stored(LogOffset(77), 2).unwrap().unwrap();
    assert!(end == LogOffset(900_000) && found == raw[..900_000]);
    assert_eq!(log.remove_tails(LogOffset(0)).unwrap_err().code, code::MISSING, "nothing replaces them yet");
    log.put_segment(LogOffset(0), &raw, &digest(0, &raw), 1).unwrap();
    assert_eq!(log.pieces().unwrap().len(), 1);
    log.remove_tails(LogOffset(0)).unwrap();
    assert!(!memory.names().iter().any(|name| name.contains(".tail/")));
    // A plan made before is answered with the advice to plan again.
    assert_eq!(log.read_tail(&pieces[0]).unwrap_err().code, code::REPLACED);
    assert_eq!(log.digest(&pieces[0]).unwrap_err().code, code::REPLACED);
    assert!(log.read_stored(LogOffset(77), 2).unwrap().unwrap() == (raw, LogOffset(SIZE)));
    assert_eq!(log.read_stored(LogOffset(SIZE), 2).unwrap(), None);
}

#[test]
fn overlapping_tails_are_trimmed() {
    let (_, repository) = fresh();
    let log = log(&repository);
    let raw = bytes(1, 1000);
    for range in [0..600, 400..1000] {
        log.put_tail(&digest(range.start as u64, &raw[range.clone()]), &raw[range]).unwrap();
    }
    let pieces = log.pieces().unwrap();
    assert_eq!(pieces[1].span.from, LogOffset(600));
    assert_eq!(pieces[1].stored.from, LogOffset(400));
    let (found, bytes) = log.read_tail(&pieces[1]).unwrap();
    assert_eq!(found.span, pieces[1].stored);
    assert!(bytes == raw[600..]);
    assert!(log.read_stored(LogOffset(0), 1).unwrap().unwrap().0 == raw);
}

#[test]
fn pieces_can_be_listed_in_part() {
    let (_, repository) = fresh();
    let log = log(&repository);
    for number in 0..6 {
        let raw = bytes(number, 1 << 20);
        log.put_segment(LogOffset(number * SIZE), &raw, &digest(number * SIZE, &raw), 1).unwrap();
    }
    let tail = bytes(9, 10);
    log.put_tail(&digest(6 * SIZE, &tail), &tail).unwrap();
    log.put_history(b"x").unwrap();
    log.put_covered(LogOffset(6 * SIZE + 10), Micros(1)).unwrap();
    let starts = |from, to| {
        let pieces = log.pieces_between(LogOffset(from), LogOffset(to)).unwrap();
        pieces.iter().map(|piece| piece.span.from.0 / SIZE).collect::<Vec<_>>()
    };
    assert_eq!(starts(0, u64::MAX), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(starts(2 * SIZE + 5, 4 * SIZE + 1), [2, 3, 4]);
    assert_eq!(starts(2 * SIZE, 2 * SIZE + 1), [2]);
    assert_eq!(starts(6 * SIZE, u64::MAX), [6]);
    assert_eq!(log.pieces().unwrap().last().unwrap().kind, PieceKind::Tail);
    assert_eq!(repository.cluster("shop").unwrap().branches(1).unwrap(), [branch()]);
}

#[test]
fn marks_come_back() {
    let (memory, repository) = fresh();
    let log = log(&repository);
    assert_eq!(log.covered().unwrap(), None);
    log.put_covered(LogOffset(5), Micros(100)).unwrap();
    log.put_covered(LogOffset(5), Micros(100)).unwrap();
    log.put_covered(LogOffset(5), Micros(200)).unwrap();
    log.put_covered(LogOffset(7), Micros(150)).unwrap();
    log.put_covered(LogOffset(6), Micros(900)).unwrap();
    assert_eq!(log.covered().unwrap(), Some((LogOffset(7), Micros(150))), "the greatest position counts");
    assert_eq!(memory.names().iter().filter(|name| name.contains("/covered/")).count(), 1 + 1);
    let span = |from, to| Span { from: LogOffset(from), to: LogOffset(to) };
    log.put_gap(span(9, 12), "slot lost").unwrap();
    log.put_gap(span(9, 12), "again").unwrap();
    log.put_gap(span(3, 4), "dropped").unwrap();
    assert_eq!(log.put_gap(span(4, 4), "x").unwrap_err().code, code::INVALID);
    let gaps = log.gaps().unwrap();
    assert_eq!(
        gaps.iter().map(|(span, gap)| (span.from.0, &*gap.reason)).collect::<Vec<_>>(),
        [(3, "dropped"), (9, "slot lost")]
    );
    assert_eq!(log.history().unwrap(), None);
    assert_eq!(log.put_history(b"1\t0/5\tx\n").unwrap(), Stored::New);
    assert_eq!(log.put_history(b"1\t0/5\tx\n").unwrap(), Stored::AlreadySame);
    assert_eq!(log.put_history(b"other").unwrap_err().code, code::DIFFERS);
    assert_eq!(log.history().unwrap().unwrap(), b"1\t0/5\tx\n");
    assert!(log.put_other("../x", b"").is_err());
}

#[test]
fn frames_sealed_by_several_threads_keep_their_order() {
    let (_, repository) = fresh();
    let size = 8 * SIZE;
    let log = repository.cluster("shop").unwrap().log(1, branch(), size);
    for workers in [1, 2, 3, 20] {
        let start = LogOffset(size * workers as u64);
        let raw = bytes(workers as u64, 8 << 20);
        assert_eq!(log.put_segment(start, &raw, &digest(start.0, &raw), workers).unwrap(), Stored::New);
        assert!(log.read_segment_into(start, 3).unwrap() == raw, "{workers} workers");
        let mut writer = log.begin_segment(start).unwrap();
        writer.write(&raw).unwrap();
        assert_eq!(writer.finish(&digest(start.0, &raw)).unwrap(), Stored::AlreadySame);
    }
}
