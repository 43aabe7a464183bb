//! Backups and packs.

use everpoint_format::records::{Attempt, Damage, Failure};

use super::*;
use crate::code;

fn cluster(repository: &Repository) -> ClusterRepo {
    repository.cluster("shop").unwrap()
}

#[test]
fn a_backup_comes_back() {
    let (memory, repository) = fresh();
    let shop = cluster(&repository);
    take_backup(&shop, "one").unwrap();
    check_backup(&cluster(&open(&memory)), "one");
    let listing = shop.backups().unwrap();
    assert_eq!(listing.len(), 1);
    assert_eq!(listing[0].record.as_ref().unwrap().label, "one");
    assert!(!listing[0].running && listing[0].failure.is_none() && listing[0].unreadable.is_none());
    assert_eq!(shop.packs().unwrap().len(), FILES);
    assert_eq!(shop.orphan_packs().unwrap(), []);
    assert_eq!(take_backup(&shop, "one").unwrap_err().code, code::EXISTS);
    assert!(take_backup(&shop, "../x").is_err());
    assert_eq!(shop.open_manifest("two").err().unwrap().code, code::MISSING);
}

#[test]
fn attempts_failures_and_damage_are_listed() {
    let (_, repository) = fresh();
    let shop = cluster(&repository);
    take_backup(&shop, "a-good").unwrap();
    let damage = |object: &str| Damage { at: 1, object: object.to_owned(), message: "flipped".to_owned() };
    shop.mark_damage("a-good", &damage("x")).unwrap();
    shop.mark_damage("a-good", &damage("y")).unwrap();
    shop.begin_backup("b-failed", &Attempt::new("b-failed", "full", 5, 1)).unwrap();
    shop.fail_backup("b-failed", &Failure::new(6, "store.full", "no space")).unwrap();
    shop.fail_backup("b-failed", &Failure::new(7, "other", "other")).unwrap();
    shop.begin_backup("c-old", &Attempt::new("c-old", "full", 8, 1)).unwrap();
    shop.begin_backup("d-new", &Attempt::new("d-new", "full", 9, 1)).unwrap();
    let lease = repository.lease(&shop.backup_lease_id(), "me", std::time::Duration::from_secs(9)).unwrap();
    let running =
        |shop: &ClusterRepo| shop.backups().unwrap().iter().map(|one| one.running).collect::<Vec<_>>();
    assert_eq!(running(&shop), [false, false, false, true]);
    drop(lease);
    assert_eq!(running(&shop), [false; 4]);
    let all = shop.backups().unwrap();
    assert_eq!(all[0].damage.iter().map(|found| &*found.object).collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(all[1].failure.as_ref().unwrap().message, "no space", "the first reason stays");
    assert!(all[2].record.is_none() && all[2].failure.is_none());
}

#[test]
fn a_damaged_map_does_not_hide_the_other_backups() {
    let (memory, repository) = fresh();
    let shop = cluster(&repository);
    take_backup(&shop, "one").unwrap();
    take_backup(&shop, "two").unwrap();
    assert!(memory.flip("clusters/shop/backups/one/manifest", 100));
    let all = shop.backups().unwrap();
    assert!(all[0].record.is_none() && all[0].unreadable.is_some());
    assert!(all[1].record.is_some() && all[1].unreadable.is_none());
    assert_eq!(shop.orphan_packs().unwrap_err().code, code::DAMAGED, "what it names is not known");
}

#[test]
fn a_map_that_names_a_missing_pack_is_not_written() {
    let (memory, repository) = fresh();
    let shop = cluster(&repository);
    let mut writer = shop.write_backup("one", &record("one")).unwrap();
    let mut pack = shop.pack_writer().unwrap();
    let frame = pack.add(Codec::Lz4, b"abc", &[]).unwrap();
    let id = pack.id();
    drop(pack);
    let extents = vec![Extent::Stored { length: 3, pack: id, frame, skip: 0 }];
    let entry = FileEntry {
        path: "a".to_owned(),
        kind: FileKind::Plain,
        mode: 0,
        modified: 0,
        size: 3,
        extents,
        page_hashes: None,
        content_hash: Some([0; 16]),
        damaged: Vec::new(),
    };
    writer.entry(entry, &[]).unwrap();
    assert_eq!(writer.finish().unwrap_err().code, code::DAMAGED);
    assert!(memory.head("clusters/shop/backups/one/manifest").unwrap().is_none());
    assert_eq!(shop.packs().unwrap(), [], "a dropped pack leaves nothing");
}

#[test]
fn what_an_interrupted_backup_left_is_found_by_content() {
    let (_, repository) = fresh();
    let shop = cluster(&repository);
    take_backup(&shop, "one").unwrap();
    let mut pack = shop.pack_writer().unwrap();
    let runs: Vec<PackRunInput> = (0..20_u8)
        .map(|i| PackRunInput { skip: 0, length: 200_000, hash: [i; 16], pages: i % 2 == 0 })
        .collect();
    let frames: Vec<_> = runs
        .iter()
        .map(|run| pack.add(Codec::Zstd(1), &bytes(run.hash[0].into(), 200_000), &[*run]).unwrap())
        .collect();
    let id = pack.finish().unwrap();
    assert_eq!(shop.orphan_packs().unwrap(), [id]);
    let reader = shop.open_pack(id).unwrap();
    let index = reader.index().unwrap();
    let found: Vec<_> = index.iter().map(|run| (run.frame, run.hash, run.length, run.pages)).collect();
    let wanted: Vec<_> = frames.iter().zip(&runs).map(|(f, r)| (*f, r.hash, r.length, r.pages)).collect();
    assert_eq!(found, wanted);
    let mut raw = Vec::new();
    reader.read_frame(&frames[7], &mut raw).unwrap();
    assert!(raw == bytes(7, 200_000));
    let wrong = everpoint_format::seal::FrameRef { number: 8, ..frames[7] };
    assert_eq!(reader.read_frame(&wrong, &mut raw).unwrap_err().code, code::DAMAGED);
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_pack_is_noticed() {
    let (memory, repository) = fresh();
    let shop = cluster(&repository);
    let mut pack = shop.pack_writer().unwrap();
    let frame = pack.add(Codec::Zstd(1), &bytes(1, 300), &[]).unwrap();
    let id = pack.finish().unwrap();
    let name = memory.names().into_iter().find(|name| name.contains("/packs/")).unwrap();
    let size = usize::try_from(memory.head(&name).unwrap().unwrap().size).unwrap();
    let read = |memory: &MemoryStore| {
        let reader = cluster(&open(memory)).open_pack(id)?;
        reader.read_frame(&frame, &mut Vec::new())?;
        reader.index()
    };
    read(&memory).unwrap();
    for at in 0..size {
        let flipped = memory.copy();
        assert!(flipped.flip(&name, at));
        let error = read(&flipped).unwrap_err();
        assert!(
            matches!(error.code, code::DAMAGED | code::NEWER_FORMAT | code::WRONG_KEY),
            "byte {at}: {error}"
        );
        let cut = memory.copy();
        assert!(cut.cut(&name, at));
        assert_eq!(read(&cut).unwrap_err().code, code::DAMAGED, "cut at {at}");
    }
    memory.lose(&name);
    assert_eq!(shop.open_pack(id).err().unwrap().code, code::DAMAGED);
}

#[test]
fn page_hashes_are_read_at_any_place() {
    let (_, repository) = fresh();
    let shop = cluster(&repository);
    let hashes: Vec<u64> = (0..300_000).map(|number| number * 31).collect();
    let mut writer = shop.write_backup("one", &record("one")).unwrap();
    for (number, part) in hashes.chunks(70_001).enumerate() {
        let size = part.len() as u64 * 8192;
        let entry = FileEntry {
            path: format!("base/{number}"),
            kind: FileKind::Pages,
            mode: 0,
            modified: 0,
            size,
            extents: vec![Extent::Zero { length: size }],
            page_hashes: None,
            content_hash: None,
            damaged: Vec::new(),
        };
        writer.entry(entry, part).unwrap();
    }
    writer.finish().unwrap();
    let mut manifest = shop.open_manifest("one").unwrap();
    let pages = shop.open_pages("one").unwrap();
    while let Some(entry) = manifest.next_entry().unwrap() {
        let first = entry.page_hashes.unwrap();
        let found = pages.read(first, entry.size / 8192).unwrap();
        assert_eq!(found.first(), hashes.get(usize::try_from(first).unwrap()));
        assert_eq!(found.len() as u64, entry.size / 8192);
    }
    for (first, count) in
        [(0, 0), (0, 1), (131_071, 2), (131_072, 131_072), (5, 299_995), (299_999, 1), (300_000, 0)]
    {
        let range = usize::try_from(first).unwrap()..usize::try_from(first + count).unwrap();
        assert!(pages.read(first, count).unwrap() == hashes[range], "{first} {count}");
    }
    assert_eq!(pages.read(299_999, 2).unwrap_err().code, code::DAMAGED);
    assert_eq!(pages.read(u64::MAX, 2).unwrap_err().code, code::DAMAGED);
}
