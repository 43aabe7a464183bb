//! Where ours lies, where servers' things do, and where neither may.

use std::sync::Arc;

use everpoint_engine::fake::FakeEngine;
use everpoint_store::MemoryStore;

use super::*;

fn context() -> ClusterContext {
    let engine = Arc::new(FakeEngine::new(crate::testing::log(1)));
    crate::testing::context(Arc::new(MemoryStore::new()), &engine)
}

fn at(path: &Path) -> Belonging {
    Belonging { what: "the repository local".to_owned(), path: path.to_owned(), closed: false }
}

#[test]
fn what_lies_inside_is_found_through_links_and_before_it_exists() {
    let home = tempfile::tempdir().unwrap();
    let (data, link) = (home.path().join("data"), home.path().join("link"));
    fs::create_dir_all(data.join("sub")).unwrap();
    std::os::unix::fs::symlink(data.join("sub"), &link).unwrap();
    for inside in [data.clone(), data.join("not/yet"), link.clone(), link.join("not/yet")] {
        assert!(lies_in(&inside, &data), "{inside:?}");
    }
    for outside in [home.path().to_owned(), home.path().join("data2"), home.path().join("not/yet")] {
        assert!(!lies_in(&outside, &data), "{outside:?}");
    }
    assert!(lies_in(&data, home.path()));
}

#[test]
fn any_servers_directory_is_known_by_what_it_holds() {
    let home = tempfile::tempdir().unwrap();
    let (data, space) = (home.path().join("data"), home.path().join("space"));
    fs::create_dir_all(data.join("global")).unwrap();
    fs::create_dir_all(space.join("PG_15_202209061")).unwrap();
    assert_eq!(server_above(&data.join("repository")), None);
    fs::write(data.join("PG_VERSION"), "15\n").unwrap();
    fs::write(data.join("global/pg_control"), "").unwrap();
    let real = |path: &Path| path.canonicalize().unwrap();
    assert_eq!(server_above(&data.join("repository")), Some(real(&data)));
    assert_eq!(server_above(&space.join("repository")), Some(real(&space)));
    assert_eq!(server_above(&home.path().join("PG_15")), None);
    assert_eq!(refuse(&[at(&data.join("x"))], &[]).unwrap_err().code, "config.inside_server");
    refuse(&[at(&home.path().join("x"))], std::slice::from_ref(&data)).unwrap();
}

#[test]
fn a_place_must_not_hold_our_files_nor_lie_in_or_around_a_servers() {
    let home = tempfile::tempdir().unwrap();
    let [data, space, free] = ["data", "space", "free"].map(|name| home.path().join(name));
    for directory in [&data, &space, &free] {
        fs::create_dir(directory).unwrap();
    }
    let servers = [data.clone(), space.clone()];
    let code = |root: &Path, spaces: &[PathBuf], ours: &[Belonging]| told(root, spaces, &[], ours, &servers);
    assert_eq!(code(&free, &[], &[at(&data.join("r"))]), None);
    assert_eq!(code(&data, std::slice::from_ref(&space), &[]), None, "in place");
    assert_eq!(code(&data, &[data.join("inside")], &[]), None, "a tablespace inside, in place");
    let directory = Some("restore.directory".to_owned());
    for wrong in [data.join("copy"), space.join("copy"), home.path().to_owned()] {
        assert_eq!(code(&wrong, &[], &[]), directory, "{wrong:?}");
    }
    assert_eq!(code(&free, &[data.join("space")], &[]), directory);
    let own = Some("restore.own_files".to_owned());
    assert_eq!(code(&data, &[], &[at(&data.join("r"))]), own);
    assert_eq!(code(&data, std::slice::from_ref(&space), &[at(&space.join("r"))]), own);
}

fn told(
    root: &Path,
    spaces: &[PathBuf],
    mapped: &[PathBuf],
    ours: &[Belonging],
    servers: &[PathBuf],
) -> Option<String> {
    let mut context = context();
    context.belongings = ours.to_vec();
    refuse_places(&Places { root, spaces, mapped }, &context, servers).err().map(|error| error.code)
}

#[test]
fn a_place_must_not_lie_in_what_is_ours_nor_a_mapped_one_in_or_around_a_servers() {
    let home = tempfile::tempdir().unwrap();
    let [data, space, free, own] = ["data", "space", "free", "own"].map(|name| home.path().join(name));
    for directory in [&data, &space.join("PG_15_202209061/sub"), &free, &own.join("restores")] {
        fs::create_dir_all(directory).unwrap();
    }
    let closed = Belonging { closed: true, ..at(&own) };
    let ours = [closed, Belonging { closed: false, ..at(&own.join("restores")) }];
    let (wrong, servers) = (Some("restore.own_files".to_owned()), [data.clone(), space.clone()]);
    assert_eq!(told(&own.join("x/y"), &[], &[], &ours, &[]), wrong);
    assert_eq!(told(&own.join("restores/x"), &[], &[], &ours, &[]), None, "a directory for restores in it");
    assert_eq!(told(&free, &[own.join("x")], &[own.join("x")], &ours, &[]), wrong);
    assert_eq!(told(&free, &[own.join("x")], &[], &ours, &[]), None, "where production's own link leads");
    let directory = Some("restore.directory".to_owned());
    for (place, wanted) in [
        (space.join("PG_15_202209061/sub"), &directory),
        (space.join("x"), &directory),
        (home.path().to_owned(), &directory),
        (space.clone(), &None),
        (home.path().join("new"), &None),
    ] {
        for root in [&data, &free] {
            let mapped = [place.clone()];
            let servers = if root == &free && place == home.path() { &[][..] } else { &servers[..] };
            let wanted = if servers.is_empty() { &None } else { wanted };
            assert_eq!(&told(root, &mapped, &mapped, &[], servers), wanted, "{place:?}");
        }
    }
}

#[test]
fn what_another_cluster_has_is_none_of_ours_also_while_it_is_stopped() {
    let home = tempfile::tempdir().unwrap();
    let [staging, space] = ["staging", "space"].map(|name| home.path().join(name));
    fs::create_dir_all(staging.join("pg_tblspc")).unwrap();
    fs::create_dir_all(&space).unwrap();
    std::os::unix::fs::symlink(&space, staging.join("pg_tblspc/1")).unwrap();
    let mut context = context();
    context.neighbours = vec![Belonging { what: "the cluster staging".to_owned(), ..at(&staging) }];
    for (place, fine) in [
        (staging.clone(), false),
        (staging.join("below"), false),
        (home.path().to_owned(), false),
        (space.join("x"), false),
        (home.path().join("new"), true),
    ] {
        let places = Places { root: &place, spaces: &[], mapped: &[] };
        assert_eq!(refuse_places(&places, &context, &[]).is_ok(), fine, "{place:?}");
    }
}

#[test]
fn mounted_names_are_read_with_their_spaces() {
    assert_eq!(unescaped(br"/mnt/a\040b\134c"), Path::new("/mnt/a b\\c"));
    assert_eq!(unescaped(br"/mnt/a\9"), Path::new(r"/mnt/a\9"));
    assert!(physical(Path::new("/proc/self")).is_some());
}
