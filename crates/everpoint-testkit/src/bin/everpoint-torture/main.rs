//! Long trials of the whole program on real servers. Each says at its end what was proven; the seed that it prints repeats
//! its choices (not their timing).

mod compaction;
mod disk;
mod exactness;
mod full;
mod kill9;
mod life;
mod packages;
mod serve;
mod trees;
mod vault;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use everpoint_testkit::{now, say};

#[derive(Debug, Parser)]
#[command(about = "Long trials of everpoint on real PostgreSQL servers")]
struct Cli {
    #[command(subcommand)]
    trial: Trial,
}

#[derive(Debug, Subcommand)]
enum Trial {
    /// Restores to random moments hold exactly what PostgreSQL promises at that moment
    Exactness(Options),
    /// Processes are killed at random instants; no acknowledged commit is missing, every listed backup restores
    Kill9(Options),
    /// Restores in place, copies, failovers, upgrades and tablespaces in random order: production stays protected, and exact
    Life(life::Options),
    /// A daemon under load, watched: its memory stays flat, and what is committed is captured within a second
    Serve(serve::Options),
    /// The repository's disk runs full under load: the database stays up, and all is well again once there is room
    Full(full::Options),
    /// Processes are killed around the call of a day: never one too many, and the next package covers all
    Calls(packages::Options),
    /// Restores into random trees: only proven places change, what is legitimate is restored exactly
    Trees(trees::Options),
    /// Some days' calls fail; random moments come back from the packages alone
    Days(packages::Options),
}

/// Where and how much.
#[derive(Debug, Clone, Args)]
struct Options {
    /// The everpoint program
    #[arg(long, value_name = "PATH")]
    binary: PathBuf,
    /// Determines all choices [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Moments per version and kind of capture, or kills of each kind of victim
    #[arg(long, default_value_t = 20)]
    count: u32,
    /// Major versions, comma-separated
    #[arg(long, value_delimiter = ',', default_values_t = [13, 14, 15, 16, 17, 18])]
    version: Vec<u32>,
    /// How the log is captured
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Capture::Stream, Capture::Archive])]
    capture: Vec<Capture>,
    /// Seconds of writing (exactness)
    #[arg(long, default_value_t = 12)]
    seconds: u64,
}

/// How the log is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Capture {
    /// `everpoint capture`
    Stream,
    /// `archive_command` with `everpoint archive-push`
    Archive,
    /// Nothing captures, and the server recycles its log: each backup has to stand alone (kill9)
    None,
}

impl std::fmt::Display for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stream => "stream",
            Self::Archive => "archive",
            Self::None => "nothing",
        })
    }
}

fn main() -> ExitCode {
    match Cli::parse().trial {
        Trial::Exactness(options) => in_each_setting("exactness", &options, exactness::run),
        Trial::Kill9(options) => in_each_setting("kill9", &options, kill9::run),
        Trial::Life(options) => once("life", life::run(&options)),
        Trial::Serve(options) => once("serve", serve::run(&options)),
        Trial::Full(options) => once("full", full::run(&options)),
        Trial::Trees(options) => once("trees", trees::run(&options)),
        Trial::Calls(options) => once("calls", packages::calls(&options)),
        Trial::Days(options) => once("days", packages::days(&options)),
    }
}

/// Runs a trial with each version and each kind of capture.
fn in_each_setting(
    name: &str,
    options: &Options,
    trial: fn(&world::Setting, &Options) -> anyhow::Result<()>,
) -> ExitCode {
    let seed = options.seed.unwrap_or_else(|| now().unsigned_abs());
    let mut failed = 0;
    for &version in &options.version {
        for &capture in &options.capture {
            let setting = world::Setting { version, capture, seed };
            say(&format!("== {name}: PostgreSQL {version}, capture by {capture}, --seed {seed}"));
            if let Err(why) = trial(&setting, options) {
                failed += 1;
                say(&format!(
                    "FAILED {name}: PostgreSQL {version}, capture by {capture}, --seed {seed}: {why:#}"
                ));
            }
        }
    }
    let trials = options.version.len() * options.capture.len();
    say(&format!("{name}: {trials} trials, {failed} failed"));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says how a trial ended.
fn once(name: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => {
            say(&format!("{name}: passed"));
            ExitCode::SUCCESS
        }
        Err(why) => {
            say(&format!("FAILED {name}: {why:#}"));
            ExitCode::FAILURE
        }
    }
}
