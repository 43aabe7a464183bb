//! Processes are killed with SIGKILL at random instants. After each kill a restore to the latest moment must hold every
//! commit that was acknowledged, and exactly what the source's log holds up to where it stopped; in the end every backup
//! that is listed as good restores.

use std::fmt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use everpoint_testkit::{Judge, Random, Record, Writers, parse_lsn, say, text};
use serde_json::Value;

use crate::compaction;
use crate::world::{CLUSTER, Setting, World};
use crate::{Capture, Options};

/// How long the longest command usually takes: kills fall anywhere within.
const SPAN_MS: u64 = 1500;
/// One in so many kills of a capture falls inside a compaction, not anywhere.
const COMPACTIONS: u32 = 5;

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Capture,
    Compaction,
    Backup,
    Restore,
    Server,
    ServerInBackup,
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Capture => "capture",
            Self::Compaction => "capture, inside a compaction,",
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::Server => "PostgreSQL",
            Self::ServerInBackup => "PostgreSQL, during a backup,",
        })
    }
}

pub(crate) fn run(setting: &Setting, options: &Options) -> Result<()> {
    let mut world = World::new(setting, &options.binary)?;
    let done = trial(&mut world, setting, options);
    world.close(done)
}

fn trial(world: &mut World, setting: &Setting, options: &Options) -> Result<()> {
    let mut random = Random::new(setting.seed);
    let mut record = Record::default();
    world.backup(true)?;
    let victims = victims(setting.capture, options.count, &mut random);
    let mut compactions = 0;
    for (round, &victim) in (0_u32..).zip(&victims) {
        let writing = world.writing(setting.seed.wrapping_add(u64::from(round)), round * 10);
        let writers = Writers::start(world.source.address(), &writing)?;
        sleep(Duration::from_millis(random.below(SPAN_MS)));
        kill(world, victim, &mut random).with_context(|| format!("round {round}, {victim}"))?;
        compactions += u32::from(victim == Victim::Compaction);
        sleep(Duration::from_millis(random.below(SPAN_MS / 2)));
        record.extend(writers.stop());
        let context = || format!("round {round}, after {victim} was killed");
        let exact = if setting.capture == Capture::None {
            let backups = world.backups().with_context(context)?;
            let newest = backups.last().context("no backup is listed as good")?.clone();
            backup(world, &record, &newest).with_context(context)?;
            format!("the newest of {} backups restores exactly", backups.len())
        } else {
            let (end, took) = world.settle().with_context(context)?;
            let exact = judge(world, &record, end).with_context(context)?;
            format!("settled in {:.2} s; {exact}", took.as_secs_f64())
        };
        say(&format!("   round {round}: {victim} killed; {exact}"));
    }
    say(&format!("   {} kills, {compactions} of them seen inside a compaction", victims.len()));
    every_backup(world, &record)
}

/// `count` of each kind of victim, in random order. Where nothing captures there is none to kill.
fn victims(capture: Capture, count: u32, random: &mut Random) -> Vec<Victim> {
    let mut victims = Vec::new();
    for number in 0..count {
        match capture {
            Capture::Stream if number % COMPACTIONS == 0 => victims.push(Victim::Compaction),
            Capture::Stream | Capture::Archive => victims.push(Victim::Capture),
            Capture::None => {}
        }
        if capture != Capture::None {
            victims.push(Victim::Restore);
        }
        victims.push(Victim::Backup);
        victims.push(if number % 2 == 0 { Victim::Server } else { Victim::ServerInBackup });
    }
    for last in (1..victims.len()).rev() {
        let other = usize::try_from(random.below(last as u64 + 1)).unwrap_or(0);
        victims.swap(last, other);
    }
    victims
}

/// Kills something, and starts again what was killed.
fn kill(world: &mut World, victim: Victim, random: &mut Random) -> Result<()> {
    match victim {
        Victim::Capture => {
            world.kill_capture()?;
            sleep(Duration::from_millis(random.below(300)));
            world.start_capture()
        }
        Victim::Compaction => {
            compaction::kill_inside(world)?;
            world.start_capture()
        }
        Victim::Server => {
            world.source.kill9()?;
            world.source.start()
        }
        Victim::Restore => {
            let place = world.place();
            interrupted_restore(world, &place, random)
        }
        Victim::ServerInBackup => {
            // The server and the backup that reads from it at once.
            let backup = world.everpoint.spawn(&["backup", CLUSTER])?;
            sleep(Duration::from_millis(random.below(SPAN_MS / 3)));
            world.source.kill9()?;
            world.source.start()?;
            let _ = backup.wait(Duration::from_secs(120))?;
            world.backup(random.chance(30))
        }
        Victim::Backup => {
            let kind = if random.chance(30) { "--full" } else { "--incremental" };
            let mut backup = world.everpoint.spawn(&["backup", CLUSTER, kind])?;
            sleep(Duration::from_millis(random.below(SPAN_MS / 2)));
            backup.kill9()?;
            world.backup(random.chance(30))
        }
    }
}

/// A restore that was killed is taken up again in the same directory.
fn interrupted_restore(world: &World, place: &Path, random: &mut Random) -> Result<()> {
    let place_text = place.to_str().context("a path is not UTF-8")?;
    let mut restore = world.everpoint.spawn(&["restore", CLUSTER, place_text])?;
    sleep(Duration::from_millis(random.below(SPAN_MS)));
    restore.kill9()?;
    let begun = place.exists();
    let (copy, _) = world.restore(place, "latest", if begun { &["--delta"] } else { &[] })?;
    copy.session()?.query("SELECT count(*) FROM ledger")?;
    world.remove(copy, place, true)
}

/// Restores to the latest moment and compares; returns what was found, in words.
fn judge(world: &mut World, record: &Record, end: u64) -> Result<String> {
    let judge = Judge::new(record, world.history()?)?;
    let place = world.place();
    let since = Instant::now();
    let (copy, report) = world.restore(&place, "latest", &[])?;
    let took = since.elapsed();
    let mut session = copy.session()?;
    // All writers had stopped before the log was seen to be stored up to `end`: every acknowledged commit lies before it.
    let ends = judge.history().before_lsn(end);
    let held: std::collections::BTreeSet<u32> =
        ends.iter().filter(|end| end.committed).map(|end| end.xid).collect();
    let missing = record.acknowledged().filter(|(done, _)| !held.contains(&done.xid)).count();
    ensure!(missing == 0, "the judge's log ends too early: {missing} acknowledged commits lie beyond it");
    let expected = judge.expect(ends);
    let verdict = expected.compare(&mut session)?;
    ensure!(verdict.is_exact(), "{} differences: {:#?}\n{report}", verdict.count, verdict.differences);
    world.remove(copy, &place, true)?;
    Ok(format!(
        "{} acknowledged commits all there, restored in {:.1} s",
        expected.transactions,
        took.as_secs_f64()
    ))
}

/// Every backup that is listed as good restores to its own end, exactly.
fn every_backup(world: &mut World, record: &Record) -> Result<()> {
    let backups = world.backups()?;
    ensure!(!backups.is_empty(), "no backup is listed as good");
    for label in &backups {
        backup(world, record, label).with_context(|| format!("backup {label}"))?;
    }
    say(&format!("   each of {} listed backups restores exactly", backups.len()));
    Ok(())
}

/// A backup restores to its own end, exactly.
fn backup(world: &mut World, record: &Record, label: &str) -> Result<()> {
    let judge = Judge::new(record, world.history()?)?;
    let place = world.place();
    let (copy, report) = world.restore(&place, &format!("backup:{label}"), &[])?;
    let reached = reached(&report)?;
    let expected = judge.expect(judge.history().before_lsn(reached));
    let verdict = expected.compare(&mut copy.session()?)?;
    ensure!(verdict.is_exact(), "{} differences: {:#?}\n{report}", verdict.count, verdict.differences);
    world.remove(copy, &place, true)
}

/// The end of the last record that a restore replayed.
fn reached(report: &Value) -> Result<u64> {
    parse_lsn(text(report, "/reached/lsn")?).context("the position reached is malformed")
}
