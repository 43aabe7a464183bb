//! `forget`: a cluster is not protected any more. Its slot goes, what is stored of it stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use everpoint_app::{AppError, text};
use everpoint_core::{FailureClass, LogKeeping};
use everpoint_engine::Engine;
use serde::Serialize;

use crate::cli::Forget;
use crate::config::remove::without_cluster;
use crate::config::{ClusterConfig, Config, PasswordSource, Source, rewrite, slot_for};
use crate::render::Done;
use crate::session::Session;

/// So long the daemon may take to notice and to let go of the slot.
const PATIENCE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(250);

/// What became of the cluster, in the shape of `--json`.
#[derive(Debug, Serialize)]
struct Report {
    cluster: String,
    dry_run: bool,
    /// It was in the configuration until now.
    forgotten: bool,
    configuration: PathBuf,
    slot: Option<SlotReport>,
    /// `off`, `empty`, `elsewhere`, `calls_us`, `unknown`.
    archive_command: &'static str,
    /// Where what is stored of it stays.
    repository: Option<String>,
    /// Backups that stay; `None`: the repository can't be read.
    backups: Option<usize>,
    /// What remains to be done, in words.
    next: Vec<String>,
}

#[derive(Debug, Serialize)]
struct SlotReport {
    name: String,
    /// `dropped`, `absent`, `stays`, or of a dry run `would_be_dropped`.
    state: &'static str,
    /// Why it stays.
    why: Option<String>,
    /// What drops it.
    command: Option<String>,
}

/// What the server says, if it answers.
struct Server {
    engine: Option<Arc<dyn Engine>>,
    /// Why it can't be asked.
    error: Option<String>,
    keeping: Option<LogKeeping>,
}

pub(crate) fn run(session: &Session, arguments: &Forget) -> Result<Done, AppError> {
    let (config, name) = (session.config()?, arguments.cluster.as_str());
    let Some(cluster) = config.clusters.get(name) else { return forgotten_before(session, config, name) };
    let server = ask(session, name);
    let archives = archives(server.keeping.as_ref(), name);
    if archives == "calls_us" && !arguments.archive_command_stays {
        return Err(still_called(name));
    }
    let source = std::fs::read_to_string(&config.path)
        .map_err(|error| AppError::io("read the configuration", &config.path, error))?;
    let note = format!("forgotten by everpoint forget at {}", text::time(text::now()));
    let edited =
        without_cluster(&source, &config.path, name, &note, &|variable| std::env::var(variable).ok())?;
    let slot = if arguments.dry_run {
        planned(&server, cluster)
    } else {
        rewrite::write(&config.path, &edited, 0o644)
            .map_err(|error| AppError::io("write", &config.path, error))?;
        let shared = |other: &ClusterConfig| other.name != name && other.slot == cluster.slot;
        give_up(&server, cluster, config.clusters.values().any(shared))
    };
    let stays = slot.state == "stays" && server.keeping.is_some();
    let report = Report {
        cluster: name.to_owned(),
        dry_run: arguments.dry_run,
        forgotten: true,
        configuration: config.path.clone(),
        archive_command: archives,
        repository: config.repository_of(cluster).ok().map(|place| place.url.clone()),
        backups: backups(session, name),
        next: next(config, cluster, &slot, archives),
        slot: Some(slot),
    };
    let code = if stays { FailureClass::Failed.exit_code() } else { 0 };
    Ok(Done::new(&report, told(&report)).code(code))
}

/// A name that is not configured: it was forgotten before, or never was.
fn forgotten_before(session: &Session, config: &Config, name: &str) -> Result<Done, AppError> {
    let mut stored: Vec<(String, String)> = Vec::new();
    for place in session.repository_configs()? {
        let names =
            session.open(&place).and_then(|repository| Ok(repository.clusters()?)).unwrap_or_default();
        stored.extend(names.into_iter().map(|name| (name, place.url.clone())));
    }
    let Some((_, place)) = stored.iter().find(|(known, _)| known == name) else {
        let error = config.cluster(name).err().unwrap_or_else(|| still_called(name));
        let there = config.clusters.keys().map(String::as_str);
        let there = there.chain(stored.iter().map(|(name, _)| name.as_str()));
        return Err(error.hint(everpoint_core::words::known(name, "clusters", there)));
    };
    let report = Report {
        cluster: name.to_owned(),
        dry_run: false,
        forgotten: false,
        configuration: config.path.clone(),
        slot: None,
        archive_command: "unknown",
        repository: Some(place.clone()),
        backups: None,
        next: vec![slot_may_stay(name)],
    };
    let text = format!(
        "{name} is not in the configuration any more; what is stored of it stays in {place}\n  {}",
        slot_may_stay(name)
    );
    Ok(Done::new(&report, text))
}

/// Its address is not known any more.
fn slot_may_stay(name: &str) -> String {
    let slot = slot_for(name);
    format!(
        "its server is not asked any more: if it did not answer then, its slot ({slot}, unless the configuration named another) \
         stays and holds back its WAL; on the server: {}",
        drop_command(&slot)
    )
}

fn ask(session: &Session, name: &str) -> Server {
    match session.server(name) {
        Err(error) => Server { engine: None, error: Some(error.to_string()), keeping: None },
        Ok((engine, _)) => {
            let error = engine.identify().err().map(|error| error.to_string());
            let keeping = if error.is_none() { engine.log_keeping() } else { None };
            Server { engine: Some(engine), error, keeping }
        }
    }
}

fn archives(keeping: Option<&LogKeeping>, cluster: &str) -> &'static str {
    match keeping.map(|keeping| &keeping.archiver) {
        None => "unknown",
        Some(archiver) if archiver.calls(cluster) => "calls_us",
        Some(archiver) if archiver.calls_something() => "elsewhere",
        Some(archiver) if archiver.on => "empty",
        Some(_) => "off",
    }
}

fn still_called(name: &str) -> AppError {
    let message = "archive_command of its server still calls archive-push for it: that would fail from now on, and the \
                   server would keep all of its WAL until its disk is full";
    AppError::new("forget.archive_command", FailureClass::Usage, "forget", name, message).hint(
        "first: ALTER SYSTEM SET archive_command = '/bin/true'; SELECT pg_reload_conf() (or what shall archive from now \
         on; an empty one keeps all WAL as long as archive_mode is on); or say --archive-command-stays",
    )
}

fn drop_command(slot: &str) -> String {
    format!("SELECT pg_drop_replication_slot('{slot}')")
}

fn stays(slot: &str, why: String) -> SlotReport {
    SlotReport { name: slot.to_owned(), state: "stays", why: Some(why), command: Some(drop_command(slot)) }
}

fn planned(server: &Server, cluster: &ClusterConfig) -> SlotReport {
    let slot = cluster.slot.as_str();
    match (&server.keeping, &server.error) {
        (Some(keeping), _) => {
            let there = keeping.slots.iter().any(|known| known.name == slot);
            let state = if there { "would_be_dropped" } else { "absent" };
            SlotReport { name: slot.to_owned(), state, why: None, command: None }
        }
        (None, error) => stays(slot, unanswered(error.as_deref())),
    }
}

fn unanswered(error: Option<&str>) -> String {
    format!("the server can't be asked: {}", error.unwrap_or("it lets in nobody who asks"))
}

/// Drops the slot once nobody receives by it: the daemon notices that the cluster is gone.
fn give_up(server: &Server, cluster: &ClusterConfig, shared: bool) -> SlotReport {
    let slot = cluster.slot.as_str();
    let Some(engine) = server.engine.as_ref().filter(|_| server.error.is_none()) else {
        return stays(slot, unanswered(server.error.as_deref()));
    };
    if shared {
        return stays(slot, "another cluster of the configuration has a slot of this name".to_owned());
    }
    let known = |engine: &Arc<dyn Engine>| {
        let slots = engine.log_keeping()?.slots;
        Some(slots.into_iter().find(|known| known.name == slot))
    };
    if matches!(known(engine), Some(None)) {
        return SlotReport { name: slot.to_owned(), state: "absent", why: None, command: None };
    }
    let begun = Instant::now();
    loop {
        let active = known(engine).flatten().is_some_and(|known| known.active);
        let error = if active { None } else { Some(engine.drop_slot(slot)) };
        match error {
            Some(Ok(())) => {
                return SlotReport { name: slot.to_owned(), state: "dropped", why: None, command: None };
            }
            _ if begun.elapsed() < PATIENCE => std::thread::sleep(TICK),
            Some(Err(error)) => return stays(slot, error.to_string()),
            None => {
                let why = "something still captures by it: stop that first (everpoint capture, or a daemon elsewhere)";
                return stays(slot, why.to_owned());
            }
        }
    }
}

/// Backups that are stored, as far as the repository can be read.
fn backups(session: &Session, name: &str) -> Option<usize> {
    let opened = session.cluster(name).ok()?;
    let listing = everpoint_app::list::run(&opened.context).ok()?;
    Some(listing.backups.iter().filter(|backup| backup.status == "ok").count())
}

fn next(config: &Config, cluster: &ClusterConfig, slot: &SlotReport, archives: &str) -> Vec<String> {
    let mut next = Vec::new();
    if let (Some(command), Some(why)) = (&slot.command, &slot.why) {
        next.push(format!(
            "the slot {} stays ({why}) and holds back the server's WAL; on the server: {command}",
            slot.name
        ));
    }
    match archives {
        "calls_us" => next.push(
            "archive_command still calls archive-push for it: change it before the server's disk is full".to_owned(),
        ),
        "elsewhere" => next.push(
            "archive_command calls something: look whether it leads to everpoint, which would refuse the log now"
                .to_owned(),
        ),
        "empty" => next.push(
            "archive_mode is on without an archive_command: unless archive_library does it, the server keeps all of its WAL \
             until its disk is full; on the server: ALTER SYSTEM SET archive_mode = off, and a restart; until then: ALTER \
             SYSTEM SET archive_command = '/bin/true'; SELECT pg_reload_conf()"
                .to_owned(),
        ),
        "unknown" => next.push("look whether archive_command of the server calls everpoint".to_owned()),
        _ => {}
    }
    if let Source::Postgres(postgres) = &cluster.source
        && let Some(PasswordSource::File(path)) = &postgres.password
        && !config.clusters.values().any(|other| other.name != cluster.name && uses(other, path))
    {
        next.push(format!("its password in {} is not needed any more", path.display()));
    }
    if let Ok(place) = config.repository_of(cluster) {
        next.push(format!(
            "what is stored of it stays, and nothing lets it go any more; to restore it: everpoint restore {} DIRECTORY \
             --repo {} (with --key-file, if the key is in one)",
            cluster.name, place.url
        ));
    }
    next
}

/// Whether a cluster has its password in this file.
fn uses(cluster: &ClusterConfig, path: &Path) -> bool {
    let Source::Postgres(postgres) = &cluster.source else { return false };
    matches!(&postgres.password, Some(PasswordSource::File(file)) if file == path)
}

fn told(report: &Report) -> String {
    let name = &report.cluster;
    let file = report.configuration.display();
    let mut out = match report.dry_run {
        true => format!("{name} would be forgotten: its table in {file} would become a comment\n"),
        false => format!("{name} is forgotten: its table in {file} is a comment now\n"),
    };
    if let Some(slot) = &report.slot {
        let became = match slot.state {
            "dropped" => "is dropped",
            "absent" => "is not there",
            "would_be_dropped" => "would be dropped",
            _ => "stays",
        };
        out.push_str(&format!("  slot {} {became}\n", slot.name));
    }
    if let (Some(place), Some(backups)) = (&report.repository, report.backups) {
        out.push_str(&format!("  {backups} good backups stay in {place}\n"));
    }
    report.next.iter().for_each(|next| out.push_str(&format!("  {next}\n")));
    out
}
