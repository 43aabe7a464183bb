use std::process::Command;

use everpoint_engine::fake::FakeEngine;

use super::*;

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
        own: true,
        empty: true,
        asked: true,
        whole: false,
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
