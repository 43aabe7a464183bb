//! What a restored directory holds, as a server says it.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use everpoint_testkit::{PgCluster, RunningCopy, Scratch, Session, StopMode};

use super::stage::{Moment, Stage, rows_of};

/// Starts a server on the directory, lets it recover, compares, stops it.
pub(crate) fn check(stage: &Stage, directory: &Path, moment: &Moment) -> Result<()> {
    let home = Scratch::new("trees-server")?;
    let mut server = PgCluster::on_directory(stage.install().clone(), home, directory.to_owned())?;
    server.start()?;
    let since = Instant::now();
    while server.psql("SELECT pg_is_in_recovery()")? == "t" {
        ensure!(since.elapsed() < Duration::from_secs(60), "recovery does not end:\n{}", server.log());
        sleep(Duration::from_millis(10));
    }
    compare(&mut server.session()?, moment)?;
    server.stop(StopMode::Fast)
}

/// Compares what runs there already, and stops it.
pub(crate) fn check_started(stage: &Stage, directory: &Path, moment: &Moment) -> Result<()> {
    let copy = RunningCopy::on(directory)?;
    compare(&mut copy.session()?, moment)?;
    copy.stop_and_check(stage.install())
}

fn compare(session: &mut Session, moment: &Moment) -> Result<()> {
    let mut ask = |sql: &str| {
        session.query(sql).map(|answer| answer.to_string()).map_err(|why| anyhow!("{sql}: {why}"))
    };
    // Rows of an abandoned future that stayed on disk show once their transaction ids have been used again.
    for _ in 0..20 {
        ask("SELECT pg_current_xact_id()")?;
    }
    let all = ["plain", "alpha", "beta", "gamma"];
    let tables = if moment.gamma { &all[..] } else { &all[..3] };
    let there = ask("SELECT count(*) FROM pg_tablespace WHERE spcname = 'gamma'")?;
    ensure!(there == if moment.gamma { "1" } else { "0" }, "tablespace gamma: {there}");
    let found = ask(&rows_of(tables))?;
    ensure!(found == moment.rows, "rows are\n{found}\nand have to be\n{}", moment.rows);
    Ok(())
}
