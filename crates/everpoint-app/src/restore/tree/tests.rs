//! Where paths go.

use super::super::spaces::By;
use super::*;

fn tree(spaces: &[(u32, Option<&str>)]) -> Tree {
    let space = |place: Option<&str>| Space {
        origin: String::new(),
        place: place.map(PathBuf::from),
        by: if place.is_some() { By::Map } else { By::Inside },
        created: false,
    };
    let spaces = spaces.iter().map(|(oid, place)| (*oid, space(*place))).collect();
    let root = Path::new("/r");
    Tree::new(root, spaces, Some("PG_15_1".to_owned()), Mark::new("r", "c", root, "b")).unwrap()
}

#[test]
fn paths_of_tablespaces_go_where_they_belong_and_nothing_leaves_the_tree() {
    let tree = tree(&[(16400, Some("/new/a")), (16401, None)]);
    assert_eq!(tree.place("pg_tblspc/16400/PG_15_1/5/1").unwrap(), Path::new("/new/a/PG_15_1/5/1"));
    assert_eq!(tree.place("pg_tblspc/16401/PG_15_1").unwrap(), Path::new("/r/pg_tblspc/16401/PG_15_1"));
    assert_eq!(tree.place("pg_tblspc/9/x").unwrap(), Path::new("/r/pg_tblspc/9/x"));
    assert_eq!(tree.place("base/5/1").unwrap(), Path::new("/r/base/5/1"));
    for bad in ["../x", "/etc/passwd", "base/../../x", ""] {
        assert!(tree.place(bad).is_err(), "{bad}");
    }
}

#[test]
fn of_a_tablespace_elsewhere_only_the_servers_part_is_taken() {
    let tree = tree(&[(1, Some("/new/a")), (2, None), (3, Some("/r/inside"))]);
    for path in ["pg_tblspc/1/PG_15_1", "pg_tblspc/1/PG_15_1/5/1", "pg_tblspc/2/notes", "inside", "inside/x"]
    {
        assert!(tree.takes(path).unwrap(), "{path}");
    }
    for path in ["pg_tblspc/1/notes", "inside/PG_15_1", "inside/PG_15_1/5/1"] {
        assert!(!tree.takes(path).unwrap(), "{path}");
    }
    assert!(tree.takes("pg_tblspc/1/PG_14_1/5/1").is_err());
    assert!(tree.stays(Path::new("/r/inside/PG_15_1")) && tree.leads_to_place(Path::new("/r/inside")));
    assert!(!tree.stays(Path::new("/r/inside")) && !tree.leads_to_place(Path::new("/r/base")));
}

#[test]
fn links_that_are_kept_are_not_written_through() {
    let tree = tree(&[]).with_kept(Kept::only(&["server.key", "conf.d", "sub/x"]));
    for path in ["server.key", "conf.d", "conf.d/a.conf", "sub/x"] {
        assert!(!tree.takes(path).unwrap(), "{path}");
    }
    for path in ["server.key.old", "conf", "sub", "sub/y"] {
        assert!(tree.takes(path).unwrap(), "{path}");
    }
    assert!(tree.stays(Path::new("/r/sub/x")) && tree.leads_to_place(Path::new("/r/sub")));
    assert!(!tree.stays(Path::new("/r/sub")) && !tree.leads_to_place(Path::new("/r/base")));
}

#[test]
fn marks_of_another_directory_are_not_restored() {
    let tree = tree(&[]);
    for mark in [MARKER, COPY_MARK] {
        assert!(!tree.takes(mark).unwrap(), "{mark}");
    }
    assert!(tree.takes("base/1/1259").unwrap());
}

/// Root writes there all the same, and then the server could not.
#[test]
fn a_directory_that_its_owner_may_not_write_is_opened_to_it() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("data");
    let tree = Tree::new(&root, BTreeMap::new(), None, Mark::new("r", "c", &root, "b")).unwrap();
    for (name, before, after) in [("closed", 0o555, 0o755), ("open", 0o750, 0o750), ("none", 0, 0o700)] {
        let path = root.join(name);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(before)).unwrap();
        tree.directory(&path, 0o700).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, after, "{name}");
    }
}

/// A restore by root that is killed between making a directory and giving it away left one that the server could not enter.
#[test]
fn a_directory_that_a_killed_restore_has_made_gets_the_trees_owner() {
    let scratch = tempfile::tempdir().unwrap();
    let (root, place) = (scratch.path().join("data"), scratch.path().join("place"));
    for made in ["data/pg_tblspc/7/PG_15_1", "place/PG_15_1/5", "place/other"] {
        std::fs::create_dir_all(scratch.path().join(made)).unwrap();
    }
    std::os::unix::fs::symlink(scratch.path(), root.join("link")).unwrap();
    let space = Space { origin: String::new(), place: Some(place.clone()), by: By::Map, created: false };
    let mark = Mark::new("r", "c", &root, "b");
    let mut tree = Tree::new(&root, [(8, space)].into(), Some("PG_15_1".to_owned()), mark).unwrap();
    // Without being root, somebody else is whoever the tree is not of.
    let other = u32::from(std::fs::metadata(&root).unwrap().uid() == 4711) + 4711;
    tree.owner = Some((Uid::from_raw(other), Gid::from_raw(other)));
    for path in ["data/pg_tblspc/7", "data/pg_tblspc", "place/PG_15_1", "place/PG_15_1/5"] {
        assert!(tree.is_strangers(&scratch.path().join(path)), "{path}");
    }
    for path in ["place", "place/other", "data/link", "."] {
        assert!(!tree.is_strangers(&scratch.path().join(path)), "{path}");
    }
    if rustix::process::geteuid().is_root() {
        tree.directory(&root.join("pg_tblspc/7"), 0o700).unwrap();
        assert_eq!(std::fs::metadata(root.join("pg_tblspc/7")).unwrap().uid(), other);
    }
}

/// The last of three places can't take its mark.
#[test]
fn what_can_not_be_marked_leaves_no_mark_anywhere() {
    let home = tempfile::tempdir().unwrap();
    let [root, one, other] = ["root", "one", "other"].map(|name| home.path().join(name));
    for path in [&root, &one, &other] {
        std::fs::create_dir(path).unwrap();
        std::fs::write(path.join("file"), "").unwrap();
    }
    let in_the_way = other.join(crate::restore::mark::NEW_MARK);
    std::fs::create_dir(&in_the_way).unwrap();
    let space = |place: &Path| Space {
        origin: String::new(),
        place: Some(place.to_owned()),
        by: By::Link,
        created: false,
    };
    let spaces = [(1, space(&one)), (2, space(&other))].into();
    let mark = Mark::new("r", "c", &root, "b");
    let tree = Tree::new(&root, spaces, Some("PG_15_1".to_owned()), mark).unwrap();
    let spared = std::cell::Cell::new(false);
    let spare = || spared.replace(true);
    tree.begin(&[], &spare).unwrap_err();
    let count = |path: &Path| std::fs::read_dir(path).unwrap().count();
    assert_eq!([&root, &one, &other].map(|path| count(path)), [1, 1, 2]);
    assert!(!spared.get(), "only a full disk is helped by that");
    std::fs::remove_dir(&in_the_way).unwrap();
    tree.begin(&[], &spare).unwrap();
    assert_eq!([&root, &one, &other].map(|path| count(path)), [2, 2, 2]);
}
