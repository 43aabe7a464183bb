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
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum as _};
use everpoint_testkit::{PgInstall, Scratch, now, say};

use self::plan::{Mode, Plan, Step};
use self::world::Life;

/// A run ends after this long, however many sequences are left: they are counted as not run.
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
    /// These steps instead of those that the seed draws, comma-separated
    #[arg(long, value_enum, value_delimiter = ',')]
    steps: Vec<Step>,
    /// What captures, instead of what the seed draws
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Keep the files of sequences that failed
    #[arg(long)]
    keep: bool,
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

pub(crate) fn run(options: &Options) -> Result<()> {
    let begun = Instant::now();
    server::adopt_orphans()?;
    let first = options.seed.unwrap_or_else(|| now().unsigned_abs() % 1_000_000_000);
    let mut templates = Templates::default();
    let (mut passed, mut failed) = (0_u64, Vec::new());
    for seed in first..first.saturating_add(options.count) {
        if begun.elapsed() > LIMIT {
            break;
        }
        let mut plan = Plan::new(seed, &options.version);
        plan.mode = options.mode.unwrap_or(plan.mode);
        if !options.steps.is_empty() {
            plan.steps.clone_from(&options.steps);
        }
        let since = Instant::now();
        let template = templates.of(plan.version)?;
        let told = format!("{:?} {}: {:?}", plan.mode, plan.version, plan.steps);
        say(&format!("== life: seed {seed}, {told}"));
        let deadline = (begun + LIMIT, options.keep);
        match sequence(seed, &plan, &template, &options.binary, deadline) {
            Ok(()) => {
                passed += 1;
                say(&format!("LIFE passed seed {seed} in {:.0} s: {told}", since.elapsed().as_secs_f64()));
            }
            Err(why) => {
                failed.push(seed);
                say(&format!("LIFE FAILED seed {seed} in {:.0} s: {told}\n{why:#}", since.elapsed().as_secs_f64()));
                say(&format!("again: everpoint-torture life --seed {seed} --count 1 {}", rerun(options)));
            }
        }
    }
    let done = passed + failed.len() as u64;
    say(&format!("life: {passed} passed, {} failed {failed:?}, {} not run", failed.len(), options.count - done));
    ensure!(failed.is_empty(), "{} of {done} sequences failed", failed.len());
    ensure!(done > 0 && (done == options.count || begun.elapsed() > LIMIT), "no sequence was run");
    Ok(())
}

/// The rest of the command that repeats a sequence.
fn rerun(options: &Options) -> String {
    let versions: Vec<String> = options.version.iter().map(u32::to_string).collect();
    let mut text = format!("--version {} --keep --binary {}", versions.join(","), options.binary.display());
    let named = options.mode.as_ref().and_then(Mode::to_possible_value);
    text.extend(named.map(|mode| format!(" --mode {}", mode.get_name())));
    let steps: Vec<String> =
        options.steps.iter().filter_map(|step| Some(step.to_possible_value()?.get_name().to_owned())).collect();
    if !steps.is_empty() {
        text.push_str(&format!(" --steps {}", steps.join(",")));
    }
    text
}

fn sequence(seed: u64, plan: &Plan, template: &Path, binary: &Path, (deadline, keep): (Instant, bool)) -> Result<()> {
    let mut life = Life::new(binary, template, plan.version, plan.mode, seed).context("before the first step")?;
    let done = follow(&mut life, plan, deadline);
    if !life.ended.is_empty() {
        say(&format!("   what captures ended {} times and was started again", life.ended.len()));
    }
    done.map_err(|why| if keep { why.context(format!("files are kept in {}", life.everpoint.keep().display())) } else { why })
}

fn follow(life: &mut Life, plan: &Plan, deadline: Instant) -> Result<()> {
    life.check(false).context("before the first step")?;
    for (number, step) in plan.steps.iter().enumerate() {
        ensure!(Instant::now() < deadline, "step {} would begin after the limit of the run", number + 1);
        let since = Instant::now();
        let named = || format!("step {} of {}, {step:?}", number + 1, plan.steps.len());
        life.step(*step, plan.upgrade).with_context(named)?;
        let last = number + 1 == plan.steps.len();
        let restore = last || life.random.chance(40);
        life.check(restore).with_context(|| format!("after {}", named()))?;
        say(&format!("   {}: all holds, {:.1} s", named(), since.elapsed().as_secs_f64()));
    }
    Ok(())
}
