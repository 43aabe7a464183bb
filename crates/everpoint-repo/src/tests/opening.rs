//! Creation, keys, identities.

use super::*;
use crate::code;

#[test]
fn creation_is_harmless_when_repeated_and_every_error_is_told_apart() {
    let memory = MemoryStore::new();
    let code_of = |memory: &MemoryStore, key: Option<&KeyText>| {
        Repository::open(store_of(memory), key).map(|_| "opened").unwrap_or_else(|error| error.code)
    };
    assert_eq!(code_of(&memory, None), code::NOT_FOUND);
    let first = Repository::create(store_of(&memory), Some(&key(1))).unwrap();
    let again = Repository::create(store_of(&memory), Some(&key(1))).unwrap();
    assert_eq!(first.id(), again.id());
    assert!(first.is_encrypted());
    assert_eq!(memory.names(), ["config", "keys/1"]);
    assert_eq!(code_of(&memory, None), code::KEY_MISSING);
    assert_eq!(code_of(&memory, Some(&key(2))), code::WRONG_KEY);
    assert_eq!(Repository::create(store_of(&memory), Some(&key(2))).unwrap_err().code, code::WRONG_KEY);
    let clear = MemoryStore::new();
    assert!(!Repository::create(store_of(&clear), None).unwrap().is_encrypted());
    assert_eq!(code_of(&clear, Some(&key(1))), code::NOT_ENCRYPTED);
    let newer = MemoryStore::new();
    let config = String::from_utf8(memory.get("config").unwrap()).unwrap();
    newer
        .put_new("config", config.replace("\"everpoint_format\": 1", "\"everpoint_format\": 99").as_bytes())
        .unwrap();
    assert_eq!(code_of(&newer, Some(&key(1))), code::NEWER_FORMAT);
    memory.lose("keys/1");
    assert_eq!(code_of(&memory, Some(&key(1))), code::INCOMPLETE);
}

#[test]
fn lost_key_slots_of_a_repository_with_data_are_never_replaced() {
    let (memory, repository) = fresh();
    repository.cluster("shop").unwrap().identity_for(7, 150_001, SIZE, false).unwrap();
    memory.lose("keys/1");
    let error = Repository::create(store_of(&memory), Some(&key(1))).unwrap_err();
    assert_eq!(error.code, code::DAMAGED);
    assert!(memory.head("keys/1").unwrap().is_none());
}

#[test]
fn a_lost_configuration_of_a_repository_with_data_is_never_replaced() {
    for key in [None, Some(&key(1))] {
        let memory = MemoryStore::new();
        let repository = Repository::create(store_of(&memory), key).unwrap();
        repository.cluster("shop").unwrap().identity_for(7, 150_001, SIZE, false).unwrap();
        memory.lose("config");
        let names = memory.names();
        for refused in [Repository::create(store_of(&memory), key), Repository::open(store_of(&memory), key)]
        {
            let error = refused.unwrap_err();
            assert_eq!(error.code, code::DAMAGED);
            assert!(error.to_string().contains("shop"), "{error}");
        }
        assert_eq!(memory.names(), names);
    }
}

#[test]
fn an_interrupted_creation_is_completed() {
    at_every_step(
        &MemoryStore::new(),
        &HONEST,
        |store| Repository::create(store, Some(&key(1))).is_ok(),
        |memory, acknowledged, what| {
            if acknowledged {
                open(memory);
            }
            let repository = Repository::create(store_of(memory), Some(&key(1))).expect(what);
            repository.cluster("shop").unwrap().identity_for(7, 150_001, SIZE, false).unwrap();
            assert_eq!(open(memory).clusters().unwrap(), ["shop"], "{what}");
        },
    );
}

#[test]
fn two_who_create_at_once_agree() {
    for _ in 0..20 {
        let memory = MemoryStore::new();
        let ids: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| Repository::create(store_of(&memory), Some(&key(1))).unwrap()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        // All have the data key that is stored: what one writes the others read.
        for (number, repository) in ids.iter().enumerate() {
            repository.cluster(&format!("c{number}")).unwrap().identity_for(7, 1, SIZE, false).unwrap();
        }
        for number in 0..4 {
            let cluster = open(&memory).cluster(&format!("c{number}")).unwrap();
            assert_eq!(cluster.identities().unwrap().len(), 1);
        }
    }
}

#[test]
fn rotation_keeps_old_data_readable_and_takes_a_fresh_key_for_new() {
    let (memory, repository) = fresh();
    log(&repository).put_history(b"old").unwrap();
    assert_eq!(repository.rotate_key(&key(9), &key(2)).unwrap_err().code, code::WRONG_KEY);
    assert_eq!(repository.rotate_key(&key(1), &key(2)).unwrap(), 2);
    let rotated = Repository::open(store_of(&memory), Some(&key(2))).unwrap();
    assert_eq!(log(&rotated).history().unwrap().unwrap(), b"old");
    log(&rotated).put_other("x.backup", b"new").unwrap();
    // The old key still opens the repository, but not what is sealed with the fresh data key.
    let old = open(&memory);
    assert_eq!(log(&old).history().unwrap().unwrap(), b"old");
    assert_eq!(log(&old).other("x.backup").unwrap_err().code, code::WRONG_KEY);
    assert_eq!(
        old.rotate_key(&key(1), &key(3)).unwrap_err().code,
        code::WRONG_KEY,
        "not the newest slot's key"
    );
    assert_eq!(rotated.retire_slot(2).unwrap_err().code, code::INVALID);
    assert_eq!(rotated.retire_slot(5).unwrap_err().code, code::INVALID);
    rotated.retire_slot(1).unwrap();
    assert_eq!(Repository::open(store_of(&memory), Some(&key(1))).unwrap_err().code, code::WRONG_KEY);
    assert_eq!(rotated.slots().unwrap(), [2]);
    assert_eq!(rotated.rotate_key(&key(2), &key(3)).unwrap(), 3);
}

#[test]
fn an_interrupted_rotation_loses_no_key() {
    let (memory, repository) = fresh();
    log(&repository).put_history(b"old").unwrap();
    at_every_step(
        &memory,
        &HONEST,
        |store| {
            let repository = Repository::open(store, Some(&key(1)))?;
            repository.rotate_key(&key(1), &key(2))
        },
        |memory, acknowledged, what| {
            assert_eq!(log(&open(memory)).history().unwrap().unwrap(), b"old", "{what}");
            let rotated = Repository::open(store_of(memory), Some(&key(2)));
            assert!(acknowledged.is_err() || rotated.is_ok(), "{what}");
            if let Ok(rotated) = rotated {
                assert_eq!(log(&rotated).history().unwrap().unwrap(), b"old", "{what}");
            }
        },
    );
}

#[test]
fn a_server_keeps_its_identity_and_a_stranger_is_refused() {
    let (_, repository) = fresh();
    let cluster = repository.cluster("shop").unwrap();
    let number =
        |system, version, size, new| cluster.identity_for(system, version, size, new).map(|found| found.0);
    assert_eq!(number(7, 150_001, SIZE, false).unwrap(), 1);
    assert_eq!(number(7, 150_018, SIZE, false).unwrap(), 1, "minor update");
    let error = number(8, 150_018, SIZE, false).unwrap_err();
    assert_eq!(error.code, code::WRONG_CLUSTER);
    assert!(error.to_string().contains('7') && error.to_string().contains('8'), "{error}");
    assert_eq!(cluster.identities().unwrap().len(), 1);
    assert_eq!(number(7, 160_001, SIZE, false).unwrap(), 2, "major version");
    assert_eq!(number(7, 160_001, 2 * SIZE, false).unwrap(), 3, "segment size");
    assert_eq!(number(8, 160_001, SIZE, true).unwrap(), 4, "wanted");
    assert_eq!(number(7, 150_002, SIZE, false).unwrap(), 1, "known ones keep their number");
    assert!(repository.cluster("../x").is_err());
}

#[test]
fn an_object_moved_to_another_name_is_damaged() {
    let (memory, repository) = fresh();
    log(&repository).put_other("a.backup", b"a").unwrap();
    let base = "clusters/shop/log/1/00000001-0000000000000000/other";
    let moved = memory.get(&format!("{base}/a.backup")).unwrap();
    memory.put_new(&format!("{base}/b.backup"), &moved).unwrap();
    assert_eq!(log(&repository).other("b.backup").unwrap_err().code, code::DAMAGED);
    assert_eq!(log(&repository).other("c.backup").unwrap(), None);
}
