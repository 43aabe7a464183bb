//! The suite that every store and wrapper passes.
//!
//! A test calls [`run`] with a function that makes an empty store. Nothing here panics: a broken promise comes back as a
//! sentence.

mod listing;

use std::ops::ControlFlow;
use std::sync::Arc;

use self::listing::{children, order, start_after};
use crate::{ObjectInfo, Store, StoreError, StoreErrorKind};

/// What a check finds wrong.
pub type Finding = Result<(), String>;

type Check = fn(&dyn Store) -> Finding;

/// Runs all checks, each on a store of its own.
///
/// # Errors
/// The first broken promise, in words.
pub fn run(make: &mut dyn FnMut() -> Arc<dyn Store>) -> Finding {
    let checks: [(&str, Check); 9] = [
        ("round trip", round_trip),
        ("streams", streams),
        ("create only", create_only),
        ("absent objects", absent),
        ("names", names),
        ("order of listings", order),
        ("listings go on", start_after),
        ("children", children),
        ("deletion", deletion),
    ];
    for (name, check) in checks {
        let store = make();
        check(&*store).map_err(|finding| format!("{name}: {finding}"))?;
    }
    race(&make()).map_err(|finding| format!("race: {finding}"))
}

fn ensure(holds: bool, otherwise: impl Into<String>) -> Finding {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

fn ok<T>(what: &str, result: Result<T, StoreError>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}: {:?}", error.cause))
}

fn fails<T>(what: &str, result: Result<T, StoreError>, kind: StoreErrorKind) -> Finding {
    match result {
        Ok(_) => Err(format!("{what}: no error, though {kind:?} was due")),
        Err(error) => {
            ensure(error.kind == kind, format!("{what}: {:?}, though {kind:?} was due", error.kind))
        }
    }
}

fn listed(store: &dyn Store, prefix: &str, after: Option<&str>) -> Result<Vec<ObjectInfo>, String> {
    let mut found = Vec::new();
    let visit = &mut |info| {
        found.push(info);
        ControlFlow::Continue(())
    };
    ok("list", store.list(prefix, after, visit))?;
    Ok(found)
}

fn names_of(store: &dyn Store, prefix: &str, after: Option<&str>) -> Result<Vec<String>, String> {
    Ok(listed(store, prefix, after)?.into_iter().map(|info| info.name).collect())
}

fn round_trip(store: &dyn Store) -> Finding {
    for (name, size) in [("empty", 0_usize), ("one", 1), ("deep/er/large", 3_000_001)] {
        let bytes: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap_or_default()).collect();
        ok("put_new", store.put_new(name, &bytes))?;
        ensure(ok("get", store.get(name))? == bytes, format!("{name}: other bytes came back"))?;
        let head = ok("head", store.head(name))?.ok_or("head does not see a new object")?;
        ensure(head.size == size as u64 && head.name == name, format!("head of {name} is wrong: {head:?}"))?;
        ensure(head.modified_micros > 0, "an object has no time")?;
        let reader = ok("open", store.open(name))?;
        ensure(reader.size() == size as u64, "an open object has another size")?;
        let mut middle = vec![0; size / 3];
        ok("read_at", reader.read_at(size as u64 / 3, &mut middle))?;
        ensure(bytes.get(size / 3..size / 3 * 2) == Some(&*middle), "read_at returned other bytes")?;
        ok("read_at of nothing at the end", reader.read_at(size as u64, &mut []))?;
        fails("read_at beyond the end", reader.read_at(size as u64, &mut [0]), StoreErrorKind::Other)?;
        let mut long = vec![0; size + 1];
        fails("read_at over the end", reader.read_at(0, &mut long), StoreErrorKind::Other)?;
    }
    ok("space", store.space())?;
    ensure(!store.describe().is_empty(), "a store must say where it is")
}

fn streams(store: &dyn Store) -> Finding {
    let mut writer = ok("create", store.create("a/stream"))?;
    for _ in 0..100 {
        ok("write", writer.write(&[7; 12_345]))?;
    }
    ensure(ok("head", store.head("a/stream"))?.is_none(), "an object is visible before its commit")?;
    ensure(names_of(store, "", None)?.is_empty(), "an object is listed before its commit")?;
    ok("commit", writer.commit())?;
    let size = ok("head", store.head("a/stream"))?.map(|info| info.size);
    ensure(size == Some(1_234_500), format!("a stream has size {size:?}"))?;
    let mut dropped = ok("create", store.create("a/dropped"))?;
    ok("write", dropped.write(b"x"))?;
    drop(dropped);
    ensure(names_of(store, "", None)? == ["a/stream"], "a dropped writer left an object")
}

fn create_only(store: &dyn Store) -> Finding {
    ok("put_new", store.put_new("a", b"first"))?;
    fails("put_new of a taken name", store.put_new("a", b"second"), StoreErrorKind::AlreadyExists)?;
    let late = store.create("a").and_then(|mut writer| {
        writer.write(b"second")?;
        writer.commit()
    });
    fails("commit of a taken name", late, StoreErrorKind::AlreadyExists)?;
    let mut slow = ok("create", store.create("b"))?;
    ok("write", slow.write(b"slow"))?;
    ok("put_new", store.put_new("b", b"quick"))?;
    fails("commit of a name taken meanwhile", slow.commit(), StoreErrorKind::AlreadyExists)?;
    ensure(ok("get", store.get("a"))? == b"first", "an object was overwritten")?;
    ensure(ok("get", store.get("b"))? == b"quick", "an object was overwritten by a commit")
}

fn absent(store: &dyn Store) -> Finding {
    ok("put_new", store.put_new("a/b", b"x"))?;
    for name in ["c", "a", "a/bb", "a/b.c"] {
        fails("get of an absent object", store.get(name), StoreErrorKind::NotFound)?;
        fails("open of an absent object", store.open(name), StoreErrorKind::NotFound)?;
        ensure(ok("head", store.head(name))?.is_none(), format!("head sees {name}, which is not there"))?;
    }
    ensure(names_of(store, "none/", None)?.is_empty(), "an absent prefix lists something")?;
    ensure(ok("list_children", store.list_children("none/"))?.is_empty(), "an absent prefix has children")
}

fn names(store: &dyn Store) -> Finding {
    for name in
        ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a b", "a\0", "ä", "a~", "a\\b", &"x".repeat(1000)]
    {
        fails("put_new of a bad name", store.put_new(name, b""), StoreErrorKind::BadName)?;
        fails("create of a bad name", store.create(name).map(|_| ()), StoreErrorKind::BadName)?;
        fails("get of a bad name", store.get(name), StoreErrorKind::BadName)?;
        fails("delete of a bad name", store.delete(name), StoreErrorKind::BadName)?;
    }
    let ignore = &mut |_| ControlFlow::Continue(());
    fails("list of a prefix without a slash", store.list("a", None, ignore), StoreErrorKind::BadName)?;
    fails("list of a bad prefix", store.list("../", None, ignore), StoreErrorKind::BadName)?;
    for name in ["A-Z_a.z=0+9", "...", ".a/..b", &"y".repeat(200)] {
        ok("put_new of a good name", store.put_new(name, b""))?;
    }
    Ok(())
}

fn deletion(store: &dyn Store) -> Finding {
    ok("put_new", store.put_new("d/e/f", b"x"))?;
    let reader = ok("open", store.open("d/e/f"))?;
    ok("delete", store.delete("d/e/f"))?;
    drop(reader);
    ok("delete of an absent object", store.delete("d/e/f"))?;
    ok("delete of an absent object", store.delete("never/there"))?;
    ensure(ok("head", store.head("d/e/f"))?.is_none(), "a deleted object is still there")?;
    ensure(names_of(store, "", None)?.is_empty(), "a deleted object is still listed")?;
    ensure(ok("list_children", store.list_children(""))?.is_empty(), "an empty directory is a child")?;
    ok("put_new of a name that was deleted", store.put_new("d/e/f", b"y"))?;
    ensure(ok("get", store.get("d/e/f"))? == b"y", "a new object has the bytes of a deleted one")
}

fn race(store: &Arc<dyn Store>) -> Finding {
    for round in 0..20 {
        let name = format!("race/{round}");
        let won: Vec<u8> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4_u8)
                .map(|writer| {
                    let (store, name) = (Arc::clone(store), name.clone());
                    scope.spawn(move || store.put_new(&name, &[writer; 1000]).is_ok().then_some(writer))
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect()
        });
        let [winner] = *won else {
            return Err(format!("{} of 4 writers of one name were told that they won", won.len()));
        };
        ensure(ok("get", store.get(&name))? == [winner; 1000], "the object is not that of the winner")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryStore, ObjectReader, ObjectWriter, Space};

    #[test]
    fn the_memory_store_passes() {
        assert_eq!(run(&mut || Arc::new(MemoryStore::new())), Ok(()));
    }

    /// Overwrites: the suite must notice.
    struct Overwriting(MemoryStore);

    impl Store for Overwriting {
        fn describe(&self) -> String {
            self.0.describe()
        }
        fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, StoreError> {
            self.0.create(name)
        }
        fn put_new(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
            self.0.delete(name)?;
            self.0.put_new(name, bytes)
        }
        fn open(&self, name: &str) -> Result<Box<dyn ObjectReader>, StoreError> {
            self.0.open(name)
        }
        fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
            self.0.get(name)
        }
        fn head(&self, name: &str) -> Result<Option<ObjectInfo>, StoreError> {
            self.0.head(name)
        }
        fn list(
            &self,
            prefix: &str,
            start_after: Option<&str>,
            visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
        ) -> Result<(), StoreError> {
            self.0.list(prefix, start_after, visit)
        }
        fn list_children(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
            self.0.list_children(prefix)
        }
        fn delete(&self, name: &str) -> Result<(), StoreError> {
            self.0.delete(name)
        }
        fn space(&self) -> Result<Option<Space>, StoreError> {
            self.0.space()
        }
    }

    #[test]
    fn a_store_that_overwrites_fails() {
        let finding = run(&mut || Arc::new(Overwriting(MemoryStore::new()))).unwrap_err();
        assert!(finding.starts_with("create only"), "{finding}");
    }
}
