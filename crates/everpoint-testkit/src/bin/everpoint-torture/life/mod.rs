//! Life in place: random sequences of restores over production, copies, failovers, upgrades and tablespaces, under writers.
//! After each step capture goes on by itself, `latest` is what production has, rows are exact, and production's files have
//! changed only if the step named it.

mod changes;
mod checks;
mod chronicle;
mod plan;
mod server;
mod snapshot;
mod steps;
mod world;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, ValueEnum};
use everpoint_testkit::{PgInstall, Scratch, now, say};

use self::plan::{Mode, Plan, Step};
use self::world::Life;

/// A run begins no step after this long: sequences that are left are counted as not run.
const LIMIT: Duration = Duration::from_secs(25 * 60);

/// Where and how much.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The everpoint program
    #[arg(long, value_name = "PATH")]
    binary: PathBuf,
    /// The first sequence; each seed is one [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// How many sequences, of consecutive seeds
    #[arg(long, default_value_t = 10)]
    count: u64,
    /// Major versions, comma-separated; the seed chooses
    #[arg(long, value_delimiter = ',', default_values_t = [13, 14, 15, 16, 17, 18])]
    version: Vec<u32>,
    /// Sequences at once
    #[arg(long, default_value_t = 1)]
    jobs: u32,
    /// A file that gets a line for each sequence: results of several runs add up
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// These steps instead of those that the seed draws, comma-separated
    #[arg(long, value_enum, value_delimiter = ',')]
    steps: Vec<Step>,
    /// What captures, instead of what the seed draws
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Do harm by hand: the run must fail, else it proves nothing
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
    /// Keep the files of sequences that failed
    #[arg(long)]
    keep: bool,
}

/// Harm that the checks must see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sabotage {
    /// A row of production's is deleted
    ProductionRow,
    /// A row of a copy's is deleted
    CopyRow,
    /// A file of production's is touched by a step that does not name it
    File,
    /// Nothing captures any more
    Capture,
}

/// Directories as initdb leaves them, by version.
#[derive(Debug, Default)]
struct Templates(BTreeMap<u32, Scratch>);

impl Templates {
    fn of(&mut self, major: u32) -> Result<PathBuf> {
        if let Some(made) = self.0.get(&major) {
            return Ok(made.path().join("data"));
        }
        let home = Scratch::new(&format!("life-pg{major}"))?;
        let data = home.path().join("data");
        changes::initdb(&PgInstall::find(major)?, &data)?;
        self.0.insert(major, home);
        Ok(data)
    }
}

/// What sequences of one run share.
struct Run<'a> {
    options: &'a Options,
    deadline: Instant,
    /// Seeds that are left.
    left: Mutex<Range<u64>>,
    templates: Mutex<Templates>,
    passed: AtomicU64,
    failed: Mutex<Vec<u64>>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    server::adopt_orphans()?;
    let first = options.seed.unwrap_or_else(|| now().unsigned_abs() % 1_000_000_000);
    let run = Run {
        options,
        deadline: Instant::now() + LIMIT,
        left: Mutex::new(first..first.saturating_add(options.count)),
        templates: Mutex::new(Templates::default()),
        passed: AtomicU64::new(0),
        failed: Mutex::new(Vec::new()),
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.jobs.max(1)).map(|_| scope.spawn(|| run.work())).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a sequence panicked"))?)
    })?;
    let (passed, failed) = (run.passed.load(Ordering::SeqCst), lock(&run.failed).clone());
    let done = passed + failed.len() as u64;
    let left = options.count - done;
    say(&format!(
        "life: {passed} passed, {} failed {failed:?}, {left} not run for want of time",
        failed.len()
    ));
    ensure!(failed.is_empty(), "{} of {done} sequences failed", failed.len());
    ensure!(done > 0, "no sequence was run");
    Ok(())
}

impl Run<'_> {
    /// Takes seeds until none, or no time, is left.
    fn work(&self) -> Result<()> {
        while Instant::now() < self.deadline {
            let Some(seed) = lock(&self.left).next() else { break };
            self.one(seed)?;
        }
        Ok(())
    }

    fn one(&self, seed: u64) -> Result<()> {
        let options = self.options;
        let mut plan = Plan::new(seed, &options.version);
        plan.mode = options.mode.unwrap_or(plan.mode);
        if !options.steps.is_empty() {
            plan.steps.clone_from(&options.steps);
        }
        let since = Instant::now();
        let template = lock(&self.templates).of(plan.version)?;
        let told = format!("{:?} {}: {:?}", plan.mode, plan.version, plan.steps);
        say(&format!("== life: seed {seed}, {told}"));
        let done = sequence(seed, &plan, &template, options, self.deadline);
        let took = since.elapsed().as_secs_f64();
        match done {
            Ok(false) => return Ok(()),
            Ok(true) => {
                self.passed.fetch_add(1, Ordering::SeqCst);
                say(&format!("LIFE passed seed {seed} in {took:.0} s: {told}"));
            }
            Err(ref why) => {
                lock(&self.failed).push(seed);
                say(&format!("LIFE FAILED seed {seed} in {took:.0} s: {told}\n{why:#}"));
                say(&format!("again: everpoint-torture life --seed {seed} --count 1 {}", rerun(options)));
            }
        }
        let Some(path) = &options.results else { return Ok(()) };
        let mut file =
            File::options().append(true).create(true).open(path).context("cannot open the results")?;
        let verdict = if done.is_ok() { "passed" } else { "failed" };
        writeln!(file, "{seed} {verdict} {took:.0} {told}").context("cannot write the results")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The rest of the command that repeats a sequence.
fn rerun(options: &Options) -> String {
    let versions: Vec<String> = options.version.iter().map(u32::to_string).collect();
    let mut text = format!("--version {} --keep --binary {}", versions.join(","), options.binary.display());
    let named = options.mode.as_ref().and_then(Mode::to_possible_value);
    text.extend(named.map(|mode| format!(" --mode {}", mode.get_name())));
    let steps: Vec<String> = options
        .steps
        .iter()
        .filter_map(|step| Some(step.to_possible_value()?.get_name().to_owned()))
        .collect();
    if !steps.is_empty() {
        text.push_str(&format!(" --steps {}", steps.join(",")));
    }
    text
}

/// Runs a sequence; `false` if the time ran out before its end.
fn sequence(seed: u64, plan: &Plan, template: &Path, options: &Options, deadline: Instant) -> Result<bool> {
    let made = Life::new(&options.binary, template, plan.version, plan.mode, seed);
    let mut life = made.context("before the first step")?;
    life.sabotage = options.sabotage;
    let done = follow(&mut life, plan, deadline);
    if !life.ended.is_empty() {
        life.say(&format!("what captures ended {} times and was started again", life.ended.len()));
    }
    done.map_err(|why| match options.keep {
        true => why.context(format!("files are kept in {}", life.everpoint.keep().display())),
        false => why,
    })
}

fn follow(life: &mut Life, plan: &Plan, deadline: Instant) -> Result<bool> {
    life.check(false).context("before the first step")?;
    for (number, step) in plan.steps.iter().enumerate() {
        if Instant::now() > deadline {
            return Ok(false);
        }
        let since = Instant::now();
        let named = || format!("step {} of {}, {step:?}", number + 1, plan.steps.len());
        life.step(*step, plan.upgrade).with_context(named)?;
        let last = number + 1 == plan.steps.len();
        let restore = last || life.random.chance(40);
        life.check(restore).with_context(|| format!("after {}", named()))?;
        life.say(&format!("{}: all holds, {:.1} s", named(), since.elapsed().as_secs_f64()));
    }
    Ok(true)
}
