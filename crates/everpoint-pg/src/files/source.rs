//! Backup by reading the files of a data directory, with several threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use everpoint_core::LogOffset;
use everpoint_core::name::{of_path, unescape};
use everpoint_engine::{
    BackupBegin, BackupEnd, BackupOptions, EngineError, FileKind, FileMeta, ImageSink, ImageWorker,
    PART_BYTES, Part, StopFlag,
};

use super::links::Links;
use super::needed::Live;
use super::notes::Notes;
use super::queue::Queue;
use super::reader::{Reader, Shared, failed, stopped};
use super::session::{BackupSession, SessionStart, SessionStop};
use super::throttle::Throttle;
use super::walk::{Found, Reason, Walk, WalkError, numbers, tablespaces};
use crate::control::{CONTROL_FILE, Control};
use crate::outside::OutsideFile;
use crate::polite;

/// Files listed ahead of the readers, about 300 bytes each.
const QUEUE: usize = 1 << 14;

/// How often the session of the backup is looked at.
const WATCH: Duration = Duration::from_millis(100);

impl From<WalkError> for EngineError {
    fn from(error: WalkError) -> Self {
        let path = of_path(&error.path);
        match error.reason {
            Reason::Io(cause) => failed("list", path, cause),
            reason @ Reason::Lost(_) => EngineError::new("pg.files", "back up", path, reason.to_string())
                .hint(
                    "the server needs it: put what belongs there back in its place, then run everpoint check",
                ),
        }
    }
}

/// Takes a full image of a running cluster by reading its files.
///
/// `external` are configuration files outside the data directory, by absolute path, see [`crate::outside`]. The session's
/// backup is stopped in every case; if that fails too, the first error counts.
///
/// # Errors
/// If the server refuses, a file can't be read or the sink can't store it, or it was asked to stop.
pub fn backup_files(
    data_dir: &Path,
    external: &[OutsideFile],
    session: &mut dyn BackupSession,
    options: &BackupOptions,
    sink: &dyn ImageSink,
) -> Result<BackupEnd, EngineError> {
    let control = read_control(data_dir)?;
    let start = session.start(&options.label, options.fast_checkpoint)?;
    let live = session.live();
    let stop = StopFlag::default();
    let watched = BackupOptions { stop: stop.clone(), ..options.clone() };
    let copy = || copy_all(data_dir, external, &control, live.as_ref(), &start, &watched, sink);
    let copied = while_alive(session, &options.stop, &stop, copy)?;
    let ended = session.stop();
    session.warnings().iter().for_each(|warning| sink.warn(&format!("the server warns: {warning}")));
    let (mut worker, torn, notes) = copied?;
    let mut stop = ended?;
    stop.facts.extend(notes.facts());
    give_text(&mut *worker, "backup_label", &stop.label_file)?;
    if !stop.tablespace_map.is_empty() {
        give_text(&mut *worker, "tablespace_map", &stop.tablespace_map)?;
    }
    worker.finish()?;
    check_torn(&torn, &stop)?;
    Ok(BackupEnd {
        stop: stop.position,
        timeline: stop.timeline,
        stopped_at: stop.stopped_at,
        facts: stop.facts,
    })
}

/// Copies in a thread of its own while this one watches the session: without it the server gives the backup up, and nobody
/// would know before the end. `stop` ends the copying: when `asked` does, or the session is gone.
fn while_alive<T: Send>(
    session: &mut dyn BackupSession,
    asked: &StopFlag,
    stop: &StopFlag,
    copy: impl FnOnce() -> Result<T, EngineError> + Send,
) -> Result<Result<T, EngineError>, EngineError> {
    thread::scope(|scope| {
        let copying = scope.spawn(copy);
        let mut gone = None;
        while !copying.is_finished() {
            if asked.is_set() {
                stop.stop();
            }
            if gone.is_none()
                && let Err(error) = session.alive()
            {
                stop.stop();
                gone = Some(error);
            }
            thread::sleep(WATCH);
        }
        let copied = copying.join().unwrap_or_else(|_| Err(thread_died()));
        gone.map_or(Ok(copied), Err)
    })
}

pub(super) fn read_control(data_dir: &Path) -> Result<Control, EngineError> {
    let path = data_dir.join(CONTROL_FILE);
    let name = path.display().to_string();
    let bytes =
        super::settled::read(&path, CONTROL_FILE).map_err(|error| failed("read", name.clone(), error))?;
    Control::parse(&bytes)
        .map_err(|error| EngineError::new("pg.control", "read", name, "it can't be understood").cause(error))
}

type Torn = Vec<super::reader::TornPage>;

/// Copies everything but the label; returns the worker that takes the label too.
fn copy_all<'s>(
    data_dir: &Path,
    external: &[OutsideFile],
    control: &Control,
    live: Option<&Live>,
    start: &SessionStart,
    options: &BackupOptions,
    sink: &'s dyn ImageSink,
) -> Result<(Box<dyn ImageWorker + 's>, Torn, Notes), EngineError> {
    let links = tablespaces(data_dir)
        .map_err(|error| failed("list", data_dir.join("pg_tblspc").display().to_string(), error))?;
    sink.begin(&BackupBegin {
        start: start.position,
        timeline: start.timeline,
        started_at: start.started_at,
        tablespaces: links,
        expected_bytes: start.expected_bytes,
        page_size: control.page_size,
        method: "files",
    })?;
    let shared = Shared {
        page_size: usize::try_from(control.page_size).unwrap_or(crate::page::PAGE_BYTES).max(512),
        pages_per_file: control.pages_per_file,
        checksums: control.checksum_version != 0,
        start: start.position,
        throttle: Throttle::new(options.rate_limit),
        stop: options.stop.clone(),
        torn: Mutex::new(Vec::new()),
        notes: Notes::default(),
    };
    let version_directory = version_directory(data_dir, control)?;
    let links = Links::new(data_dir, &version_directory);
    let leave_out = numbers(&options.leave_out);
    let (version_directory, leave_out, notes) = (version_directory.as_str(), &leave_out, &shared.notes);
    let walk = Walk { data_dir, version_directory, links, live, leave_out, notes };
    copy_tree(&walk, &shared, options.workers.max(1), sink)?;

    let mut worker = sink.worker()?;
    let mut reader = Reader::new(&shared);
    for file in external {
        give_outside(&mut *worker, file)?;
    }
    // Last of all: everything that it promises to be on disk has been read by then.
    let control_path = data_dir.join(CONTROL_FILE);
    let metadata =
        control_path.metadata().map_err(|error| failed("read", control_path.display().to_string(), error))?;
    let control = Found::new(CONTROL_FILE, control_path, FileKind::Plain, &metadata);
    reader.read(&Found { settles: true, needed: true, ..control }, &mut *worker)?;
    let torn = shared.torn.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((worker, torn, shared.notes))
}

/// The name of this server's part of a tablespace: major version and version of the catalogs.
pub(super) fn version_directory(data_dir: &Path, control: &Control) -> Result<String, EngineError> {
    let path = data_dir.join("PG_VERSION");
    let major =
        std::fs::read_to_string(&path).map_err(|error| failed("read", path.display().to_string(), error))?;
    Ok(format!("PG_{}_{}", major.trim(), control.catalog_version))
}

/// Lists in this thread, reads in `workers` others.
fn copy_tree(
    walk: &Walk<'_>,
    shared: &Shared,
    workers: usize,
    sink: &dyn ImageSink,
) -> Result<(), EngineError> {
    let queue = Queue::new(QUEUE);
    let failed_somewhere = AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| {
                    polite::step_back();
                    let work = || read_queued(&queue, shared, sink, &failed_somewhere);
                    let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(thread_died()));
                    if result.is_err() {
                        failed_somewhere.store(true, Ordering::SeqCst);
                        // A reader that died has left files in the queue, and the listing thread waits for room.
                        while queue.pop().is_some() {}
                    }
                    result
                })
            })
            .collect();
        let listed = list(walk, &queue, shared, &failed_somewhere);
        queue.close();
        let mut first_error = None;
        for thread in threads {
            let result = thread.join().unwrap_or_else(|_| Err(thread_died()));
            first_error = first_error.or(result.err());
        }
        // A reader's error stops the listing: it is the cause then.
        first_error.map_or(listed, Err)
    })
}

fn thread_died() -> EngineError {
    EngineError::new("pg.files", "read", "the data directory", "a reading thread died")
}

fn list(
    walk: &Walk<'_>,
    queue: &Queue,
    shared: &Shared,
    failed_somewhere: &AtomicBool,
) -> Result<(), EngineError> {
    walk.run(&mut |found: Found| {
        if shared.stop.is_set() || failed_somewhere.load(Ordering::SeqCst) {
            return Err(stopped());
        }
        if found.meta.path == CONTROL_FILE {
            return Ok(());
        }
        queue.push(found);
        Ok(())
    })
}

fn read_queued(
    queue: &Queue,
    shared: &Shared,
    sink: &dyn ImageSink,
    failed_somewhere: &AtomicBool,
) -> Result<(), EngineError> {
    let mut result = sink.worker();
    let mut reader = Reader::new(shared);
    // The queue is emptied even after an error, or the listing thread would wait for room in it forever.
    while let Some(found) = queue.pop() {
        if failed_somewhere.load(Ordering::SeqCst) {
            continue;
        }
        if let Ok(worker) = &mut result
            && let Err(error) = reader.read(&found, &mut **worker)
        {
            failed_somewhere.store(true, Ordering::SeqCst);
            result = Err(error);
        }
    }
    result?.finish()
}

fn give_text(worker: &mut dyn ImageWorker, name: &str, text: &str) -> Result<(), EngineError> {
    let meta = FileMeta {
        path: name.to_owned(),
        kind: FileKind::Plain,
        mode: 0o600,
        modified: everpoint_core::Micros(0),
        size_hint: text.len() as u64,
    };
    worker.part(&meta, Part { offset: 0, data: &unescape(text), last: true, damaged_pages: &[] })
}

/// Hands over a file from outside of the data directory.
fn give_outside(worker: &mut dyn ImageWorker, file: &OutsideFile) -> Result<(), EngineError> {
    let meta = file.meta(FileKind::External);
    let parts = file.bytes.chunks(PART_BYTES).count().max(1);
    for part in 0..parts {
        let data = file.bytes.chunks(PART_BYTES).nth(part).unwrap_or_default();
        let offset = (part * PART_BYTES) as u64;
        worker.part(&meta, Part { offset, data, last: part + 1 == parts, damaged_pages: &[] })?;
    }
    Ok(())
}

/// Torn pages must have been written during the backup: only then does the log hold an image of them.
fn check_torn(torn: &Torn, stop: &SessionStop) -> Result<(), EngineError> {
    let Some(page) = torn.iter().find(|page| page.lsn > stop.position) else {
        return Ok(());
    };
    let lsn = crate::lsn::Lsn::from(page.lsn);
    let message = format!("page {} claims to be changed at {lsn}, after the end of the backup", page.block);
    Err(EngineError::new("pg.page_damaged", "read", page.path.clone(), message)
        .class(everpoint_core::FailureClass::Damaged)
        .hint("look at the disk and the server's log; pg_checksums on a stopped server lists all bad pages"))
}

/// The position at which a backup's label says that replay begins; `None` if the text is no label.
#[must_use]
pub fn label_start(label_file: &str) -> Option<LogOffset> {
    let line = label_file.lines().find_map(|line| line.strip_prefix("START WAL LOCATION: "))?;
    line.split_whitespace().next()?.parse::<crate::lsn::Lsn>().ok().map(LogOffset::from)
}
