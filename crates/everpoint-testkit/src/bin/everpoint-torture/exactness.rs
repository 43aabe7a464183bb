//! Restores to random moments, under concurrent writers, hold exactly the rows that PostgreSQL promises.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use everpoint_testkit::{Ended, Judge, Random, Record, Session, Writers, now, print_time, say};

use crate::world::{Setting, World};
use crate::{Capture, Options};

pub(crate) fn run(setting: &Setting, options: &Options) -> Result<()> {
    ensure!(setting.capture != Capture::None, "without a log only the ends of backups can be restored");
    let mut world = World::new(setting, &options.binary)?;
    let done = trial(&mut world, setting, options);
    world.close(done)
}

fn trial(world: &mut World, setting: &Setting, options: &Options) -> Result<()> {
    world.backup(true)?;
    let first = now();
    let record = write(world, setting, options.seconds)?;
    let (_, took) = world.settle()?;
    world.check_capture()?;
    let judge = Judge::new(&record, world.history()?)?;
    let ends = judge.history().ends();
    let last = match setting.capture {
        Capture::Stream => {
            let moment = now();
            let took = world.settle_time(moment)?;
            say(&format!(
                "   a moment without commits could be restored to {:.2} s later",
                took.as_secs_f64()
            ));
            moment
        }
        // An archive knows of no time after its last commit: what lies beyond may have been lost with the server.
        Capture::Archive | Capture::None => ends.iter().map(|end| end.time).max().unwrap_or(first),
    };
    say(&format!(
        "   {} transactions, {} acknowledged; the repository had the last {:.2} s after the end",
        record.transactions.len(),
        record.acknowledged().count(),
        took.as_secs_f64()
    ));
    let mut random = Random::new(setting.seed);
    let mut exact = 0;
    for number in 0..options.count {
        let moment = choose(&mut random, number, first, last, ends);
        let expected = judge.at_time(moment);
        let place = world.place();
        let at = print_time(moment);
        let (copy, report) = world.restore(&place, &at, &[]).with_context(|| format!("moment {number}"))?;
        let verdict = expected.compare(&mut copy.session()?)?;
        ensure!(
            verdict.is_exact(),
            "moment {number}, {at}: {} differences, {:#?}\nreport: {report}",
            verdict.count,
            verdict.differences
        );
        world.remove(copy, &place, number % 5 == 0)?;
        exact += 1;
        say(&format!("   {at}: exact, {} transactions, {} rows", expected.transactions, expected.rows.len()));
    }
    world.check_capture()?;
    say(&format!("   {exact} of {} moments exact", options.count));
    Ok(())
}

/// Lets the writers write, with checkpoints, backups and changes of files among them.
fn write(world: &World, setting: &Setting, seconds: u64) -> Result<Record> {
    let writers = Writers::start(world.source.address(), &world.writing(setting.seed, 0))?;
    let third = Duration::from_millis(seconds.saturating_mul(1000) / 3);
    let mut session = world.source.session()?;
    sleep(third);
    session
        .query("CREATE TABLE beside AS SELECT g, repeat('x', 100) AS t FROM generate_series(1, 5000) g")?;
    world.backup(false)?;
    sleep(third);
    disturb(&mut session)?;
    world.backup(false)?;
    sleep(third);
    let record = writers.stop();
    ensure!(record.refusals.is_empty(), "the server refused: {:?}", record.refusals);
    ensure!(record.losses == 0, "connections broke without anyone killing them");
    Ok(record)
}

/// Work that moves tables to other files and makes pages change in other ways than rows do.
fn disturb(session: &mut Session) -> Result<()> {
    for sql in [
        "TRUNCATE beside",
        "INSERT INTO beside SELECT g, repeat('y', 100) FROM generate_series(1, 3000) g",
        "VACUUM FULL beside",
        "REINDEX INDEX ledger_account",
        "VACUUM ledger",
        "CHECKPOINT",
        "SELECT pg_switch_wal()",
        "DROP TABLE beside",
    ] {
        session.query(sql).with_context(|| sql.to_owned())?;
    }
    Ok(())
}

/// Half of the moments are anywhere; the others at the very microsecond of a commit or abort, and just before one.
fn choose(random: &mut Random, number: u32, first: i64, last: i64, ends: &[Ended]) -> i64 {
    let later: Vec<i64> = ends.iter().map(|end| end.time).filter(|&time| time > first).collect();
    let place = usize::try_from(random.below(later.len() as u64)).unwrap_or(0);
    match (number % 4, later.get(place)) {
        (1, Some(&time)) => time,
        (3, Some(&time)) => time - 1,
        _ => random.between(first, last),
    }
}
