//! Random trees: whatever somebody names in whatever state, nothing outside of proven places changes; what is refused is
//! untouched byte by byte; what is legitimate is restored exactly. A third at least must be restored: a tool that refuses
//! everything has failed.

mod case;
mod inside;
mod kind;
mod oracle;
mod rows;
mod snapshot;
mod spaces;
mod stage;
mod trial;
mod world;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use everpoint_testkit::{Random, Scratch, now, say};

use case::{Case, Expected};
use kind::Kind;
use snapshot::Eye;
use stage::{Stage, is_root, remove};
use trial::Trial;

/// A trial of this program does not go on for longer.
const LIMIT: Duration = Duration::from_secs(25 * 60);
/// Set in the process that has mounts of its own.
const OWN_MOUNTS: &str = "EVERPOINT_TORTURE_OWN_MOUNTS";

/// Where and how much.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The everpoint program
    #[arg(long, value_name = "PATH")]
    binary: PathBuf,
    /// Determines all choices [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Worlds; all kinds of directories take turns [default: each kind once]
    #[arg(long)]
    count: Option<u64>,
    /// Number of the first world
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Of how many in 100 that were restored a server is started and its rows are compared
    #[arg(long, default_value_t = 50, value_name = "PERCENT")]
    rows: u64,
    /// Keep the files of the first world that fails, and end there
    #[arg(long)]
    keep: bool,
}

/// How many ended how.
#[derive(Debug, Default)]
struct Count {
    restored: u64,
    refused: u64,
    skipped: u64,
    legitimate: u64,
    failed: BTreeMap<String, u64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let own_mounts = std::env::var_os(OWN_MOUNTS).is_some();
    if is_root() && !own_mounts {
        into_own_mounts()?;
    }
    let seed = options.seed.unwrap_or_else(|| now().unsigned_abs());
    let count = options.count.unwrap_or(u64::try_from(Kind::count())?);
    say(&format!("== trees: {count} worlds from number {}, --seed {seed}", options.first));
    let since = Instant::now();
    let mut stage = Stage::build(&options.binary)?;
    say(&format!("   all is built after {:.1} s", since.elapsed().as_secs_f64()));
    let mut counted = Count::default();
    let mut eye = Eye::default();
    for number in options.first..options.first + count {
        if since.elapsed() > LIMIT {
            say(&format!("   {} worlds took 25 minutes: the rest is left out", number - options.first));
            break;
        }
        let kind = Kind::of(number);
        if kind.needs_root() && !is_root() || kind.needs_mounts() && !own_mounts {
            counted.skipped += 1;
            continue;
        }
        stage.number = number;
        let failed = one(&stage, &mut eye, kind, seed, options.rows, &mut counted)
            .with_context(|| format!("world {number} of --seed {seed} ({kind:?})"))?;
        if failed && options.keep {
            bail!("files are kept in {}", stage.sandbox.keep().display());
        }
    }
    counted.tell(since.elapsed())
}

/// One world; whether it failed.
fn one(stage: &Stage, eye: &mut Eye, kind: Kind, seed: u64, rows: u64, counted: &mut Count) -> Result<bool> {
    let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(stage.number));
    let logs = Scratch::new("trees-logs")?;
    let clean = eye.look(&stage.roots())?;
    let mut case = Case::make(stage, kind, &mut random, rows)?;
    let since = Instant::now();
    let mut trial = Trial { stage, case: &mut case, eye: &mut *eye, logs: &logs, problems: Vec::new() };
    let code = trial.run()?;
    let (line, problems) = (trial.line(), std::mem::take(&mut trial.problems));
    counted.add(&case, code);
    let took = since.elapsed().as_secs_f64();
    say(&format!("   {:3} {:6.2} s exit {code:?}: {}", stage.number, took, case.words()));
    if !problems.is_empty() {
        *counted.failed.entry(format!("{kind:?}")).or_default() += 1;
        let again = format!("--seed {seed} --first {} --count 1", stage.number);
        say(&format!("FAILED {again}\n   {}\n   {line}", case.words()));
        for problem in &problems {
            say(&format!("   -- {problem}"));
        }
    }
    case.place.unmake();
    if !stage_keeps(&problems) {
        remove(&stage.world())?;
    }
    let dirty = eye.look(&stage.roots())?;
    stage.renew(&clean, &dirty)?;
    Ok(!problems.is_empty())
}

/// Whether a world is left for somebody to look at.
fn stage_keeps(problems: &[String]) -> bool {
    !problems.is_empty() && std::env::var("EVERPOINT_KEEP").is_ok_and(|keep| keep == "1")
}

impl Count {
    fn add(&mut self, case: &Case, code: Option<i32>) {
        self.legitimate += u64::from(case.expected() == Expected::Done);
        match code {
            Some(0) => self.restored += 1,
            _ => self.refused += 1,
        }
    }

    fn tell(&self, took: Duration) -> Result<()> {
        let failed: u64 = self.failed.values().sum();
        say(&format!(
            "trees: {} restored, {} refused, {} skipped (they need root and mounts of its own), {} had to be restored; \
             {failed} failed; {:.0} s",
            self.restored,
            self.refused,
            self.skipped,
            self.legitimate,
            took.as_secs_f64()
        ));
        let kinds: Vec<String> = self.failed.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        ensure!(failed == 0, "worlds that failed: {}", kinds.join(", "));
        let all = self.restored + self.refused;
        ensure!(
            all < 20 || self.legitimate * 3 >= all,
            "only {} of {all} worlds are legitimate",
            self.legitimate
        );
        Ok(())
    }
}

/// Starts this program again where its mounts are nobody else's, and end with it. Goes on without, where that is not allowed.
fn into_own_mounts() -> Result<()> {
    let unshare = ["--mount", "--propagation", "private"];
    let works = Command::new("unshare").args(unshare).arg("true").status();
    if !works.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let mut command = Command::new("unshare");
    command.args(unshare).arg(std::env::current_exe().context("cannot find this program")?);
    command.args(std::env::args_os().skip(1)).env(OWN_MOUNTS, "1");
    Err(command.exec()).context("cannot start again with own mounts")
}
