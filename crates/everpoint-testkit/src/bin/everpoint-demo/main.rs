//! The demonstration: two clusters at work, a disaster in each, and both brought back to just before it, judged by the
//! applications' own record of what they were told was committed.

// A demonstration is made to be looked at.
#![allow(clippy::print_stdout)]

mod shop;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use everpoint_testkit::{Background, Everpoint, print_time};

use crate::shop::{Disaster, Shop};
use crate::show::Show;

#[derive(Debug, Parser)]
#[command(about = "Two clusters, a disaster in each, and both brought back")]
struct Cli {
    /// The everpoint program
    #[arg(long, value_name = "PATH")]
    binary: PathBuf,
    /// Seconds of ordinary work before the disaster
    #[arg(long, default_value_t = 12)]
    seconds: u64,
}

fn main() -> ExitCode {
    let show = Show::new();
    let since = Instant::now();
    match run(&Cli::parse(), &show) {
        Ok(()) => {
            show.line(&format!("Everything is cleaned up. It took {:.0} s.", since.elapsed().as_secs_f64()));
            ExitCode::SUCCESS
        }
        Err(why) => {
            show.bad(&format!("The demonstration failed: {why:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli, show: &Show) -> Result<()> {
    show.chapter("Two databases go to work");
    let mut orders = Shop::open("order-db", 15, 1)?;
    let mut stock = Shop::open("inventory-db", 18, 2)?;
    show.line("order-db is PostgreSQL 15, inventory-db PostgreSQL 18: real servers, just made.");
    show.line(
        "Six sessions write to each: short and long transactions, rollbacks, savepoints, prepared ones.",
    );
    show.line("Each notes what the server told it was committed. That record is the judge in the end.");

    show.chapter("One repository protects both");
    let everpoint =
        Everpoint::new(&cli.binary, &[(orders.name, &orders.cluster), (stock.name, &stock.cluster)])?;
    command(&everpoint, show, &["init"])?;
    let mut capturing = Vec::new();
    for shop in [&orders, &stock] {
        show.command(&format!("everpoint capture {} &", shop.name));
        capturing.push(everpoint.spawn(&["capture", shop.name])?);
    }
    for shop in [&orders, &stock] {
        command(&everpoint, show, &["backup", shop.name])?;
    }

    show.chapter("An ordinary day");
    work(cli, show, &[&orders, &stock])?;

    show.chapter("The disaster");
    let dropped = orders.suffer(Disaster::Drop)?;
    show.bad(&format!(
        "order-db      {}  DROP TABLE ledger  (transaction {})",
        print_time(dropped.at),
        dropped.xid
    ));
    let wrecked = stock.suffer(Disaster::Wreck)?;
    show.bad(&format!(
        "inventory-db  {}  every balance set to 0, a third of the ledger deleted",
        print_time(wrecked.at)
    ));
    sleep(Duration::from_secs(1));
    orders.close();
    stock.close();
    show.line(
        "Nobody prepared anything: the newest backup is older than the damage, and so is half of the work.",
    );
    for (shop, background) in [&orders, &stock].into_iter().zip(&mut capturing) {
        wait_until_stored(&everpoint, shop, background)?;
    }

    show.chapter("Back to just before");
    let lost = recover(&everpoint, show, &orders, &format!("before-xid:{}", dropped.xid), &dropped)?;
    let ruined = recover(&everpoint, show, &stock, &print_time(wrecked.before), &wrecked)?;

    show.chapter("What was proven");
    show.good(&format!(
        "order-db: all {} commits acknowledged before the drop are there, and not one more, not one less \
         than PostgreSQL's own log says.",
        lost
    ));
    show.good(&format!(
        "inventory-db: all {ruined} commits acknowledged before the damage, to the microsecond."
    ));
    show.good("Indexes agree with their tables, and every page of the copies has its checksum.");
    show.good("Production was not touched: both servers still run, damaged as they are, beside the copies.");
    for background in capturing {
        background.stop()?;
    }
    Ok(())
}

/// Runs a command and shows it with what it prints.
fn command(everpoint: &Everpoint, show: &Show, arguments: &[&str]) -> Result<()> {
    show.command(&format!("everpoint {}", arguments.join(" ")));
    let out = everpoint.run(arguments)?;
    for line in out.lines() {
        show.output(&line.replace(&everpoint.home().path().display().to_string(), "…"));
    }
    Ok(())
}

/// Shows the count of commits while the writers write.
fn work(cli: &Cli, show: &Show, shops: &[&Shop]) -> Result<()> {
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(cli.seconds) {
        sleep(Duration::from_millis(500));
        let counts: Vec<String> =
            shops.iter().map(|shop| format!("{} {:>6} commits", shop.name, shop.acknowledged())).collect();
        show.pulse(&counts.join("    "));
    }
    show.pulse_end();
    let counts: Vec<String> =
        shops.iter().map(|shop| format!("{} for {}", shop.acknowledged(), shop.name)).collect();
    show.line(&format!("Acknowledged commits so far: {}.", counts.join(", ")));
    Ok(())
}

/// Waits until the repository holds all that the server has written.
fn wait_until_stored(everpoint: &Everpoint, shop: &Shop, capturing: &mut Background) -> Result<()> {
    let end = shop.cluster.flushed()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        anyhow::ensure!(capturing.runs()?, "capture of {} ended: {}", shop.name, capturing.said());
        if shop::stored_until(everpoint, shop.name)? >= end {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "the log of {} is not stored within a minute", shop.name);
        sleep(Duration::from_millis(100));
    }
}

/// Restores to a target, starts the copy, and judges it; returns how many acknowledged commits it holds.
fn recover(
    everpoint: &Everpoint,
    show: &Show,
    shop: &Shop,
    target: &str,
    damage: &shop::Damage,
) -> Result<usize> {
    let place = everpoint.home().path().join(format!("{}-restored", shop.name));
    let place_text = place.to_str().context("a path is not UTF-8")?;
    show.command(&format!("everpoint restore {} /restored/{} --to '{target}' --start", shop.name, shop.name));
    let since = Instant::now();
    let arguments = ["restore", shop.name, place_text, "--to", target, "--start"];
    let report = everpoint.json(&arguments)?;
    let took = since.elapsed().as_secs_f64();
    let reached = report.pointer("/reached/time").and_then(|time| time.as_str()).unwrap_or("?");
    show.output(&format!("accepts connections after {took:.1} s; its last commit was at {reached}"));
    let verdict = shop.judge(&place, damage)?;
    show.good(&format!(
        "{}: {} rows and {} balances compared, no difference",
        shop.name, verdict.rows, verdict.balances
    ));
    Ok(verdict.acknowledged)
}
