use std::process::Command;

use everpoint_engine::fake::FakeEngine;

use super::*;
use crate::restore::mark::space_name;
use crate::restore::spaces::{By, Space};

const PART: &str = "PG_15_202209061";

/// A machine was lost and its directory with it, but not the place of a tablespace that a restore had marked.
#[test]
fn what_a_lost_directory_left_in_a_place_is_named_with_the_command_that_removes_it() {
    let home = tempfile::tempdir().unwrap();
    let [lost, root, place] = ["lost", "root", "place"].map(|name| home.path().join(name));
    fs::create_dir_all(place.join(PART)).unwrap();
    fs::create_dir(&lost).unwrap();
    fs::write(place.join(PART).join("1"), "x").unwrap();
    Mark::new("r1", "shop", &lost, "b").write_space(&place, PART).unwrap();
    fs::remove_dir(&lost).unwrap();

    let engine = FakeEngine::new(crate::testing::log(1));
    let mark = Mark::new("r1", "shop", &root, "b");
    let none = BTreeMap::new();
    let ground = Ground {
        engine: &engine,
        root: &root,
        mark: &mark,
        links: &none,
        productions: &[],
        own: true,
        empty: true,
        asked: true,
        whole: false,
        looks: false,
        mounts: Mounts::default(),
    };
    for by in [By::Map, By::Origin] {
        let space = Space { origin: "/old".to_owned(), place: Some(place.clone()), by, created: false };
        let error = ground.judge(7, &space, &place, PART).unwrap_err();
        let hint = error.hint.unwrap();
        let (_, command) = hint.split_once("nobody needs it: ").unwrap();
        assert!(command.starts_with("rm -r "), "{hint}");
        if by == By::Origin {
            assert!(hint.contains(&format!("mv {0}/{PART} {0}/{PART}.aside", place.display())), "{hint}");
            assert!(Command::new("sh").args(["-c", command]).status().unwrap().success());
            assert_eq!(ground.judge(7, &space, &place, PART).unwrap(), Proven::Empty);
        }
    }
}

/// A standby was promoted on the primary's machine, and the configuration still names the primary's directory.
#[test]
fn the_tablespace_of_a_directory_that_is_there_is_never_called_left_over() {
    let home = tempfile::tempdir().unwrap();
    let [old, standby, ts, ts_standby] =
        ["old", "standby", "ts", "ts-standby"].map(|name| home.path().join(name));
    for (root, place) in [(&old, &ts), (&standby, &ts_standby)] {
        fs::create_dir_all(place.join(PART)).unwrap();
        fs::write(place.join(PART).join("1"), "x").unwrap();
        fs::create_dir_all(root.join("pg_tblspc")).unwrap();
        std::os::unix::fs::symlink(place, root.join("pg_tblspc/7")).unwrap();
    }
    let engine = FakeEngine::new(crate::testing::log(1));
    let mark = Mark::new("r1", "shop", &standby, "b");
    let own_links = links(&standby);
    let judge = |productions: &[PathBuf], place: &Path, by| {
        let ground = Ground {
            engine: &engine,
            root: &standby,
            mark: &mark,
            links: &own_links,
            productions,
            own: false,
            empty: false,
            asked: true,
            whole: true,
            looks: false,
            mounts: Mounts::default(),
        };
        let space = Space { origin: "/old".to_owned(), place: Some(place.to_owned()), by, created: false };
        let error = ground.judge(7, &space, place, PART).unwrap_err();
        (error.message, error.hint.unwrap_or_default())
    };
    let production = std::slice::from_ref(&old);
    let named = format!("of another data directory, {}", old.display());
    let data_dir = format!("data_dir = \"{}\"", standby.display());
    for marked in [false, true] {
        if marked {
            Mark::new("r1", "shop", &old, "b").write_space(&ts, PART).unwrap();
        }
        let (message, hint) = judge(production, &ts, By::Origin);
        assert!(message.contains(&named), "{message}");
        assert!(hint.contains(&data_dir) && !hint.contains("rm -r") && !hint.contains("mv "), "{hint}");
    }
    let (message, hint) = judge(production, &ts_standby, By::Map);
    assert!(message.contains("a link of the data directory leads there"), "{message}");
    assert!(hint.contains(&data_dir) && !hint.contains("rm -r"), "{hint}");

    // Nothing but the mark tells whose it is.
    let (message, hint) = judge(&[], &ts, By::Map);
    assert!(message.contains(&named) && !hint.contains("rm -r"), "{message}: {hint}");
    fs::remove_file(ts.join(space_name(PART))).unwrap();
    let (message, _) = judge(&[], &ts, By::Map);
    assert_eq!(message, "it holds a tablespace, and nothing tells of which data directory");
}
