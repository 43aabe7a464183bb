//! Daily packages through days of trouble: whatever fails, is killed or is started twice, the service never counts a call too
//! many, and what arrived restores every second.

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use everpoint_testkit::{Judge, Random, Record, Webhook, Writers, now, print_time, say};

use crate::Capture;
use crate::vault::Vault;
use crate::world::{CLUSTER, Setting, World};

/// How long the daemon may take for a day.
const DAY: Duration = Duration::from_secs(120);
/// Exit code: the budget is spent.
const SPENT: i32 = 5;

/// How many days, and what happens in them.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The everpoint program
    #[arg(long, value_name = "PATH")]
    binary: PathBuf,
    /// Determines all choices [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Days
    #[arg(long, default_value_t = 4)]
    count: u32,
    /// Days whose call fails, comma-separated (days)
    #[arg(long, value_delimiter = ',', default_values_t = [2])]
    failed: Vec<u32>,
    /// Random moments that are restored from the packages alone
    #[arg(long, default_value_t = 10)]
    moments: u32,
    /// Major version
    #[arg(long, default_value_t = 15)]
    version: u32,
}

/// A server at work, and what its configuration says without a provider.
struct Trial {
    // Dropped first: clients of the server.
    writers: Writers,
    world: World,
    plain: String,
    random: Random,
    /// When the first package's image was complete: from then on every second counts.
    first: Option<i64>,
}

/// Everything that a policy of minutes need not keep goes at once.
const KEEP_LITTLE: &str = "\n[api]\nlisten = \"off\"\n[retention]\nwindow_days = 0\nlast = 1\ndaily = 0\nweekly = 0\n\
                           monthly = 0\ngrace = \"0s\"\n";

impl Trial {
    fn new(options: &Options) -> Result<Self> {
        let seed = options.seed.unwrap_or_else(|| now().unsigned_abs());
        say(&format!("   --seed {seed}"));
        let setting = Setting { version: options.version, capture: Capture::Stream, seed };
        let world = World::new(&setting, &options.binary)?;
        let config = world.everpoint.home().path().join("everpoint.toml");
        let plain = fs::read_to_string(config).context("cannot read the configuration")? + KEEP_LITTLE;
        world.backup(true)?;
        let writers = Writers::start(world.source.address(), &world.writing(seed, 0))?;
        Ok(Self { writers, world, plain, random: Random::new(seed), first: None })
    }

    fn configure(&self, more: &str) -> Result<()> {
        let path = self.world.everpoint.home().path().join("everpoint.toml");
        fs::write(path, format!("{}{more}", self.plain)).context("cannot write the configuration")
    }

    /// A day's work; the policy lets go what it may.
    fn work(&mut self) -> Result<()> {
        sleep(Duration::from_millis(1500));
        self.world.backup(false)?;
        self.first.get_or_insert_with(now);
        sleep(Duration::from_millis(1000));
        self.world.settle()?;
        self.world.everpoint.run(&["expire", CLUSTER, "--now"])?;
        Ok(())
    }

    /// The machine is lost; random moments until the last package come back from what arrived.
    fn judge(mut self, vault: Vault, moments: u32) -> Result<()> {
        let record: Record = self.writers.stop();
        let judge = Judge::new(&record, self.world.history()?)?;
        let packages = vault.packages()?;
        vault.stop()?;
        self.world.kill_capture()?;
        let home = self.world.everpoint.home().path();
        let key = home.join("key").display().to_string();
        fs::remove_dir_all(home.join("repository")).context("cannot remove the repository")?;
        let mut more = Vec::new();
        for package in &packages {
            more.extend(["--package".to_owned(), package.display().to_string()]);
        }
        more.extend(["--key-file".to_owned(), key]);
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        // The newest that the packages hold says until when moments can be asked for.
        let place = self.world.place();
        let (copy, report) = self.world.restore(&place, "latest", &more).context("the newest second")?;
        let reached =
            report.pointer("/reached/lsn").and_then(|lsn| everpoint_testkit::parse_lsn(lsn.as_str()?));
        let reached = reached.with_context(|| format!("it does not say what it reached: {report}"))?;
        let ends = judge.history().before_lsn(reached + 1);
        exact(&judge.expect(ends).compare(&mut copy.session()?)?, "the newest second")?;
        self.world.remove(copy, &place, true)?;
        let last = ends.iter().map(|end| end.time).max().context("nothing was committed")?;
        let first =
            self.first.filter(|first| *first < last).context("the packages end before the first day")?;
        for number in 0..moments {
            let moment = self.random.between(first, last);
            let at = print_time(moment);
            let place = self.world.place();
            let (copy, _) = self.world.restore(&place, &at, &more).with_context(|| format!("moment {at}"))?;
            exact(&judge.at_time(moment).compare(&mut copy.session()?)?, &at)?;
            self.world.remove(copy, &place, number % 5 == 0)?;
        }
        say(&format!(
            "   {} packages; the newest second and {moments} random ones exact; {} commits acknowledged",
            packages.len(),
            record.acknowledged().count()
        ));
        Ok(())
    }
}

fn exact(verdict: &everpoint_testkit::Verdict, what: &str) -> Result<()> {
    ensure!(verdict.is_exact(), "{what}: {} differences: {:#?}", verdict.count, verdict.differences);
    Ok(())
}

/// Days with the daemon, of which some fail: each failure is told, nothing is lost by it, and what follows covers all.
pub(crate) fn days(options: &Options) -> Result<()> {
    let mut trial = Trial::new(options)?;
    let alerts = Webhook::start()?;
    let mut arrived = 0;
    for day in 1..=options.count {
        let fails = options.failed.contains(&day);
        let vault = Vault::start(&trial.world.everpoint, if fails { &["--failure-rate", "1"] } else { &[] })?;
        trial.work()?;
        let state = trial.world.everpoint.home().subdir(&format!("state-{day}"))?;
        trial.configure(&format!(
            "{}[serve]\nstate_dir = \"{}\"\n[schedule]\nbackup = \"off\"\nbundle = \"off\"\ncheck = \"off\"\n\
             package = \"* * * * * *\"\n[alerts]\nevery = \"1s\"\n[[alerts.sink]]\ntype = \"webhook\"\nurl = \"{}\"\n",
            vault.table(day),
            state.display(),
            alerts.url()
        ))?;
        let told = alerts.count("upload_failed", "firing") + alerts.count("job_failed", "firing");
        let mut daemon = trial.world.everpoint.spawn(&["serve"])?;
        let since = Instant::now();
        let done = loop {
            let said = daemon.all_said();
            let now_told = alerts.count("upload_failed", "firing") + alerts.count("job_failed", "firing");
            if said.contains("package done") || (said.contains("package failed") && now_told > told) {
                break said.contains("package done");
            }
            ensure!(daemon.runs()? && since.elapsed() < DAY, "day {day} has no end: {}", daemon.said());
            sleep(Duration::from_millis(100));
        };
        // However often the schedule says so, there is no second call.
        sleep(Duration::from_millis(1500));
        let said = daemon.said();
        daemon.stop()?;
        ensure!(done != fails, "day {day}: {said}");
        arrived += usize::from(done);
        let (calls, kept) = (vault.uploads()?, vault.packages()?.len());
        ensure!(calls == usize::try_from(day)?, "day {day}: the service counts {calls} calls");
        ensure!(kept == arrived, "day {day}: {kept} packages are there");
        say(&format!("   day {day}: {}", if done { "arrived" } else { "failed, and told" }));
        if day == options.count {
            return trial.judge(vault, options.moments);
        }
        vault.stop()?;
    }
    bail!("no day")
}

/// Processes killed at random instants around a call, restarted, two at once.
pub(crate) fn calls(options: &Options) -> Result<()> {
    let mut trial = Trial::new(options)?;
    let vault = Vault::start(&trial.world.everpoint, &["--latency", "300"])?;
    let (mut crashed, mut whole) = (0, 0);
    // How long a push takes from its start to its end is learnt from the first.
    let mut span = 0;
    for day in 1..=options.count {
        trial.work()?;
        trial.configure(&vault.table(day))?;
        let before = vault.uploads()?;
        let kills = day > 1 && day < options.count;
        if kills {
            crash(&mut trial, span)?;
        }
        ensure!(vault.uploads()? <= usize::try_from(day)?, "day {day}: a call too many");
        let begun = Instant::now();
        let push = ["offsite", "push", "--yes"];
        let ran = trial.world.everpoint.try_run(&push)?;
        match ran.status.code() {
            Some(0) => whole += 1,
            // A call that was cut off counts, as nobody knows what became of it.
            Some(SPENT) if kills => crashed += 1,
            _ => bail!("day {day}: {}", ran.told(&push)),
        }
        if day == 1 {
            span = u64::try_from(begun.elapsed().as_millis())?;
        }
        let after = vault.uploads()?;
        ensure!(after <= before + 1, "day {day}: {} calls", after - before);
    }
    let counted = vault.uploads()?;
    ensure!(counted <= usize::try_from(options.count)?, "{counted} calls in {} days", options.count);
    say(&format!("   {counted} calls in {} days: {whole} pushes whole, {crashed} cut off", options.count));
    trial.judge(vault, options.moments)
}

/// One or two processes try, and die at random instants; or a daemon does, once or twice.
fn crash(trial: &mut Trial, span: u64) -> Result<()> {
    let everpoint = &trial.world.everpoint;
    let mut random = || trial.random.below(span.saturating_add(span / 5).max(1));
    let (first, second) = (random(), random());
    match trial.random.below(3) {
        0 => {
            let mut push = everpoint.spawn(&["offsite", "push", "--yes"])?;
            sleep(Duration::from_millis(first));
            push.kill9()
        }
        1 => {
            let mut pushes = [
                everpoint.spawn(&["offsite", "push", "--yes"])?,
                everpoint.spawn(&["offsite", "push", "--yes"])?,
            ];
            for (push, pause) in pushes.iter_mut().zip([first, second]) {
                sleep(Duration::from_millis(pause / 2));
                push.kill9()?;
            }
            Ok(())
        }
        _ => {
            let path = everpoint.home().path().join("everpoint.toml");
            let plain = fs::read_to_string(&path).context("cannot read the configuration")?;
            let state = everpoint.home().subdir("state")?;
            let more = format!(
                "[serve]\nstate_dir = \"{}\"\n[schedule]\nbackup = \"off\"\nbundle = \"off\"\ncheck = \"off\"\n\
                 package = \"* * * * * *\"\n",
                state.display()
            );
            fs::write(&path, format!("{plain}{more}")).context("cannot write the configuration")?;
            for pause in [first, second] {
                let mut daemon = everpoint.spawn(&["serve"])?;
                // It looks what is due each second.
                sleep(Duration::from_millis(1000 + pause));
                daemon.kill9()?;
            }
            fs::write(&path, plain).context("cannot write the configuration")
        }
    }
}
