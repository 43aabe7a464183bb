use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use super::*;
use crate::conformance;

fn store() -> (tempfile::TempDir, LocalStore) {
    let scratch = tempfile::tempdir().unwrap();
    let store = LocalStore::open(scratch.path()).unwrap();
    (scratch, store)
}

fn unfinished(scratch: &tempfile::TempDir) -> usize {
    std::fs::read_dir(scratch.path().join(UNFINISHED)).map_or(0, Iterator::count)
}

#[test]
fn passes_the_conformance_suite() {
    let scratch = tempfile::tempdir().unwrap();
    let mut number = 0;
    let result = conformance::run(&mut || {
        number += 1;
        Arc::new(LocalStore::create(&scratch.path().join(number.to_string())).unwrap())
    });
    assert_eq!(result, Ok(()));
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let (scratch, store) = store();
    let mut writer = store.create("a/b").unwrap();
    writer.write(b"half").unwrap();
    assert_eq!(unfinished(&scratch), 1);
    drop(writer);
    assert_eq!(unfinished(&scratch), 0);
    assert!(store.head("a/b").unwrap().is_none());
}

#[test]
fn leftovers_are_swept_when_old_and_not_in_use() {
    let (scratch, store) = store();
    let kept = store.create("kept").unwrap();
    let place = scratch.path().join(UNFINISHED);
    let in_use = std::fs::read_dir(&place).unwrap().next().unwrap().unwrap().path();
    let (old, young) = (place.join("old"), place.join("young"));
    std::fs::write(&old, b"x").unwrap();
    std::fs::write(&young, b"x").unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(25 * 3600);
    for path in [&old, &in_use] {
        File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    }
    LocalStore::open(scratch.path()).unwrap().put_new("other", b"").unwrap();
    assert!(!old.exists(), "a day old");
    assert!(young.exists(), "may belong to a running writer");
    assert!(in_use.exists(), "locked by a running writer");
    kept.commit().unwrap();
    assert!(store.head("kept").unwrap().is_some());
}

#[test]
fn the_fallback_by_link_does_not_replace_either() {
    let (_scratch, store) = store();
    store.put_new("taken", b"first").unwrap();
    let mut writer = writer::Writer::begin(store.clone(), "taken").unwrap();
    writer.write(b"second").unwrap();
    let root = store.shared.directories.durable("").unwrap();
    let path = writer.unfinished().to_owned();
    assert_eq!(writer::link_new(&store, &path, &root, "taken"), Err(Errno::EXIST));
    assert_eq!(store.get("taken").unwrap(), b"first");
    assert_eq!(writer::link_new(&store, &path, &root, "free"), Ok(()));
    assert_eq!(store.get("free").unwrap(), b"second");
}

#[test]
fn foreign_files_are_no_objects() {
    let (scratch, store) = store();
    std::fs::create_dir(scratch.path().join(LOST_FOUND)).unwrap();
    std::fs::set_permissions(scratch.path().join(LOST_FOUND), PermissionsExt::from_mode(0o0)).unwrap();
    std::fs::write(scratch.path().join("note~"), b"x").unwrap();
    std::fs::create_dir(scratch.path().join("empty")).unwrap();
    store.put_new("a", b"x").unwrap();
    let mut names = Vec::new();
    store
        .list("", None, &mut |info| {
            names.push(info.name);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(names, ["a"]);
    assert_eq!(store.list_children("").unwrap(), Vec::<String>::new());
    assert_eq!(store.put_new("lost+found/x", b"").unwrap_err().kind, StoreErrorKind::BadName);
}

#[test]
fn directories_vanish_with_their_last_object_even_while_others_write() {
    let (scratch, store) = store();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = LocalStore::open(scratch.path()).unwrap();
            scope.spawn(move || {
                for round in 0..200 {
                    let name = format!("d/e/{thread}-{round}");
                    store.put_new(&name, b"x").unwrap();
                    assert!(store.head(&name).unwrap().is_some());
                    store.delete(&name).unwrap();
                }
            });
        }
    });
    assert!(!scratch.path().join("d").exists());
    store.put_new("d/e/last", b"x").unwrap();
    assert_eq!(store.get("d/e/last").unwrap(), b"x");
}

#[test]
fn one_of_many_writers_of_a_name_wins() {
    let (scratch, store) = store();
    let wins: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8u8)
            .map(|thread| {
                let store = LocalStore::open(scratch.path()).unwrap();
                scope.spawn(move || match store.put_new("x/y", &[thread]) {
                    Ok(()) => 1,
                    Err(error) => {
                        assert_eq!(error.kind, StoreErrorKind::AlreadyExists);
                        0
                    }
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(wins, 1);
    assert_eq!(store.get("x/y").unwrap().len(), 1);
}

#[test]
fn errors_tell_their_kind() {
    for (errno, kind) in [
        (Errno::NOSPC, StoreErrorKind::Full),
        (Errno::DQUOT, StoreErrorKind::Full),
        (Errno::ACCESS, StoreErrorKind::Denied),
        (Errno::ROFS, StoreErrorKind::Denied),
        (Errno::STALE, StoreErrorKind::Unavailable),
        (Errno::IO, StoreErrorKind::Other),
    ] {
        let error = fail("write", "x", errno);
        assert_eq!(error.kind, kind);
        assert!(error.cause.is_some());
        assert_eq!(error.hint().is_some(), kind != StoreErrorKind::Other);
    }
}

#[test]
fn free_space_is_known() {
    let (_scratch, store) = store();
    let space = store.space().unwrap().unwrap();
    assert!(space.free > 0 && space.free <= space.total);
}

const LACKING: [Errno; 5] = [Errno::NOTSUP, Errno::NOSYS, Errno::INVAL, Errno::PERM, Errno::NOLCK];

/// What a file system answers that lacks some of the calls: `N` picks one of [`LACKING`].
fn lacking<const N: usize>(sync: bool, rename: bool, link: bool, lock: bool) -> calls::Calls {
    let mut calls = calls::Calls::SYSTEM;
    if sync {
        calls.sync_directory = |_| Err(LACKING[N]);
    }
    if rename {
        calls.rename_new = |_, _, _, _| Err(LACKING[N]);
    }
    if link {
        calls.link = |_, _, _, _| Err(LACKING[N]);
    }
    if lock {
        calls.lock = |_, _| Err(LACKING[N]);
    }
    calls
}

#[test]
fn file_systems_that_lack_calls_are_written_to_safely() {
    fn passes(which: &str, calls: calls::Calls) {
        let scratch = tempfile::tempdir().unwrap();
        let mut number = 0;
        let result = conformance::run(&mut || {
            number += 1;
            let place = scratch.path().join(number.to_string());
            std::fs::create_dir(&place).unwrap();
            Arc::new(LocalStore::open_with(&place, calls).unwrap())
        });
        assert_eq!(result, Ok(()), "{which}");
    }
    fn each<const N: usize>() {
        for (rename, link, lock) in [(true, false, true), (true, true, false), (false, false, true)] {
            let scratch = tempfile::tempdir().unwrap();
            let store =
                LocalStore::open_with(scratch.path(), lacking::<N>(true, rename, link, lock)).unwrap();
            store.put_new("a/b", b"first").unwrap();
            assert_eq!(store.put_new("a/b", b"second").unwrap_err().kind, StoreErrorKind::AlreadyExists);
            assert_eq!(store.get("a/b").unwrap(), b"first");
            store.delete("a/b").unwrap();
        }
    }
    passes("locks alone", lacking::<0>(true, true, true, false));
    each::<0>();
    each::<1>();
    each::<2>();
    each::<3>();
    each::<4>();
}

#[test]
fn one_of_many_writers_of_a_name_wins_under_a_lock_too() {
    let scratch = tempfile::tempdir().unwrap();
    let wins: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8u8)
            .map(|thread| {
                let store =
                    LocalStore::open_with(scratch.path(), lacking::<0>(false, true, true, false)).unwrap();
                scope.spawn(move || {
                    let wins =
                        (0..20).filter(|round| store.put_new(&format!("x/{round}"), &[thread]).is_ok());
                    wins.count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(wins, 20);
}

#[test]
fn a_file_system_that_lacks_all_is_named_as_what_it_is() {
    let scratch = tempfile::tempdir().unwrap();
    let store = LocalStore::open_with(scratch.path(), lacking::<2>(true, true, true, true)).unwrap();
    let error = store.put_new("a", b"x").unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unsupported);
    let cause = error.cause.as_ref().unwrap().to_string();
    assert!(cause.contains("hard links") && cause.contains("locks"), "{cause}");
    assert!(error.hint().is_some_and(|hint| hint.contains("another file system")));
    assert!(store.head("a").unwrap().is_none());
    assert_eq!(unfinished(&scratch), 1, "the lock alone stays");
}

#[test]
fn what_root_makes_belongs_to_the_repository() {
    use std::os::unix::fs::{MetadataExt as _, chown};

    if !rustix::process::geteuid().is_root() {
        return;
    }
    for (of_files, of_directories) in [(0o600, 0o700), (0o640, 0o750), (0o660, 0o770)] {
        // A mount point of root's, in which a service has made its repository.
        let scratch = tempfile::tempdir().unwrap();
        let first = scratch.path().join("config");
        std::fs::write(&first, "{}").unwrap();
        chown(&first, Some(70000), Some(70001)).unwrap();
        std::fs::set_permissions(&first, PermissionsExt::from_mode(of_files)).unwrap();
        let store = LocalStore::open(scratch.path()).unwrap();
        store.put_new("a/b/c", b"x").unwrap();
        store.put_new("d", b"x").unwrap();
        for (path, mode) in [
            ("a", of_directories),
            ("a/b", of_directories),
            ("a/b/c", of_files),
            ("d", of_files),
            (UNFINISHED, of_directories),
        ] {
            let found = std::fs::metadata(scratch.path().join(path)).unwrap();
            assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (70000, 70001, mode), "{path}");
        }
    }
    // A repository that root makes in a directory of the service's.
    let scratch = tempfile::tempdir().unwrap();
    chown(scratch.path(), Some(70000), Some(70001)).unwrap();
    LocalStore::create(&scratch.path().join("a/b")).unwrap().put_new("config", b"{}").unwrap();
    for path in ["a", "a/b", "a/b/config", "a/b/unfinished~"] {
        assert_eq!(std::fs::metadata(scratch.path().join(path)).unwrap().uid(), 70000, "{path}");
    }
}

#[test]
fn a_directory_that_a_killed_root_has_left_to_itself_is_given_away_by_the_next() {
    use std::os::unix::fs::{MetadataExt as _, chown};

    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (scratch, store) = store();
    store.put_new("config", b"x").unwrap();
    chown(scratch.path().join("config"), Some(70000), Some(70001)).unwrap();
    std::fs::create_dir(scratch.path().join("a")).unwrap();
    store.put_new("a/x", b"x").unwrap();
    for path in ["a", "a/x"] {
        assert_eq!(std::fs::metadata(scratch.path().join(path)).unwrap().uid(), 70000, "{path}");
    }
}

/// What was written on would be seen by nobody, and the log of it be let go by the server.
#[test]
fn nothing_is_written_to_a_directory_that_is_no_more_where_it_was() {
    let scratch = tempfile::tempdir().unwrap();
    let (place, aside) = (scratch.path().join("repository"), scratch.path().join("aside"));
    let store = LocalStore::create(&place).unwrap();
    store.put_new("a", b"x").unwrap();
    std::fs::rename(&place, &aside).unwrap();
    let refused = |what: &str| {
        let error = store.put_new("b", b"x").unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unavailable);
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(what), "{cause}");
    };
    refused("moved away, or removed");
    std::fs::create_dir(&place).unwrap();
    refused("another directory");
    std::fs::remove_dir(&place).unwrap();
    // A link that leads there is as good.
    std::os::unix::fs::symlink(&aside, &place).unwrap();
    store.put_new("b", b"x").unwrap();
}
