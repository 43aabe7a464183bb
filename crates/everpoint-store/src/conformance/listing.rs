//! Listings: order, completeness, going on after a name.

use std::ops::ControlFlow;

use super::{Finding, ensure, listed, names_of, ok};
use crate::Store;

/// Names whose order differs between a walk of directories and a comparison of whole names.
const TRICKY: [&str; 9] = ["a", "a+b", "a-b/z", "a.b", "aa/b", "b/a", "b/a.x/1", "b/a-x", "b/b"];

fn fill(store: &dyn Store) -> Result<Vec<String>, String> {
    for (number, name) in TRICKY.iter().rev().enumerate() {
        ok("put_new", store.put_new(name, &vec![0; number]))?;
    }
    for number in 0..300 {
        ok("put_new", store.put_new(&format!("many/{number}"), b"x"))?;
    }
    let mut expected: Vec<String> = TRICKY.iter().map(|name| (*name).to_owned()).collect();
    expected.extend((0..300).map(|number| format!("many/{number}")));
    expected.sort_unstable();
    Ok(expected)
}

pub(super) fn order(store: &dyn Store) -> Finding {
    let expected = fill(store)?;
    let found = names_of(store, "", None)?;
    ensure(found == expected, format!("a listing is not in byte order or not complete: {found:?}"))?;
    ensure(
        names_of(store, "b/", None)? == ["b/a", "b/a-x", "b/a.x/1", "b/b"],
        "a prefix lists something else",
    )?;
    for info in listed(store, "b/", None)? {
        let head = ok("head", store.head(&info.name))?;
        ensure(head.as_ref() == Some(&info), format!("list says {info:?}, head says {head:?}"))?;
    }
    let mut seen = 0;
    let visit = &mut |_| {
        seen += 1;
        if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    ok("list", store.list("", None, visit))?;
    ensure(seen == 3, format!("a visitor that broke off at 3 was called {seen} times"))
}

pub(super) fn start_after(store: &dyn Store) -> Finding {
    let expected = fill(store)?;
    for (at, name) in expected.iter().enumerate() {
        let found = names_of(store, "", Some(name))?;
        ensure(
            expected.get(at + 1..) == Some(&*found),
            format!("a listing after {name} is wrong: {found:?}"),
        )?;
    }
    for (after, first) in [("", "a"), ("a-a", "a-b/z"), ("b", "b/a"), ("b/a.x", "b/a.x/1"), ("b/a.y", "b/b")]
    {
        let found = names_of(store, "", Some(after))?;
        ensure(
            found.first().is_some_and(|name| name == first),
            format!("a listing after {after} begins wrong"),
        )?;
    }
    ensure(names_of(store, "b/", Some("a"))?.len() == 4, "an earlier start must not matter")?;
    ensure(names_of(store, "b/", Some("c"))?.is_empty(), "a later start leaves nothing")
}

pub(super) fn children(store: &dyn Store) -> Finding {
    fill(store)?;
    let top = ok("list_children", store.list_children(""))?;
    ensure(top == ["a-b", "aa", "b", "many"], format!("children of the root: {top:?}"))?;
    let below = ok("list_children", store.list_children("b/"))?;
    ensure(below == ["a.x"], format!("children of b/: {below:?}"))
}
