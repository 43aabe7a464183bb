//! Jobs and captures that die, and configurations that change, without any server.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser as _;
use everpoint_app::{AppError, Event, Events as _, text};
use everpoint_core::{FailureClass, LogOffset, Micros};
use everpoint_engine::StopFlag;

use super::current::{Captures, Current, Followed, read};
use super::history::History;
use super::job::{Kind, Order};
use super::runner::{Runner, Work};
use super::watch::{Watched, ended};
use crate::cli::{Cli, Global};
use crate::config::{Config, otel::OtelConfig};
use crate::trace::Traces;

/// Nobody listens at that port.
const NOBODY: &str = "postgres://nobody@127.0.0.1:1/x";

fn write(home: &Path, clusters: &[&str], more: &str) -> Global {
    let path = home.join("everpoint.toml");
    let mut text = format!("[repository.local]\nurl = \"{}/repository\"\n", home.display());
    clusters.iter().for_each(|name| text.push_str(&format!("[cluster.{name}]\npostgres = \"{NOBODY}\"\n")));
    std::fs::write(&path, text + more).unwrap();
    let arguments = ["everpoint", "--config", path.to_str().unwrap(), "-q", "serve"];
    Cli::try_parse_from(arguments).unwrap().global
}

fn runner(home: &Path, clusters: &[&str], schedule: &str, work: Box<Work>) -> Arc<Runner> {
    let global = write(home, clusters, schedule);
    let config = Arc::new(Config::load(&home.join("everpoint.toml")).unwrap());
    let watched: Vec<Arc<Watched>> = clusters.iter().map(|name| Arc::new(Watched::new(name))).collect();
    Arc::new(Runner {
        global,
        current: Mutex::new(Arc::new(Current::nothing(&config).next(Arc::clone(&config), watched))),
        history: Arc::new(History::open(&home.join("state.db")).unwrap()),
        work,
        stop: StopFlag::default(),
        running: Mutex::default(),
        wanted: Mutex::default(),
        renewed: Mutex::default(),
        traces: Traces::start(&OtelConfig::default()).unwrap(),
    })
}

fn wait(what: &str, done: &dyn Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn failed(message: &str) -> AppError {
    AppError::new("test", FailureClass::Failed, "work", "here", message)
}

#[test]
fn a_job_that_panics_has_failed_and_the_next_one_begins() {
    let home = tempfile::tempdir().unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let work: Box<Work> = Box::new(move |_, order, _, _, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        assert_eq!(order.kind, Kind::Bundle, "as wanted");
        Ok(serde_json::Value::Null)
    });
    let runner = runner(home.path(), &["a"], "", work);
    runner.want_backup("a", "it has no good backup");
    let id = runner.start(Order::new(Kind::Backup, "a"), text::now()).unwrap();
    wait("the panic ends the run", &|| runner.running().is_empty());
    let row = runner.history.job(id).unwrap().unwrap();
    assert_eq!((row.state.as_str(), row.code()), ("failed", Some("internal")));
    assert!(row.error.unwrap().to_string().contains("as wanted"));
    assert!(runner.wanted.lock().unwrap().contains_key("a"), "the backup is wanted still");
    let id = runner.start(Order::new(Kind::Bundle, "a"), text::now()).unwrap();
    wait("the next job runs", &|| runner.running().is_empty());
    assert_eq!(runner.history.job(id).unwrap().unwrap().state, "ok");
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[test]
fn a_capture_that_panics_has_failed() {
    let captured = std::thread::spawn(|| panic!("as wanted"));
    let error = ended("a", captured).unwrap_err();
    assert_eq!(error.code, "internal");
    assert!(ended("a", std::thread::spawn(|| Ok(()))).is_ok());
    assert!(ended("a", std::thread::spawn(|| Err(failed("no disk")))).is_err());
}

/// Backups of a day that fail, seen every ten minutes: hours and minutes at which they began, as which try.
#[test]
fn after_a_failed_backup_the_schedule_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let work: Box<Work> = Box::new(|_, _, _, _, _| Ok(serde_json::Value::Null));
    let runner = runner(home.path(), &["a"], "[schedule]\nbackup = \"30 2 * * *\"\n", work);
    let minute = |at: i64| Micros((1_700_006_400 + at * 60) * 1_000_000);
    let (watched, mut runs) = (Arc::clone(&runner.current().watched[0]), BTreeMap::new());
    let schedules = runner.current().config.schedules.clone();
    // By hand, at 01:40.
    let by_hand = runner.history.begin(Kind::Backup, "a", 0, "running", minute(100)).unwrap();
    runner.history.end(by_hand, "failed", None, None, minute(101)).unwrap();
    for at in (110..24 * 60).step_by(10) {
        let Some(order) = runner.due(Kind::Backup, &watched, &schedules, minute(at)).unwrap() else {
            continue;
        };
        let id = runner.history.begin(Kind::Backup, "a", order.tried, "running", minute(at)).unwrap();
        runner.history.end(id, "failed", None, None, minute(at + 1)).unwrap();
        runs.insert(at, order.tried);
    }
    assert_eq!(runs, BTreeMap::from([(150, 0), (220, 1), (290, 2), (360, 3)]));
}

/// A server that another cluster had is free when that is gone.
#[test]
fn what_goes_on_knows_which_others_there_are_now() {
    let home = tempfile::tempdir().unwrap();
    let global = write(home.path(), &["a", "b"], "");
    let history = Arc::new(History::open(&home.path().join("state.db")).unwrap());
    let mut captures = Captures::new(global.clone(), history);
    for names in [&["a", "b"][..], &["b", "c"]] {
        write(home.path(), names, "");
        let (config, all) = read(&global).unwrap();
        captures.follow(&config, &all).unwrap();
        assert_eq!(captures.known_to("b"), names);
    }
    captures.stop();
}

#[test]
fn what_is_captured_follows_the_configuration() {
    let home = tempfile::tempdir().unwrap();
    let global = write(home.path(), &["a", "b"], "");
    let history = Arc::new(History::open(&home.path().join("state.db")).unwrap());
    let mut captures = Captures::new(global.clone(), history);
    let mut follow = || {
        let (config, names) = read(&global).unwrap();
        captures.follow(&config, &names).unwrap()
    };
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let (first, followed) = follow();
    assert_eq!(followed.begun, named(&["a", "b"]));
    let (second, followed) = follow();
    assert_eq!(followed, Followed::default());
    assert!(Arc::ptr_eq(&first[0], &second[0]), "what stays as it was goes on");
    write(home.path(), &["b", "c"], "slot = \"mine\"\n[schedule]\nbackup = \"off\"\n");
    let (third, followed) = follow();
    assert_eq!((followed.begun, followed.changed), (named(&["c"]), Vec::new()));
    assert_eq!(followed.ended[0].0, "a");
    assert_eq!(third.iter().map(|watched| watched.cluster.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    assert!(Arc::ptr_eq(&second[1], &third[0]));
    write(home.path(), &["b", "c"], "");
    assert_eq!(follow().1.changed, ["c"], "another slot is another capture");
    std::fs::write(home.path().join("everpoint.toml"), "").unwrap();
    assert_eq!(read(&global).unwrap_err().code, "serve.no_cluster", "an empty file ends no protection");
    std::fs::write(home.path().join("everpoint.toml"), "[cluster").unwrap();
    assert_eq!(read(&global).unwrap_err().code, "config.invalid");
    write(home.path(), &[], "");
    assert_eq!(read(&global).unwrap().1, named(&[]), "the last cluster was forgotten");
    for thread in captures.stop() {
        thread.join().unwrap();
    }
}

#[test]
fn a_capture_is_well_while_it_stores_and_its_end_is_said() {
    let watched = Watched::new("a");
    assert!(!watched.is_well() && !watched.has_begun(), "from the first moment");
    let stored =
        |position| Event::Captured { timeline: 1, position: LogOffset(position), covered_until: None };
    watched.emit(stored(5));
    assert!(watched.is_well());
    watched.emit(Event::Failing { why: "no disk".to_owned(), full: false });
    assert!(!watched.is_well());
    watched.emit(stored(5));
    assert!(!watched.is_well(), "nothing was stored by that");
    watched.emit(stored(6));
    assert!(watched.is_well());
}
