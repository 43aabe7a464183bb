//! `protect` speaks to the server before it writes, writes where it says, and tells what it ignores.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

#[allow(dead_code, reason = "shared with other tests of protect")]
mod support_protect;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Stdio;
use std::time::Duration;

use everpoint_testkit::{Account, clean};
use support_protect::{PASSWORD, Running, World, mode, no_piece};

#[test]
fn protect_speaks_to_the_server_before_it_writes_anything() {
    let Some(world) = World::new() else { return };
    let (port, right) = (world.cluster.port(), world.url(PASSWORD, world.cluster.port()));
    // A mistyped port, and a wrong password: nothing is left behind.
    for wrong in [world.url(PASSWORD, 1), world.url("not this one", port)] {
        let said = world.refused(&["protect", &wrong, "--repo", "./repo"]);
        assert!(said.contains("nothing was written"), "{said}");
        no_piece(&said);
        assert_eq!(world.there(), Vec::<String>::new());
    }
    // The configuration of the whole system is another's: it is named, and stays as it is.
    let system = "# of the administrator\n[repository.other]\nurl = \"/nonexistent/other\"\n";
    fs::write(world.system(), system).unwrap();
    let said = world.protected(&["protect", &right, "--repo", "./repo", "--name", "shop"]);
    assert!(said.contains(&format!("{} stays as it is", world.system().display())), "{said}");
    no_piece(&said);
    assert_eq!(fs::read_to_string(world.system()).unwrap(), system);
    let config = world.home.join("everpoint.toml");
    let written = fs::read_to_string(&config).unwrap();
    no_piece(&written);
    let kept = world.home.join("everpoint-shop.password");
    assert_eq!((fs::read_to_string(&kept).unwrap(), mode(&kept)), (format!("{PASSWORD}\n"), 0o600));

    // A wrong password later: the right one stays. A new one that the server takes comes in its place.
    let said = world.refused(&["protect", &world.url("not this one", port)]);
    assert!(said.contains("nothing was written"), "{said}");
    assert_eq!(fs::read_to_string(&kept).unwrap(), format!("{PASSWORD}\n"));
    world.cluster.psql("ALTER ROLE backup PASSWORD 'another one'").unwrap();
    let again = world.url("another one", port);
    let said = world.protected(&["protect", &again, "--repo", "/somewhere/else"]);
    assert!(said.contains("--repo is ignored") && said.contains("is replaced"), "{said}");
    assert_eq!((fs::read_to_string(&kept).unwrap(), mode(&kept)), ("another one\n".to_owned(), 0o600));
    assert_eq!(fs::read_to_string(&config).unwrap(), written, "the configuration had all of it");
    // Another spelling of the same address, without a password: what is kept is used.
    world.protected(&["protect", &format!("host=127.0.0.1 port={port} user=backup dbname=postgres")]);
    assert_eq!(fs::read_to_string(&config).unwrap(), written);
}

#[test]
fn a_repository_of_others_asks_for_its_key_and_a_second_copy_of_a_new_one_is_made() {
    let Some(world) = World::new() else { return };
    let url = world.url(PASSWORD, world.cluster.port());
    let others = world.scratch.subdir("others").unwrap();
    let (repo, key) = (others.join("repo").display().to_string(), others.join("key").display().to_string());
    fs::write(others.join("c.toml"), "[repository.a]\nurl = \"repo\"\nkey_file = \"key\"\n").unwrap();
    let made =
        world.command(&["--config", &others.join("c.toml").display().to_string(), "init"]).output().unwrap();
    assert!(made.status.success());
    let ran = world.command(&["protect", &url, "--repo", &repo]).output().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert!(ran.status.code() == Some(2) && said.contains("--key-file"), "{said}");
    assert!(!world.home.join("everpoint.toml").exists(), "a refused call writes nothing");
    assert!(!world.home.join("everpoint-main.password").exists());
    let copy = world.scratch.path().join("copy/key").display().to_string();
    let said = world.protected(&["protect", &url, "--repo", &repo, "--key-file", &key, "--escrow", &copy]);
    let written = fs::read_to_string(world.home.join("everpoint.toml")).unwrap();
    assert!(written.contains(&format!("key_file = \"{key}\"")), "{written}");
    assert_eq!(fs::read_to_string(&copy).unwrap(), fs::read_to_string(&key).unwrap());
    assert!(!said.contains("everpoint-key-1-") && fs::exists(format!("{key}.stored-elsewhere")).unwrap());
}

#[test]
fn a_server_that_is_protected_gets_no_second_name_and_nothing_is_written() {
    let Some(world) = World::new() else { return };
    let url = world.url(PASSWORD, world.cluster.port());
    world.protected(&["protect", &url, "--repo", "./repo", "--name", "shop"]);
    let config = world.home.join("everpoint.toml");
    let (before, there) = (fs::read_to_string(&config).unwrap(), world.there());
    let elsewhere = url.replace("127.0.0.1", "localhost").replace("/postgres", "/template1");
    for arguments in [
        &["protect", &url, "--name", "again"][..],
        &["protect", &elsewhere],
        // Captured by nobody now, and never before: asked by its address.
        &["protect", &elsewhere, "--name", "aa"],
    ] {
        if arguments.contains(&"aa") {
            fs::remove_dir_all(world.home.join("repo/clusters")).unwrap();
        }
        let said = world.refused(arguments);
        assert!(said.contains("is that of shop already") && said.contains("nothing was written"), "{said}");
        no_piece(&said);
        assert_eq!((fs::read_to_string(&config).unwrap(), world.there()), (before.clone(), there.clone()));
    }
}

#[test]
fn a_configuration_that_is_added_to_keeps_its_owner_and_its_one_repository() {
    let Some(world) = World::new() else { return };
    let url = world.url(PASSWORD, world.cluster.port());
    let config = world.scratch.path().join("there.toml");
    let before = format!(
        "[repository.main]\nurl = \"{0}/repo\"\nkey_file = \"{0}/key\"\n[serve]\nstate_dir = \"{0}/state\"\n",
        world.home.display()
    );
    fs::write(&config, &before).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o640)).unwrap();
    let owner =
        if rustix::process::geteuid().is_root() { 70_000 } else { fs::metadata(&config).unwrap().uid() };
    std::os::unix::fs::chown(&config, Some(owner), None).unwrap();
    let link = world.home.join("everpoint.toml");
    std::os::unix::fs::symlink(&config, &link).unwrap();
    let said = world.protected(&["protect", &url, "--repo", "./other", "--name", "shop"]);
    assert!(said.contains("--repo is ignored") && said.contains("repository main"), "{said}");
    let after = fs::read_to_string(&config).unwrap();
    assert!(after.starts_with(&before) && after.matches("[repository.").count() == 1, "{after}");
    no_piece(&after);
    assert!(link.is_symlink() && !world.home.join("other").exists());
    assert_eq!((fs::metadata(&config).unwrap().uid(), mode(&config)), (owner, 0o640));
}

/// A repository that only a variable names is none that the file has: it is encrypted, and written into the file.
#[test]
fn backup_dir_makes_no_repository_unencrypted_that_nobody_asked_to_be() {
    let Some(world) = World::new() else { return };
    let url = world.url(PASSWORD, world.cluster.port());
    let config = world.home.join("everpoint.toml");
    let directory = world.scratch.subdir("bd").unwrap();
    let cluster = format!(
        "[cluster.one]\npostgres = \"postgres://backup@127.0.0.1:{}/postgres\"\npassword_file = \"password\"\n",
        world.cluster.port()
    );
    fs::write(world.home.join("password"), PASSWORD).unwrap();
    let before = [("# comment\n", true), ("# comment\n", false), (cluster.as_str(), false)];
    for (number, (before, named)) in before.into_iter().enumerate() {
        let state = world.scratch.path().join(format!("state-{number}")).display().to_string();
        fs::write(&config, format!("{before}[serve]\nstate_dir = \"{state}\"\n")).unwrap();
        let of_variable = directory.join(number.to_string());
        let mut arguments = vec!["protect", &url, "--name", "one"];
        if named {
            arguments.extend(["--repo", "./named"]);
        }
        let mut command = world.command(&arguments);
        command.env("BACKUP_DIR", &of_variable);
        let said = world.protected_by(command);
        assert!(!said.contains("NOT ENCRYPTED") && said.contains("(encrypted)"), "{said}");
        assert_eq!(said.contains("BACKUP_DIR is not used"), named, "{said}");
        let key = world.home.join("everpoint-local.key");
        let place = if named { world.home.join("named") } else { of_variable.join("repository") };
        let written = fs::read_to_string(&config).unwrap();
        assert!(written.contains(&format!("url = \"{}\"", place.display())), "{written}");
        assert!(written.contains(&format!("key_file = \"{}\"", key.display())), "{written}");
        let ran = world.command(&["list", "one"]).output().unwrap();
        assert!(ran.status.success(), "without the variable: {}", String::from_utf8_lossy(&ran.stderr));
        world.cluster.psql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").unwrap();
        fs::remove_file(&key).unwrap();
    }
}

#[test]
fn a_refused_protect_leaves_nothing_and_what_root_makes_is_the_services() {
    let Some(world) = World::new() else { return };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let url = world.url(PASSWORD, world.cluster.port());
    // Another user may write the repository, but not the directory of the configuration.
    let account = Account::of_servers().unwrap();
    let place = world.scratch.subdir("place").unwrap();
    let program = place.join("everpoint");
    fs::copy(env!("CARGO_BIN_EXE_everpoint"), &program).unwrap();
    account.own(&place).unwrap();
    for directory in [world.scratch.path(), world.home.as_path()] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for directory in [world.scratch.path(), world.home.as_path()] {
        std::os::unix::fs::chown(directory, Some(0), Some(0)).unwrap();
    }
    let repository = place.join("repo");
    let mut command = account.command(&program);
    clean(&mut command).current_dir(&world.home).env("EVERPOINT_SYSTEM_CONFIG", world.system());
    command.args(["protect", &url, "--repo", &repository.display().to_string()]).stdin(Stdio::null());
    let log = world.scratch.path().join("refused");
    let mut running = Running(command.stderr(fs::File::create(&log).unwrap()).spawn().unwrap());
    std::thread::sleep(Duration::from_secs(3));
    let ended = running.0.try_wait().unwrap();
    let said = fs::read_to_string(&log).unwrap();
    assert!(ended.is_some_and(|it| !it.success()) && said.contains("nothing was written"), "{said}");
    assert!(!repository.exists(), "refused means untouched: {said}");
    // Root in a directory of the service, the repository in one of root.
    std::os::unix::fs::chown(&world.home, Some(70_000), Some(70_000)).unwrap();
    let repository = world.scratch.path().join("made/repo");
    world.protected(&["protect", &url, "--repo", &repository.display().to_string()]);
    for made in [&repository, &repository.join("config"), &world.home.join("everpoint-local.key")] {
        assert_eq!(fs::metadata(made).unwrap().uid(), 70_000, "{}", made.display());
    }
}

/// A replication connection does not mind the database's name.
#[test]
fn a_database_that_does_not_exist_is_a_mistake() {
    let Some(world) = World::new() else { return };
    let right = world.url(PASSWORD, world.cluster.port());
    let wrong = right.replace("/postgres", "/postgre");
    let said = world.refused(&["protect", &wrong, "--repo", "./repo", "--name", "shop"]);
    assert!(said.contains("\"postgre\" does not exist") && said.contains("nothing was written"), "{said}");
    assert_eq!(world.there(), Vec::<String>::new());
    world.protected(&["protect", &right, "--repo", "./repo", "--name", "shop"]);
    // The address is corrected in one line, and the hint says in which.
    let said = world.refused(&["protect", &wrong, "--name", "shop"]);
    let file = world.home.join("everpoint.toml");
    let line = format!("`postgres =` of [cluster.shop] in {}", file.display());
    assert!(said.replace('\n', " ").contains(&line), "{said}");
    // One that is configured so is an error of `check`, and protected all the same.
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("/postgres\"", "/postgre\"")).unwrap();
    let ran = world.command(&["check", "shop"]).output().unwrap();
    let shown = String::from_utf8(ran.stdout).unwrap();
    let line = shown.lines().find(|line| line.contains("database ")).unwrap_or_default();
    assert!(ran.status.code() == Some(1) && line.contains("ERROR") && line.contains("postgre"), "{shown}");
    assert!(!shown.contains("not in use"), "nobody tells whether it is in use: {shown}");
    world.protected(&["protect", &wrong]);
}
