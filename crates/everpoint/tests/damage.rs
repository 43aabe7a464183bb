//! What lies in a repository goes bad: flipped, cut, swapped, lost. Whatever it is, a restore brings back the right data or
//! says clearly why not, and never leaves a directory that looks done.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;
mod support_vault;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use everpoint_testkit::{RunningCopy, text};
use serde_json::Value;
use support_scenarios::CLUSTER;
use support_vault::{DAMAGED, Harm, MARKER, Outcome, SHORTFALL, Vault, forget_key, image, swap};

fn statuses(list: &Value) -> BTreeMap<String, String> {
    let backups = list["clusters"][0]["backups"].as_array().unwrap();
    let field = |backup: &Value, name: &str| backup[name].as_str().unwrap().to_owned();
    backups.iter().map(|backup| (field(backup, "label"), field(backup, "status"))).collect()
}

fn gaps(list: &Value) -> String {
    list["clusters"][0]["gaps"].to_string()
}

#[test]
fn without_the_right_key_nothing_is_opened() {
    let Some(vault) = Vault::new(true) else { return };
    let key = vault.world.everpoint.home().path().join("key");
    let good = fs::read(&key).unwrap();
    fs::write(&key, "another passphrase than that\n").unwrap();
    assert!(vault.list("another key").is_none());
    vault.restore("latest", "another key").refused(DAMAGED, "repo.wrong_key", "another key");
    fs::write(&key, &good).unwrap();
    let config = vault.world.everpoint.home().path().join("everpoint.toml");
    let with_key = fs::read_to_string(&config).unwrap();
    forget_key(&vault.world);
    let (ran, place) = vault.try_restore("latest");
    assert!(ran.status.code() == Some(2) && ran.out.contains("repo.key_missing"), "{}", ran.told(&[]));
    assert!(!place.exists());
    fs::write(&config, with_key).unwrap();
    fs::remove_file(&key).unwrap();
    let (ran, place) = vault.try_restore("latest");
    assert!(ran.status.code() == Some(2) && ran.out.contains("key"), "{}", ran.told(&[]));
    assert!(!place.exists());
}

/// What the repository says about itself and its backups.
fn records(encrypted: bool) {
    let Some(vault) = Vault::new(encrypted) else { return };
    let identity = vault.files("identity/").pop().unwrap();
    let mut whole = vec![(vault.repository.join("config"), "config"), (identity, "identity")];
    if encrypted {
        whole.push((vault.repository.join("keys/1"), "keys/1"));
    }
    for (object, word) in &whole {
        for harm in [Harm::Flip(0), Harm::Flip(500), Harm::Flip(999), Harm::Cut, Harm::Empty] {
            let what = format!("{word} {harm:?}");
            vault.harmed(object, harm, |vault| {
                assert!(vault.list(&what).is_none(), "{what}: listed");
                vault.restore("latest", &what).refused(DAMAGED, word, &what);
            });
        }
    }
    for (object, word) in whole.iter().skip(1) {
        vault.harmed(object, Harm::Lost, |vault| {
            vault.restore("latest", word).refused(DAMAGED, &word[..4], word);
        });
    }
    let (old, new) = (vault.of_backup(&vault.old, "manifest"), vault.of_backup(&vault.new, "manifest"));
    for harm in [Harm::Flip(0), Harm::Flip(20), Harm::Flip(999), Harm::Cut, Harm::Empty] {
        let what = format!("manifest {harm:?}");
        vault.harmed(&new, harm, |vault| {
            vault.restore("latest", &what).fell_back(&vault.old, &vault.new, &what);
        });
    }
    vault.harmed(&new, Harm::Flip(20), |vault| {
        let listed = statuses(&vault.list("manifest").unwrap());
        assert_eq!((listed[&vault.old].as_str(), listed[&vault.new].as_str()), ("ok", "damaged"));
        vault.harmed(&old, Harm::Flip(20), |vault| {
            vault.restore("latest", "both manifests").refused(DAMAGED, &vault.new, "both manifests");
        });
    });
    // Nobody needs the note of its beginning when a backup is whole.
    vault.harmed(&vault.of_backup(&vault.new, "attempt"), Harm::Flip(500), |vault| {
        assert_eq!(statuses(&vault.list("attempt").unwrap())[&vault.new], "ok");
        let done = vault.restore("latest", "attempt");
        assert!(matches!(&done, Outcome::Good { backup, .. } if *backup == vault.new), "{done:?}");
    });
}

#[test]
fn records_that_are_damaged_are_named_encrypted() {
    records(true);
}

#[test]
fn records_that_are_damaged_are_named_clear() {
    records(false);
}

/// What holds the pages.
fn packs(encrypted: bool) {
    let Some(vault) = Vault::new(encrypted) else { return };
    let largest = |packs: &[PathBuf]| {
        let size = |path: &PathBuf| fs::metadata(path).unwrap().len();
        packs.iter().max_by_key(|path| size(path)).unwrap().clone()
    };
    let (old, new) = (largest(&vault.old_packs), largest(&vault.new_packs));
    for harm in [Harm::Flip(0), Harm::Flip(500), Harm::Cut, Harm::Empty, Harm::Lost] {
        let what = format!("pack {harm:?}");
        vault.harmed(&new, harm, |vault| {
            vault.restore("latest", &what).fell_back(&vault.old, &vault.new, &what);
        });
    }
    vault.harmed(&old, Harm::Lost, |vault| {
        let target = format!("backup:{}", vault.old);
        vault.restore(&target, "the only pack").refused(DAMAGED, "pack", "the only pack");
        vault.harmed(&new, Harm::Flip(500), |vault| {
            vault.restore("latest", "both packs").refused(DAMAGED, "packs/", "both packs");
        });
    });
    let siblings: Vec<&PathBuf> = vault.new_packs.iter().take(2).collect();
    swap(siblings[0], siblings[1]);
    vault.restore("latest", "swapped packs").fell_back(&vault.old, &vault.new, "swapped packs");
    swap(siblings[0], siblings[1]);
    swap(&old, &new);
    vault.restore("latest", "packs of two backups").refused(DAMAGED, "packs/", "packs of two backups");
    swap(&old, &new);
    // What a restore over what is there reads besides.
    delta(&vault);
}

/// Page hashes that are damaged must not be believed.
fn delta(vault: &Vault) {
    let (ran, place) = vault.try_restore("latest");
    assert!(ran.status.success(), "{}", ran.told(&["delta"]));
    let pages = vault.of_backup(&vault.new, "pages");
    for harm in [Harm::Flip(500), Harm::Cut, Harm::Lost] {
        vault.harmed(&pages, harm, |vault| {
            let arguments = ["--json", "restore", CLUSTER, place.to_str().unwrap(), "--delta"];
            let ran = vault.world.everpoint.try_run(&arguments).unwrap();
            let shown = ran.told(&[&format!("pages {harm:?}")]);
            match ran.status.code() {
                Some(0) => {
                    let report: Value = serde_json::from_str(&ran.out).unwrap();
                    assert!(image(&place) == vault.images[text(&report, "/backup").unwrap()], "{shown}");
                }
                Some(DAMAGED) => assert!(place.join(MARKER).exists(), "{shown}"),
                _ => panic!("{shown}"),
            }
        });
    }
}

#[test]
fn packs_that_are_damaged_are_never_restored_encrypted() {
    packs(true);
}

#[test]
fn packs_that_are_damaged_are_never_restored_clear() {
    packs(false);
}

/// What holds the log.
fn log(encrypted: bool) {
    let Some(vault) = Vault::new(encrypted) else { return };
    let segments = vault.segments();
    let (first, last) = (vault.segment_of_start(&vault.old), segments.last().unwrap());
    let of_new = format!("backup:{}", vault.new);
    for harm in [Harm::Flip(0), Harm::Flip(500), Harm::Cut, Harm::Empty] {
        let what = format!("segment {harm:?}");
        vault.harmed(last, harm, |vault| {
            vault.restore("latest", &what).refused(DAMAGED, "log.damaged", &what);
            assert_eq!(vault.restore(&of_new, &what).code(), 0, "{what}");
        });
    }
    vault.harmed(&first, Harm::Flip(500), |vault| {
        assert_eq!(vault.restore("latest", "a segment that is not needed").code(), 0);
        let target = format!("backup:{}", vault.old);
        vault.restore(&target, "its segment").refused(DAMAGED, "log.damaged", "its segment");
    });
    vault.harmed(last, Harm::Flip(500), |vault| {
        let place = vault.world.place();
        let arguments = ["--json", "restore", CLUSTER, place.to_str().unwrap(), "--start"];
        let ran = vault.world.everpoint.try_run(&arguments).unwrap();
        assert_eq!(ran.status.code(), Some(DAMAGED), "{}", ran.told(&arguments));
        assert!(RunningCopy::on(&place).is_err(), "no server may run on it");
        assert!(
            place.join(MARKER).exists(),
            "a replay that stopped short leaves no directory that looks done"
        );
    });
    let mut digest = last.clone().into_os_string();
    digest.push(".digest");
    let tail = vault.files(".tail/").pop().unwrap();
    let lost = [
        (last, Harm::Lost),
        (&PathBuf::from(digest), Harm::Flip(500)),
        (&tail, Harm::Flip(500)),
        (&tail, Harm::Lost),
    ];
    for (object, harm) in lost {
        let what = format!("{} {harm:?}", object.display());
        vault.harmed(object, harm, |vault| {
            let listed = gaps(&vault.list(&what).unwrap());
            assert!(listed.contains("from_lsn"), "{what}: no gap is listed: {listed}");
            vault.restore("latest", &what).refused(SHORTFALL, "nearest before", &what);
            assert_eq!(vault.restore(&of_new, &what).code(), 0, "{what}");
        });
    }
    let others: Vec<&PathBuf> = segments.iter().rev().take(2).collect();
    swap(others[0], others[1]);
    vault.restore("latest", "swapped segments").refused(DAMAGED, "log.damaged", "swapped segments");
    swap(others[0], others[1]);
    assert_eq!(vault.restore("latest", "all is mended").code(), 0);
}

#[test]
fn log_that_is_damaged_is_never_replayed_encrypted() {
    log(true);
}

#[test]
fn log_that_is_damaged_is_never_replayed_clear() {
    log(false);
}
