//! A daemon under load for a long time: memory, threads and files stay flat, and each commit is captured soon.

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use everpoint_testkit::{
    Background, Everpoint, PgCluster, Pgbench, RunningCopy, Session, Usage, parse_lsn, print_lsn, say, text,
};
use serde_json::Value;

/// Name of the cluster.
const CLUSTER: &str = "order-db";
/// Time between two looks.
const EVERY: Duration = Duration::from_secs(5);
/// Every so many looks the repository itself is asked, too.
const ASK_EVERY: usize = 12;
/// A commit that is not captured for so long never will be.
const LOST: Duration = Duration::from_secs(60);

/// How long, and how much.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The everpoint program
    #[arg(long, value_name = "PATH")]
    binary: PathBuf,
    /// Minutes of watching
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Transactions of pgbench a second
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Size of pgbench's tables, in 15 MB
    #[arg(long, default_value_t = 10)]
    scale: u32,
    /// Major version
    #[arg(long, default_value_t = 15)]
    version: u32,
    /// Seconds after which a commit must be captured; one in a hundred may be later on a machine that does other work
    #[arg(long, default_value_t = 1.0)]
    lag: f64,
    /// A file for all samples, comma-separated
    #[arg(long, value_name = "PATH")]
    samples: Option<PathBuf>,
}

/// What was seen at one look.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Seconds since the beginning.
    at: f64,
    usage: Usage,
    /// Seconds from a commit until the server was told that it is stored.
    lag: f64,
    /// Load average of the last minute.
    load: f64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let server = PgCluster::builder().major(options.version).setting("autovacuum_naptime", "10s").start()?;
    Pgbench::prepare(&server, options.scale)?;
    server.psql("CREATE TABLE beat (n bigint PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())")?;
    let everpoint = Everpoint::new(&options.binary, &[(CLUSTER, &server)])?;
    everpoint.configure(&format!(
        "\n[serve]\nstate_dir = \"{}\"\n[api]\nlisten = \"off\"\n{SCHEDULE}",
        everpoint.home().subdir("state")?.display()
    ))?;
    everpoint.run(&["init"])?;
    let mut daemon = everpoint.spawn(&["serve"])?;
    first_backup(&everpoint, &mut daemon)?;
    let mut load = Pgbench::start(&server, 4, Some(options.rate))?;
    let samples = watch(options, &server, &everpoint, &mut daemon)?;
    ensure!(load.runs()?, "pgbench ended: {}", load.said());
    drop(load);
    if let Some(path) = &options.samples {
        fs::write(path, table(&samples)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let jobs = made(&everpoint, &daemon)?;
    let restored = restore(&server, &everpoint);
    let stopping = Instant::now();
    let ended = daemon.stop()?;
    ensure!(ended.status.success(), "{}", ended.told(&["serve"]));
    say(&format!("   {jobs}; stopped within {:.1} s", stopping.elapsed().as_secs_f64()));
    restored?;
    judge(&samples, options)
}

/// Everything that a day does, within minutes.
const SCHEDULE: &str = "
[schedule]
backup = \"0 */10 * * * *\"
bundle = \"30 */3 * * * *\"
check = \"15 * * * * *\"
[retention]
last = 2
daily = 0
weekly = 0
monthly = 0
window_days = 0
";

fn first_backup(everpoint: &Everpoint, daemon: &mut Background) -> Result<()> {
    let since = Instant::now();
    loop {
        let list = everpoint.json(&["list", CLUSTER])?;
        if list.pointer("/clusters/0/backups/0/status").and_then(|status| status.as_str()) == Some("ok") {
            return Ok(());
        }
        ensure!(daemon.runs()?, "the daemon ended: {}", daemon.said());
        ensure!(since.elapsed() < Duration::from_secs(300), "no backup for 300 s: {}", daemon.said());
        sleep(Duration::from_millis(500));
    }
}

fn watch(
    options: &Options,
    server: &PgCluster,
    everpoint: &Everpoint,
    daemon: &mut Background,
) -> Result<Vec<Sample>> {
    let mut session = server.session()?;
    let (begun, length) = (Instant::now(), Duration::from_secs_f64(options.minutes * 60.0));
    let mut samples: Vec<Sample> = Vec::new();
    while begun.elapsed() < length {
        let turn = Instant::now();
        ensure!(daemon.runs()?, "the daemon ended: {}", daemon.said());
        let (told, lag) = beat(&mut session, i64::try_from(samples.len())?)
            .with_context(|| format!("after {} s: {}", begun.elapsed().as_secs(), daemon.said()))?;
        let usage = Usage::of(daemon.pid())?;
        let sample = Sample { at: begun.elapsed().as_secs_f64(), usage, lag, load: load_average() };
        samples.push(sample);
        if lag > options.lag {
            say(&format!("   {}", sample.line()));
        }
        if samples.len() % ASK_EVERY == 1 {
            say(&format!("   {}", sample.line()));
            is_stored(everpoint, told)?;
        }
        sleep(EVERY.saturating_sub(turn.elapsed()));
    }
    Ok(samples)
}

/// Commits a row; returns the position that the server was told is stored then, and how long that took, in seconds.
fn beat(session: &mut Session, number: i64) -> Result<(u64, f64)> {
    session.query(&format!("INSERT INTO beat VALUES ({number})"))?;
    let since = Instant::now();
    let committed: u64 = session.value("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint")?;
    loop {
        let told: u64 =
            session.value("SELECT coalesce(max(flush_lsn - '0/0'), 0)::bigint FROM pg_stat_replication")?;
        if told >= committed {
            return Ok((told, since.elapsed().as_secs_f64()));
        }
        if since.elapsed() > LOST {
            bail!("the commit at {} is not captured for 60 s", print_lsn(committed));
        }
        sleep(Duration::from_millis(10));
    }
}

/// What the server was told to be stored is in the repository.
fn is_stored(everpoint: &Everpoint, told: u64) -> Result<()> {
    let status = everpoint.report(&["status", CLUSTER])?;
    let lsn = text(&status, "/clusters/0/capture/lsn")?;
    let stored = parse_lsn(lsn).with_context(|| format!("{lsn} is no position"))?;
    ensure!(stored >= told, "the server was told {}, the repository ends at {lsn}", print_lsn(told));
    Ok(())
}

/// After the load, a copy of the newest moment holds what the source holds.
fn restore(server: &PgCluster, everpoint: &Everpoint) -> Result<()> {
    const LOOK: &str = "SELECT (SELECT count(*) FROM beat WHERE n >= 0), (SELECT count(*) FROM pgbench_history), \
        (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches)";
    let source = server.psql(LOOK)?;
    beat(&mut server.session()?, -1)?;
    let place = everpoint.home().path().join("copy");
    let place_text = place.to_str().context("a path is not UTF-8")?;
    everpoint.run(&["restore", CLUSTER, place_text, "--start"])?;
    let copy = RunningCopy::on(&place)?;
    let found = copy.session()?.query(LOOK)?.to_string();
    copy.stop_and_check(server.install())?;
    ensure!(found == source, "the copy holds {found}, the source {source}");
    say(&format!("   restored, and equal to the source: {found}"));
    Ok(())
}

/// How many backups and bundles there are in the end.
fn made(everpoint: &Everpoint, daemon: &Background) -> Result<String> {
    let list = everpoint.json(&["list", CLUSTER])?;
    let gaps = list.pointer("/clusters/0/gaps").and_then(Value::as_array).map_or(0, Vec::len);
    ensure!(gaps == 0, "the log has {gaps} gaps");
    let said = daemon.all_said();
    let count = |what: &str| said.matches(&format!("{what} done")).count();
    Ok(format!(
        "jobs done: {} backups, {} bundles, {} expiries, {} checks",
        count("backup"),
        count("bundle"),
        count("expire"),
        count("check")
    ))
}

/// Prints what was seen, and fails if anything grew or a commit was late.
fn judge(samples: &[Sample], options: &Options) -> Result<()> {
    // The first part, five minutes of thirty, is for warming up; what follows is compared by halves.
    let settled: Vec<&Sample> = samples.iter().skip(samples.len() / 6).collect();
    let (early, late) = settled.split_at(settled.len() / 2);
    let most = |part: &[&Sample], value: fn(&Usage) -> u64| part.iter().map(|s| value(&s.usage)).max();
    let mut wrong = Vec::new();
    for (name, unit, noise, value) in MEASURES {
        let (before, after) = (most(early, value).unwrap_or(0), most(late, value).unwrap_or(0));
        let first = samples.first().map_or(0, |sample| value(&sample.usage));
        say(&format!(
            "   {name}: {} at the beginning, at most {} in the first half, {} in the second",
            first / unit,
            before / unit,
            after / unit
        ));
        if after > before + noise {
            wrong.push(format!("{name} grew from {} to {}", before / unit, after / unit));
        }
    }
    let mut lags: Vec<f64> = samples.iter().map(|sample| sample.lag).collect();
    lags.sort_by(f64::total_cmp);
    let at =
        |percent: usize| lags.get((lags.len() * percent / 100).min(lags.len() - 1)).copied().unwrap_or(0.0);
    let over = lags.iter().filter(|lag| **lag > options.lag).count();
    say(&format!(
        "   commit to captured, {} samples: median {:.2} s, 99th of a hundred {:.2} s, at most {:.2} s; {over} over {} s",
        lags.len(),
        at(50),
        at(99),
        at(100),
        options.lag
    ));
    if over * 100 > lags.len() {
        wrong.push(format!("{over} of {} commits were captured late", lags.len()));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// What must stay flat: name, unit, noise, value.
type Measure = (&'static str, u64, u64, fn(&Usage) -> u64);
const MEASURES: [Measure; 3] = [
    ("memory (MiB)", 1 << 20, 16 << 20, |usage| usage.memory),
    ("threads", 1, 8, |usage| usage.threads),
    ("files", 1, 16, |usage| usage.files),
];

fn table(samples: &[Sample]) -> String {
    let head = "seconds,memory,threads,files,lag,load\n".to_owned();
    samples.iter().fold(head, |text, sample| {
        let Usage { memory, threads, files } = sample.usage;
        format!("{text}{:.1},{memory},{threads},{files},{:.3},{:.2}\n", sample.at, sample.lag, sample.load)
    })
}

impl Sample {
    fn line(&self) -> String {
        format!(
            "{:6.0} s: {} MiB, {} threads, {} files, captured after {:.2} s, load {:.1}",
            self.at,
            self.usage.memory >> 20,
            self.usage.threads,
            self.usage.files,
            self.lag,
            self.load
        )
    }
}

fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}
