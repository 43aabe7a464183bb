//! What the ledger and a directory of packages tell together.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use everpoint_core::budget::PackageTurn;
use everpoint_core::{BudgetPeriod, BudgetPolicy, ClockReading, FailureClass, Micros};
use everpoint_format::offsite::{ClockRecord, OffsiteClaim, OffsiteOutcome, OffsiteSending};
use everpoint_format::seal::RepositoryId;
use everpoint_offsite::FilesystemProvider;
use everpoint_repo::{OffsiteLedger, Repository};
use everpoint_store::MemoryStore;
use serde_json::Map;

use super::settle::settle;
use super::thin::thin;
use super::*;
use crate::Quiet;

/// SHA-256 of `abc`.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const HOUR: i64 = 3_600_000_000;

struct Stopped(Micros);

impl Clock for Stopped {
    fn read(&self) -> ClockReading {
        ClockReading { wall: self.0, boot: None }
    }
}

struct World {
    place: tempfile::TempDir,
    provider: FilesystemProvider,
    ledger: OffsiteLedger,
    policy: BudgetPolicy,
    clock: Stopped,
}

impl World {
    /// A process died after it had begun to send `abc` as `one.age`.
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("vault")).unwrap();
        let provider = FilesystemProvider::new(place.path().join("vault"), None);
        let ledger =
            Repository::create(Arc::new(MemoryStore::new()), None).unwrap().offsite("vault").unwrap();
        let policy = BudgetPolicy { calls: 1, period: BudgetPeriod::Rolling24h };
        let clock = Stopped(Micros(1000 * HOUR));
        let world = Self { place, provider, ledger, policy, clock };
        let record = ClockRecord::from(&world.clock.read());
        let (host, token, name) = ("h".to_owned(), "t".to_owned(), "one.age".to_owned());
        let claim = OffsiteClaim {
            clock: record.clone(),
            holder: "serve".to_owned(),
            host: host.clone(),
            process: 1,
            token: token.clone(),
            name: name.clone(),
        };
        assert!(world.ledger.claim(1, &claim).unwrap());
        let contents = Map::from_iter([("clusters".to_owned(), serde_json::json!({ "a": [] }))]);
        let sending = OffsiteSending {
            clock: record,
            host,
            process: 1,
            token,
            name,
            size: 3,
            sha256: ABC.to_owned(),
            request: String::new(),
            contents,
        };
        assert!(world.ledger.sending(1, &sending).unwrap());
        world
    }

    fn has(&self, bytes: &str) {
        fs::write(self.place.path().join("vault/one.age"), bytes).unwrap();
    }

    fn settled(&self) -> bool {
        settle(&self.ctx(), &Quiet).unwrap();
        self.ledger.last_arrived().unwrap().is_some()
    }

    fn ctx(&self) -> CallContext<'_> {
        CallContext {
            ledger: &self.ledger,
            provider: &self.provider,
            policy: &self.policy,
            clock: &self.clock,
            holder: "test",
        }
    }

    fn fetch(&self, reference: &str, with_ledger: bool) -> Result<(FetchReport, PathBuf), crate::AppError> {
        let file = self.place.path().join("fetched");
        let request = FetchRequest { reference: reference.to_owned(), file: file.clone() };
        let ctx = self.ctx();
        fetch(&self.provider, Some(&ctx).filter(|_| with_ledger), &request, &Quiet)
            .map(|report| (report, file))
    }
}

#[test]
fn a_call_whose_process_died_arrived_if_the_provider_has_the_whole_file() {
    let world = World::new();
    assert!(!world.settled(), "nothing is there");
    world.has("ab");
    assert!(!world.settled(), "it is not whole");
    world.has("abc");
    assert!(world.settled());
    assert!(contents(&world.ledger).unwrap().clusters.contains_key("a"), "what it holds is known");
    let status = status(&world.ledger, &world.policy, &world.clock, "vault").unwrap();
    assert_eq!(status.left, 0, "it is spent all the same");
}

#[test]
fn a_package_that_is_wanted_waits_for_the_budget_and_is_served_by_one_that_arrived() {
    let world = World::new();
    let wanted = Micros(world.clock.0.0 - HOUR);
    let turn = |wanted| turn(&world.ledger, &world.policy, wanted, &world.clock).unwrap();
    assert!(matches!(turn(wanted), PackageTurn::Wait(Some(_))));
    world.has("abc");
    assert!(world.settled());
    assert_eq!(turn(wanted), PackageTurn::Done(world.clock.0));
    assert!(matches!(turn(Micros(world.clock.0.0 + HOUR)), PackageTurn::Wait(Some(_))));
}

#[test]
fn what_is_fetched_is_compared_with_what_was_sent() {
    let world = World::new();
    world.has("abc");
    for reference in ["1", "one.age"] {
        let (report, file) = world.fetch(reference, true).unwrap();
        assert!(report.compared && report.sha256 == ABC, "{reference}");
        assert_eq!(fs::read(&file).unwrap(), b"abc");
        assert_eq!(world.fetch(reference, true).unwrap_err().code, "offsite.file_exists");
        fs::remove_file(file).unwrap();
    }
    world.has("abd");
    let changed = world.fetch("1", true).unwrap_err();
    assert_eq!((changed.code.as_str(), changed.class), ("offsite.changed", FailureClass::Damaged));
    let left: Vec<_> =
        fs::read_dir(world.place.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["vault"], "nothing of it stays");
    assert_eq!(world.fetch("latest", true).unwrap_err().code, "offsite.none_arrived");
    let missing = world.fetch("two.age", true).unwrap_err().to_string();
    assert_eq!(missing.matches("cannot").count(), 1, "said once: {missing}");
    // On an empty machine there is no ledger.
    let (report, _) = world.fetch("one.age", false).unwrap();
    assert!(!report.compared);
}

impl World {
    /// A package arrived under this number.
    fn arrived(&self, number: u32, contents: serde_json::Value) -> String {
        let name = package_name(number);
        let clock = ClockRecord::from(&self.clock.read());
        let (host, token, sha256) = ("h".to_owned(), "t".to_owned(), ABC.to_owned());
        let contents = contents.as_object().unwrap().clone();
        let sending = OffsiteSending {
            clock: clock.clone(),
            host,
            process: 1,
            token,
            name: name.clone(),
            size: 3,
            sha256: sha256.clone(),
            request: String::new(),
            contents: contents.clone(),
        };
        assert!(self.ledger.sending(number, &sending).unwrap());
        let outcome = OffsiteOutcome {
            status: "arrived".to_owned(),
            clock,
            provider_date: None,
            message: String::new(),
            name: name.clone(),
            size: 3,
            sha256,
            contents,
        };
        assert!(self.ledger.outcome(number, &outcome).unwrap());
        fs::write(self.place.path().join("vault").join(&name), "abc").unwrap();
        name
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.place.path().join("vault")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn package_name(number: u32) -> String {
    crate::package::name(RepositoryId([7; 16]), Micros(1000 * HOUR), Some(number))
}

#[test]
fn of_a_directory_that_keeps_one_package_only_own_ones_go_and_never_the_last_image() {
    let world = World::new();
    let world =
        World { provider: FilesystemProvider::new(world.place.path().join("vault"), Some(1)), ..world };
    let others = [
        "everpoint-order-db.key".to_owned(),
        crate::package::name(RepositoryId([8; 16]), Micros(0), Some(1)),
        package_name(99),
    ];
    for other in &others {
        fs::write(world.place.path().join("vault").join(other), "mine").unwrap();
    }
    let stay = |packages: &[&String]| {
        let mut all: Vec<String> =
            packages.iter().map(|name| (*name).clone()).chain(others.clone()).collect();
        all.sort();
        all
    };
    let unknown = world.arrived(2, serde_json::json!({ "clusters": { "a": [] } }));
    let old = world.arrived(3, serde_json::json!({ "clusters": {}, "images": { "a": true } }));
    let image = world.arrived(4, serde_json::json!({ "clusters": {}, "images": { "a": true } }));
    let log = world.arrived(5, serde_json::json!({ "clusters": {}, "images": { "a": false } }));
    thin(&world.ctx(), &log, &Quiet);
    assert_eq!(world.files(), stay(&[&unknown, &image, &log]), "{old} is not needed");
    let next = world.arrived(6, serde_json::json!({ "clusters": {}, "images": { "a": true } }));
    thin(&world.ctx(), &next, &Quiet);
    assert_eq!(world.files(), stay(&[&unknown, &next]));
}
