//! One base backup from the first command to the last fact.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use everpoint_core::{FailureClass, LogOffset, Micros};
use everpoint_engine::{
    BackupBegin, BackupEnd, BackupOptions, EngineError, ImageSink, PART_BYTES, TablespaceLink,
};

use super::archives::{Answer, Piece};
use super::passed_over::Sent;
use super::split::Splitter;
use super::torn::TornJudge;
use super::worker::{Job, drain, work};
use super::{command, spaces};
use crate::catalog;
use crate::client::{Config, PgError, Purpose, Rows, connect};
use crate::engine::copies::says_nothing;
use crate::engine::relative_of;
use crate::files::{Live, Notes};
use crate::lsn::Lsn;
use crate::outside::{Outside, look};
use crate::page::PAGE_BYTES;
use crate::replication::{Replication, parse_size};

/// Oldest server that has MANIFEST and with it this command's syntax.
const OLDEST: u32 = 13;

/// Permissions of a directory that stands for an in-place tablespace.
const DIRECTORY_MODE: u32 = 0o700;

/// Permissions of a file that stands in for one of the server's.
const FILE_MODE: u32 = 0o600;

/// Takes a full image into the sink. `system` is the system identifier that the server must have; `None`: any.
///
/// Damaged pages do not fail the backup; the sink is told with the part that holds them.
///
/// # Errors
/// If the server refuses or breaks off, or the sink can't store. Nothing is left behind on the server.
pub fn base_backup(
    config: &Config,
    system: Option<u64>,
    options: &BackupOptions,
    sink: &dyn ImageSink,
) -> Result<BackupEnd, EngineError> {
    let object = config.to_string();
    let fail = |error: PgError| error.at("back up", object.clone());
    let mut replication = Replication::open(config).map_err(fail)?;
    let facts = Facts::read(&mut replication, system, &object)?;
    let started_at = replication.server_time().map_err(fail)?;
    let mut outside = beside(config, None);
    let live = known(config);
    let refuses_copy = says_nothing(config);
    let notes = Notes::default();
    let command = command::base_backup(facts.major, options);
    replication.connection().send_query(&command).map_err(fail)?;
    let mut answer = Answer::new(replication.connection(), &options.stop, &object);
    let (start, timeline) = position(&answer.rows()?, &object)?;
    let list = answer.rows()?;
    let archives = archives(&list);
    answer.expect(archives.len());
    let listed = archives.iter().filter_map(|archive| archive.link.clone()).collect();
    let links = spaces::with_in_place(listed, live.as_ref());
    sink.begin(&BackupBegin {
        start,
        timeline,
        started_at,
        tablespaces: links.clone(),
        expected_bytes: archives.iter().map(|archive| archive.expected_bytes).sum(),
        page_size: facts.page_size,
        method: "replication",
    })?;
    let leave_out = relative_of(config, &options.leave_out, &links).unwrap_or_else(|| {
        sink.warn(
            "what lies inside the data directory is backed up with it: the server does not say where it is",
        );
        Vec::new()
    });
    let judge = TornJudge::new(config, start);
    let check = facts.checksums && facts.page_size as usize == PAGE_BYTES;
    // Of a listed one of which nothing comes is told already.
    let mut spaces_came: BTreeSet<u32> =
        archives.iter().filter_map(|archive| archive.link.as_ref()).map(|link| link.oid).collect();
    let reader = |splitter: &mut Splitter<'_>| {
        splitter.leave_out = leave_out;
        splitter.live = live.clone();
        splitter.refuses_copy = refuses_copy;
        if command::makes_map(facts.major) {
            let map = command::tablespace_map(links.iter());
            if !map.is_empty() {
                splitter.file("tablespace_map", &map, FILE_MODE, started_at)?;
            }
        }
        read(&mut answer, &archives, splitter, started_at)?;
        spaces_came.append(&mut splitter.spaces);
        splitter.outside(&mut outside)
    };
    transfer(options, sink, &judge, check, &object, &notes, reader)?;
    answer.has_come();
    let (stop, timeline) = position(&answer.rows()?, &object)?;
    if let Some(damaged) = answer.finish()? {
        sink.warn(&format!("the server, too, found damaged pages: {}", damaged.message));
    }
    let warnings = replication.connection().take_warnings();
    let came = outside.inside.iter().map(|file| file.path.clone()).collect();
    let sent = Sent { object: &object, links: &links, came: &came, live: live.as_ref(), checks: check };
    let warned = sent.judge(&warnings, &notes)?;
    spaces::all_came(&object, &spaces_came, live.as_ref(), known(config).as_ref())?;
    let lacking = notes.facts();
    let stopped_at = replication.server_time().map_err(fail)?;
    let mut facts = catalog::facts(replication.connection()).map_err(fail)?;
    match connect(config, Purpose::Sql).and_then(|mut sql| catalog::sql_facts(&mut sql)) {
        Ok(more) => facts.extend(more),
        Err(error) => {
            tracing::debug!(%error, "no ordinary connection; extensions and collations are not recorded")
        }
    }
    facts.extend(outside.facts());
    facts.extend(lacking);
    facts.extend(warned);
    Ok(BackupEnd { stop, timeline, stopped_at, facts })
}

/// Configuration outside of the data directory, as far as SQL reaches it; with `data_dir`, also by its files.
pub(crate) fn beside(config: &Config, data_dir: Option<&Path>) -> Outside {
    match connect(config, Purpose::Sql) {
        Ok(mut sql) => look(Some(&mut sql), data_dir),
        Err(error) => {
            tracing::debug!(%error, "no ordinary connection; configuration is looked for without");
            look(None, data_dir)
        }
    }
}

/// Databases and tablespaces that the server knows, as far as SQL reaches it.
fn known(config: &Config) -> Option<Live> {
    connect(config, Purpose::Sql).ok().and_then(|mut sql| catalog::live(&mut sql))
}

/// What must be known before.
struct Facts {
    major: u32,
    checksums: bool,
    page_size: u32,
}

impl Facts {
    fn read(replication: &mut Replication, system: Option<u64>, object: &str) -> Result<Self, EngineError> {
        let fail = |error: PgError| error.at("back up", object);
        let identity = replication.identify().map_err(fail)?;
        crate::replication::check_system(system, identity.system, object)?;
        let major = identity.version / 10_000;
        if major < OLDEST {
            let message =
                format!("version {} is too old, {OLDEST} is the oldest supported", identity.version_text);
            return Err(EngineError::new("pg.version", "back up", object, message).class(FailureClass::Usage));
        }
        if !replication.connection().tells_warnings().map_err(fail)? {
            let message = "the session is not sent warnings (client_min_messages): what the server passes over when it \
                           sends its files would be lost in silence";
            return Err(EngineError::new("pg.files", "back up", object, message).hint(
                "take client_min_messages out of the server's configuration, or connect to the server itself",
            ));
        }
        let checksums = replication.connection().show("data_checksums").map_err(fail)? == "on";
        let text = replication.connection().show("block_size").map_err(fail)?;
        let page_size = parse_size(&text).and_then(|size| u32::try_from(size).ok());
        let page_size = page_size.ok_or_else(|| fail(PgError::Protocol(format!("block_size {text}"))))?;
        Ok(Self { major, checksums, page_size })
    }
}

/// One archive of the stream.
struct Archive {
    /// Where its paths stand: empty for the data directory.
    prefix: String,
    link: Option<TablespaceLink>,
    expected_bytes: u64,
}

fn archives(list: &Rows) -> Vec<Archive> {
    (0..list.0.len())
        .map(|row| {
            let expected_bytes = list
                .get(row, 2)
                .and_then(|kib| kib.parse::<u64>().ok())
                .unwrap_or_default()
                .saturating_mul(1024);
            let oid: Option<u32> = list.get(row, 0).and_then(|oid| oid.parse().ok());
            let prefix = oid.map_or_else(String::new, |oid| format!("pg_tblspc/{oid}/"));
            let link = oid.map(|oid| TablespaceLink {
                oid,
                // An in-place tablespace, a directory below pg_tblspc, is listed with a relative path.
                path: list.get(row, 1).filter(|path| path.starts_with('/')).map(str::to_owned),
            });
            Archive { prefix, link, expected_bytes }
        })
        .collect()
}

/// Reads a position and its timeline.
fn position(rows: &Rows, object: &str) -> Result<(LogOffset, u32), EngineError> {
    let lsn = rows.get(0, 0).and_then(|text| text.parse::<Lsn>().ok());
    let timeline = rows.get(0, 1).and_then(|text| text.parse().ok());
    lsn.map(LogOffset::from)
        .zip(timeline)
        .ok_or_else(|| PgError::Protocol("a backup without a position".to_owned()).at("back up", object))
}

/// Moves all archives into the splitter.
fn read(
    answer: &mut Answer<'_>,
    archives: &[Archive],
    splitter: &mut Splitter<'_>,
    now: Micros,
) -> Result<(), EngineError> {
    loop {
        match answer.piece()? {
            Piece::Archive(number) => {
                let archive = archives.get(number);
                splitter.archive(archive.map_or_else(String::new, |archive| archive.prefix.clone()))?;
                let in_place =
                    archive.and_then(|it| it.link.as_ref()).is_some_and(|link| link.path.is_none());
                if let (true, Some(archive)) = (in_place, archive) {
                    let path = archive.prefix.trim_end_matches('/').to_owned();
                    splitter.directory(path, DIRECTORY_MODE, now)?;
                }
            }
            Piece::Data(bytes) => splitter.data(&bytes)?,
            Piece::End => return splitter.end(),
        }
    }
}

/// Runs the workers while `read` feeds them.
fn transfer(
    options: &BackupOptions,
    sink: &dyn ImageSink,
    judge: &TornJudge<'_>,
    check_pages: bool,
    object: &str,
    notes: &Notes,
    read: impl FnOnce(&mut Splitter<'_>) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let workers = options.workers.max(1);
    // One buffer in each worker, one waiting for each, one being filled, one spare: memory is bounded by these.
    let buffers = workers * 2 + 2;
    let (jobs_in, jobs_out) = sync_channel::<Job>(workers);
    let (free_in, free_out) = sync_channel::<Vec<u8>>(buffers);
    for _ in 0..buffers {
        if free_in.send(Vec::with_capacity(PART_BYTES)).is_err() {
            break;
        }
    }
    let failed = AtomicBool::new(false);
    let jobs_out = Mutex::new(jobs_out);
    let handles = (0..workers).map(|_| sink.worker()).collect::<Result<Vec<_>, _>>()?;
    thread::scope(|scope| {
        let mut threads = Vec::with_capacity(workers);
        for worker in handles {
            let (free, jobs, failed) = (free_in.clone(), &jobs_out, &failed);
            threads.push(scope.spawn(move || {
                crate::polite::step_back();
                let result = catch_unwind(AssertUnwindSafe(|| work(jobs, &free, judge, worker)))
                    .unwrap_or_else(|_| Err(worker_died(object)));
                if result.is_err() {
                    failed.store(true, Ordering::SeqCst);
                    drain(jobs, &free);
                }
                result
            }));
        }
        drop(free_in);
        let mut splitter = Splitter::new(jobs_in, free_out, &failed, check_pages, object, notes);
        let result = read(&mut splitter);
        drop(splitter);
        // A worker's own error says more than that the reading stopped because of it.
        for thread in threads {
            thread.join().map_err(|_| worker_died(object))??;
        }
        result
    })
}

fn worker_died(object: &str) -> EngineError {
    EngineError::new("pg.backup_stopped", "back up", object, "a worker thread panicked")
}
