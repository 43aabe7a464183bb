//! Base backups over the replication protocol of data directories in which something odd lies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod client_rig;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use client_rig::{DirectoryImage, config};
use everpoint_engine::{BackupEnd, BackupOptions, EngineError, StopFlag};
use everpoint_pg::basebackup::base_backup;
use everpoint_testkit::{Account, PgCluster, Scratch, StopMode};

fn back_up(cluster: &PgCluster) -> Result<(Scratch, DirectoryImage, BackupEnd), EngineError> {
    let scratch = Scratch::new("whole").unwrap();
    let image = DirectoryImage::new(&scratch.path().join("image"));
    let options = BackupOptions {
        label: "whole".into(),
        workers: 2,
        rate_limit: None,
        fast_checkpoint: true,
        leave_out: Vec::new(),
        stop: StopFlag::default(),
    };
    let end = base_backup(&config(cluster), None, &options, &image)?;
    image.assert_whole();
    Ok((scratch, image, end))
}

#[test]
fn what_the_server_passes_over_is_lacking_and_what_is_of_no_database_is_not_judged() {
    for major in [13, 18] {
        let mut cluster = PgCluster::builder().major(major).start().unwrap();
        cluster.psql("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i").unwrap();
        let table = cluster.psql("SELECT pg_relation_filepath('t')").unwrap();
        cluster.stop(StopMode::Fast).unwrap();
        let (data, home) = (cluster.data_dir().to_owned(), cluster.home().path().to_owned());
        OpenOptions::new().append(true).open(data.join(&table)).unwrap().write_all(b"xyz").unwrap();
        fs::create_dir(data.join("base/99999")).unwrap();
        fs::write(data.join("base/99999/1259"), [7; 8192]).unwrap();
        fs::create_dir(home.join("away")).unwrap();
        symlink(home.join("away"), data.join("mine")).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, data.join("fifo"), fifo, 0o600.into(), 0).unwrap();
        Account::of_servers().unwrap().own(&home).unwrap();
        cluster.start().unwrap();

        let (_scratch, image, end) = back_up(&cluster).unwrap();
        assert_eq!(*image.damaged.lock().unwrap(), [], "{major}");
        let told = |name: &str| end.facts.iter().any(|(fact, _)| fact == name);
        for name in ["lacks mine", "lacks fifo", &format!("odd {table}")] {
            assert!(told(name), "{major}: {name} in {:?}", end.facts);
        }
        assert_eq!(fs::read(image.root.join(&table)).unwrap().len() % 8192, 3, "{major}");
        assert!(image.root.join("base/99999/1259").exists(), "{major}");

        // What the server can't read ends its backup; the hint is not about the role.
        let closed = data.join("closed");
        File::create(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        let error = back_up(&cluster).err().unwrap();
        let hint = error.hint.clone().unwrap_or_default();
        assert!(error.to_string().contains("closed") && hint.contains("chown"), "{major}: {error}: {hint}");
        fs::remove_file(&closed).unwrap();

        cluster.stop(StopMode::Fast).unwrap();
        fs::rename(data.join("pg_xact"), home.join("away/pg_xact")).unwrap();
        symlink(home.join("away/pg_xact"), data.join("pg_xact")).unwrap();
        cluster.start().unwrap();
        let error = back_up(&cluster).err().unwrap();
        assert!(error.code == "pg.files" && error.to_string().contains("pg_xact"), "{major}: {error}");
    }
}
