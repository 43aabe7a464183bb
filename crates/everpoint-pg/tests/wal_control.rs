//! The control file and the page checksums against PostgreSQL's own pg_controldata and pg_checksums.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod wal_rig;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use everpoint_pg::control::{CONTROL_FILE, ClusterState, Control, ControlError};
use everpoint_pg::files::{BLOCKS_PER_FILE, Class, classify};
use everpoint_pg::lsn::Lsn;
use everpoint_pg::page::{PAGE_BYTES, Verdict, verify};
use wal_rig::{Server, as_server_user, programs, run};

/// Asks pg_controldata; that of 14 reads 13's file too, whose layout is the same.
fn control_data(server: &Server) -> HashMap<String, String> {
    let mut command = as_server_user(programs(server.major.max(14)).join("pg_controldata"));
    run(command.env("LC_ALL", "C").arg(&server.data))
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

fn check_control(server: &Server, state: ClusterState) {
    let bytes = fs::read(server.data.join(CONTROL_FILE)).unwrap();
    let control = Control::parse(&bytes).unwrap();
    let theirs = control_data(server);
    let same = |name: &str, ours: String| {
        let value = theirs.get(name).unwrap_or_else(|| panic!("no {name} in {theirs:?}"));
        assert_eq!(&ours, value, "{name}");
    };
    assert_eq!(control.state, state);
    same("Database system identifier", control.system.to_string());
    same("pg_control version number", control.control_version.to_string());
    same("Catalog version number", control.catalog_version.to_string());
    same("Latest checkpoint location", Lsn::from(control.checkpoint).to_string());
    same("Latest checkpoint's REDO location", Lsn::from(control.redo).to_string());
    same("Latest checkpoint's TimeLineID", control.timeline.to_string());
    same("Minimum recovery ending location", Lsn::from(control.minimum_recovery).to_string());
    same("Min recovery ending loc's timeline", control.minimum_recovery_timeline.to_string());
    same("Backup start location", Lsn::from(control.backup_start).to_string());
    same("Backup end location", Lsn::from(control.backup_end).to_string());
    let level = ["minimal", "replica", "logical"][control.wal_level as usize];
    same("wal_level setting", level.to_owned());
    let limits = ["connections", "worker_processes", "wal_senders", "prepared_xacts", "locks_per_xact"];
    for (name, limit) in limits.iter().zip(control.limits) {
        same(&format!("max_{name} setting"), limit.to_string());
    }
    same("Database block size", control.page_size.to_string());
    same("Blocks per segment of large relation", control.pages_per_file.to_string());
    same("WAL block size", control.log_page_size.to_string());
    same("Bytes per WAL segment", control.segment_size.to_string());
    same("Data page checksum version", control.checksum_version.to_string());
    let seconds = |at: everpoint_core::Micros| {
        jiff::Timestamp::from_microsecond(at.0)
            .unwrap()
            .to_zoned(jiff::tz::TimeZone::system())
            .strftime("%a %b %e %H:%M:%S %Y")
            .to_string()
    };
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for (name, at) in [
        ("pg_control last modified", control.written_at),
        ("Time of latest checkpoint", control.checkpoint_at),
    ] {
        assert_eq!(squeezed(&seconds(at)), squeezed(&theirs[name]), "{name}");
    }
    for bit in (0..296 * 8).step_by(41) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if damaged[..292] != bytes[..292] {
            let result = Control::parse(&damaged);
            assert!(matches!(result, Err(ControlError::Checksum | ControlError::Version(_))), "bit {bit}");
        }
    }
}

fn page_files(directory: &Path, prefix: &str, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            page_files(&entry.path(), &format!("{name}/"), found);
        } else if matches!(classify(&name), Class::Pages(_)) {
            found.push((name, fs::read(entry.path()).unwrap()));
        }
    }
}

/// All pages of a stopped cluster as this crate sees them: (good or new, bad).
fn verify_all(server: &Server) -> (usize, Vec<(String, usize)>) {
    let mut files = Vec::new();
    page_files(&server.data, "", &mut files);
    let (mut good, mut bad) = (0, Vec::new());
    for (name, bytes) in files {
        let Class::Pages(pages) = classify(&name) else { unreachable!() };
        for (block, page) in bytes.chunks(PAGE_BYTES).enumerate() {
            match verify(page, pages.first_block(BLOCKS_PER_FILE) + block as u32) {
                Verdict::Ok | Verdict::New => good += 1,
                Verdict::Bad { .. } => bad.push((name.clone(), block)),
            }
        }
    }
    (good, bad)
}

/// What pg_checksums says of a stopped cluster: pages scanned, bad ones. That of 14 reads 13's files too.
fn pg_checksums(server: &Server) -> (usize, usize) {
    let mut command = as_server_user(programs(server.major.max(14)).join("pg_checksums"));
    let output = command.env("LC_ALL", "C").arg("--check").arg("-D").arg(&server.data).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |label: &str| {
        let line = text.lines().find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("{text}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    (number("Blocks scanned"), number("Bad checksums"))
}

fn check(major: u32) {
    let mut server = Server::start(major, 16, true, &["max_connections=37", "wal_level=logical"]);
    server.sql("create table t as select i, repeat('x', i % 900) v from generate_series(1, 20000) i");
    server.sql("create index on t(v, i); create unlogged table u as select 1 i");
    server.sql("vacuum t");
    server.sql("checkpoint");
    check_control(&server, ClusterState::Production);
    let path = server.sql("select pg_relation_filepath('t')");
    server.stop();
    check_control(&server, ClusterState::ShutDown);

    let (good, bad) = verify_all(&server);
    assert_eq!(pg_checksums(&server), (good, 0));
    assert_eq!(bad, []);
    // Two damaged pages and one in the wrong place.
    let file = server.data.join(&path);
    let mut bytes = fs::read(&file).unwrap();
    bytes[3 * PAGE_BYTES + 5000] ^= 1;
    bytes[7 * PAGE_BYTES + 8] ^= 1;
    bytes.copy_within(10 * PAGE_BYTES..11 * PAGE_BYTES, 11 * PAGE_BYTES);
    fs::write(&file, &bytes).unwrap();
    let (_, bad) = verify_all(&server);
    assert_eq!(bad, [(path.clone(), 3), (path.clone(), 7), (path, 11)]);
    assert_eq!(pg_checksums(&server).1, 3);
}

#[test]
fn control_and_pages_of_13() {
    check(13);
}

#[test]
fn control_and_pages_of_14() {
    check(14);
}

#[test]
fn control_and_pages_of_15() {
    check(15);
}

#[test]
fn control_and_pages_of_16() {
    check(16);
}

#[test]
fn control_and_pages_of_17() {
    check(17);
}

#[test]
fn control_and_pages_of_18() {
    check(18);
}

#[test]
fn checksums_are_fast_enough() {
    let page: Vec<u8> = (0..PAGE_BYTES).map(|byte| (byte * 7 % 251) as u8).collect();
    let rounds = 20_000;
    let begin = std::time::Instant::now();
    let mut folded = 0_u64;
    for block in 0..rounds {
        folded += u64::from(everpoint_pg::page::checksum(std::hint::black_box(&page), block).unwrap());
    }
    let rate = f64::from(rounds) * PAGE_BYTES as f64 / begin.elapsed().as_secs_f64() / 1e9;
    println!("{rate:.2} GB/s ({folded})");
    // A machine under load, without optimisation for its own instructions: far below what is usual.
    assert!(rate > 0.2, "{rate:.2} GB/s");
}
