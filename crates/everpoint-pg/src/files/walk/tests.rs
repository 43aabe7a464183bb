//! Walks over directories in scratch places.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::symlink;

use super::*;

const VERSION: &str = "PG_15_1";

/// A data directory with the database 5.
fn cluster(home: &Path) -> PathBuf {
    let data = home.join("data");
    for directory in ["base/5", "global", "pg_xact", "pg_tblspc", "pg_wal"] {
        fs::create_dir_all(data.join(directory)).unwrap();
    }
    for file in ["PG_VERSION", "base/5/1259", "base/5/pg_filenode.map", "global/pg_control", "pg_xact/0000"] {
        fs::write(data.join(file), file).unwrap();
    }
    data
}

fn live() -> Live {
    Live { databases: BTreeSet::from([5, 6]), tablespaces: BTreeSet::from([16400]) }
}

type Walked = (BTreeMap<String, Found>, BTreeMap<String, String>);

/// The files that are found, and what is told.
fn walked(data: &Path) -> Result<Walked, WalkError> {
    let (notes, live) = (Notes::default(), live());
    let links = Links::new(data, VERSION);
    let walk = Walk {
        data_dir: data,
        version_directory: VERSION,
        links,
        live: Some(&live),
        leave_out: &[],
        notes: &notes,
    };
    let mut files = BTreeMap::new();
    walk.run::<WalkError>(&mut |found| {
        let name = found.meta.path.clone();
        assert!(files.insert(name, found).is_none(), "twice");
        Ok(())
    })?;
    Ok((files, notes.into_lacking()))
}

/// Moves a directory and leaves a link to it.
fn linked(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::rename(from, to).unwrap();
    symlink(to, from).unwrap();
}

#[test]
fn what_the_servers_own_links_lead_to_is_taken_once() {
    let home = tempfile::tempdir().unwrap();
    let (data, away) = (cluster(home.path()), home.path().join("away"));
    fs::create_dir(data.join("base/6")).unwrap();
    fs::write(data.join("base/6/1259"), "").unwrap();
    linked(&data.join("base/5"), &away.join("5"));
    linked(&data.join("base/6"), &data.join("put/6"));
    linked(&data.join("pg_xact"), &data.join("commits"));
    linked(&data.join("pg_wal"), &away.join("wal"));
    fs::write(away.join("wal/000000010000000000000001"), "").unwrap();
    let (files, lacks) = walked(&data).unwrap();
    assert_eq!(lacks, BTreeMap::new());
    for taken in ["base/5/1259", "base/6/1259", "pg_xact/0000", "pg_wal", "put"] {
        assert!(files.contains_key(taken), "{taken}: {:?}", files.keys());
    }
    for not in ["put/6", "put/6/1259", "commits", "commits/0000", "pg_wal/000000010000000000000001"] {
        assert!(!files.contains_key(not), "{not}");
    }
    assert_eq!(files["base/5"].meta.kind, FileKind::Directory);
    assert_eq!(files["base/5/1259"].meta.kind, FileKind::Pages);
}

#[test]
fn strays_are_taken_or_named_and_never_followed_for_ever() {
    let home = tempfile::tempdir().unwrap();
    let (data, away) = (cluster(home.path()), home.path().join("away"));
    let other = cluster(&away);
    fs::create_dir(away.join("log")).unwrap();
    fs::write(away.join("log/today"), "").unwrap();
    symlink("today", away.join("log/current")).unwrap();
    symlink(&data, away.join("log/back")).unwrap();
    symlink(&other, away.join("log/other")).unwrap();
    for (name, target) in [
        ("log", away.join("log")),
        ("log_again", away.join("log")),
        ("within", data.join("base")),
        ("loop", PathBuf::from(".")),
        ("above", home.path().to_owned()),
        ("self", PathBuf::from("self")),
        ("gone", PathBuf::from("nowhere")),
        ("neighbour", other.clone()),
        ("database", other.join("base/5")),
        ("device", PathBuf::from("/dev/null")),
        ("proc", PathBuf::from("/proc")),
        ("maps", PathBuf::from("/proc/self/maps")),
    ] {
        symlink(target, data.join(name)).unwrap();
    }
    let fifo = rustix::fs::FileType::Fifo;
    for name in ["fifo", "base/5/fifo"] {
        rustix::fs::mknodat(rustix::fs::CWD, data.join(name), fifo, 0o600.into(), 0).unwrap();
    }
    let socket = std::os::unix::net::UnixListener::bind(data.join(".s.PGSQL.5432")).unwrap();
    fs::write(data.join(OsStr::from_bytes(b"caf\xe9")), "").unwrap();
    let (files, lacks) = walked(&data).unwrap();
    drop(socket);
    for taken in ["log", "log/today", "log/current", "caf\\xe9", "base/5/1259"] {
        assert!(files.contains_key(taken), "{taken}");
    }
    for not in ["log_again", "within", "log/back", ".s.PGSQL.5432"] {
        assert!(!files.contains_key(not), "{not}");
    }
    let told: Vec<&str> = lacks.keys().map(String::as_str).collect();
    let all = [
        "above",
        "base/5/fifo",
        "database",
        "device",
        "fifo",
        "gone",
        "log/back",
        "log/other",
        "loop",
        "maps",
        "neighbour",
        "proc",
        "self",
    ];
    assert_eq!(told, all, "{lacks:?}");
}

#[test]
fn what_the_server_needs_ends_the_walk_by_name() {
    let gone = |name: &str, target: &dyn Fn(&Path, &Path) -> PathBuf| {
        let home = tempfile::tempdir().unwrap();
        let data = cluster(home.path());
        let other = cluster(&home.path().join("other"));
        let target = target(&data, &other);
        let place = data.join(name);
        if place.is_dir() {
            fs::remove_dir_all(&place).unwrap()
        }
        symlink(target, &place).unwrap();
        let error = walked(&data).unwrap_err();
        assert_eq!(error.path, place);
        error.reason.to_string()
    };
    assert!(gone("base/5", &|_, _| PathBuf::from("nowhere")).contains("nowhere"));
    assert!(gone("pg_xact", &|_, other| other.join("pg_xact")).contains("another server"));
    assert!(gone("base/6", &|data, _| data.join("base")).contains("above it"));
    assert!(gone("pg_tblspc/16400", &|_, _| PathBuf::from("/nowhere/at/all")).contains("nowhere"));
    assert!(gone("base/5/2619", &|_, _| PathBuf::from("2619")).contains("can't be followed"));
}

#[test]
fn what_is_of_no_database_is_kept_and_not_judged() {
    let home = tempfile::tempdir().unwrap();
    let data = cluster(home.path());
    fs::create_dir(data.join("base/99")).unwrap();
    for file in ["base/99/1259", "base/99/pg_filenode.map", "pg_filenode.map"] {
        fs::write(data.join(file), "").unwrap();
    }
    symlink("/nowhere/at/all", data.join("pg_tblspc/77")).unwrap();
    symlink("nowhere", data.join("base/98")).unwrap();
    let (files, lacks) = walked(&data).unwrap();
    assert!(files["base/5/1259"].pages.is_some() && files["base/5/pg_filenode.map"].settles);
    for file in ["base/99/1259", "base/99/pg_filenode.map", "pg_filenode.map"] {
        assert!(files[file].pages.is_none() && !files[file].settles && !files[file].needed, "{file}");
    }
    assert_eq!(lacks.keys().collect::<Vec<_>>(), ["base/98", "pg_tblspc/77"]);
}

#[test]
fn tablespaces_are_stored_in_their_place_alone() {
    let home = tempfile::tempdir().unwrap();
    let (data, space) = (cluster(home.path()), home.path().join("space"));
    for directory in [format!("{VERSION}/5"), "PG_14_1/5".to_owned(), "beside".to_owned()] {
        fs::create_dir_all(space.join(directory)).unwrap();
    }
    fs::write(space.join(VERSION).join("5/777"), "").unwrap();
    symlink(&space, data.join("pg_tblspc/16400")).unwrap();
    // Links into the place: one is the server's own, one somebody's shortcut, one leads to what holds the place.
    fs::write(space.join("beside/1259"), "").unwrap();
    symlink(space.join("beside"), data.join("base/6")).unwrap();
    symlink(space.join(VERSION), data.join("shortcut")).unwrap();
    symlink(&space, data.join("around")).unwrap();
    let (files, lacks) = walked(&data).unwrap();
    assert_eq!(lacks, BTreeMap::new());
    for taken in ["pg_tblspc/16400/PG_15_1/5/777", "base/6/1259", "around/beside/1259"] {
        assert!(files.contains_key(taken), "{taken}: {:?}", files.keys());
    }
    assert!(!files.keys().any(|path| path.starts_with("shortcut") || path.starts_with("around/PG_15_1/")));
    assert!(!files.contains_key("pg_tblspc/16400/beside"));
}
