//! Keeps the segments ready that a recovering server will want next: see [`crate::archive_get`].

pub mod recovery;
#[cfg(test)]
mod tests;
mod window;

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use everpoint_core::{FailureClass, LogOffset};
use everpoint_engine::StopFlag;

use crate::archive_get::{self, ArchiveGetRequest, Choice, Spool};
use crate::log_file::{LogFile, SegmentName};
use crate::{AppError, ClusterContext};
use window::Window;

/// It ends when nothing was taken for so long.
const IDLE: Duration = Duration::from_secs(30);
/// How often it looks what was taken.
const POLL: Duration = Duration::from_millis(20);
/// Threads that fetch.
const THREADS: usize = 2;
/// So many segments are kept ready whatever their size.
const LEAST_SEGMENTS: u64 = 4;

/// What to keep ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefetchRequest {
    /// Where.
    pub spool: PathBuf,
    /// Name of the segment that was asked for last.
    pub after: String,
    /// See [`ArchiveGetRequest::branch`].
    pub branch: Option<String>,
    /// See [`ArchiveGetRequest::in_place_tablespaces`].
    pub in_place_tablespaces: bool,
    /// How many bytes, and four segments at least.
    pub bytes: u64,
    /// See [`ArchiveGetRequest::until`].
    pub until: Option<LogOffset>,
    /// See [`ArchiveGetRequest::recovery`].
    pub recovery: Option<PathBuf>,
}

impl PrefetchRequest {
    /// The recovery has ended, or its server has: nobody will ask any more.
    fn has_ended(&self) -> bool {
        self.recovery.as_deref().is_some_and(|data_dir| !recovery::runs_in(data_dir))
    }
}

/// What a background process should be started for after a file was fetched directly; `None` if one runs already, or the
/// request wants none.
#[must_use]
pub fn wanted(cluster: &str, request: &ArchiveGetRequest) -> Option<PrefetchRequest> {
    let spool = Spool::of(cluster, request).filter(|spool| !spool.is_being_filled())?;
    Some(PrefetchRequest {
        spool: spool.directory().to_owned(),
        after: request.name.clone(),
        branch: request.branch.clone(),
        in_place_tablespaces: request.in_place_tablespaces,
        bytes: request.look_ahead_bytes,
        until: request.until,
        recovery: request.recovery.clone(),
    })
}

/// Keeps segments ready until the recovery has ended, nothing was taken for 30 s, the directory is gone, or it is asked to
/// stop; then removes them. Returns at once if another process does it already, or if there is nothing more to fetch.
///
/// # Errors
/// If the spool can't be made, or nothing of the branch is stored.
pub fn run(context: &ClusterContext, request: &PrefetchRequest, stop: &StopFlag) -> Result<(), AppError> {
    let Some(LogFile::Segment(after)) = LogFile::parse(&request.after) else {
        let message = "it is not the name of a segment";
        return Err(AppError::new(
            "archive.file_name",
            FailureClass::Usage,
            "fetch what follows",
            &request.after,
            message,
        ));
    };
    let spool = Spool::at(request.spool.clone());
    let io = |error| AppError::io("make", spool.directory(), error);
    // A server that is gone has no directory; none is made for it.
    if request.has_ended() || spool.home().is_none_or(|home| !home.exists()) {
        return Ok(());
    }
    let Some(lock) = spool.fill().map_err(io)? else {
        return Ok(());
    };
    spool.clear();
    let result = Choice::new(context, request.branch.as_deref()).map(|choice| {
        let count = (request.bytes / choice.segment_size().max(1)).max(LEAST_SEGMENTS);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let window = Window::new(after, choice.segment_size(), count, request.until);
        let job = Job {
            context,
            request,
            choice: &choice,
            spool: &spool,
            window: Mutex::new(window),
            changed: Condvar::new(),
            stop,
        };
        job.run();
    });
    spool.remove();
    drop(lock);
    result
}

struct Job<'a> {
    context: &'a ClusterContext,
    request: &'a PrefetchRequest,
    choice: &'a Choice<'a>,
    spool: &'a Spool,
    window: Mutex<Window>,
    changed: Condvar,
    stop: &'a StopFlag,
}

impl Job<'_> {
    fn run(&self) {
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| self.fetch());
            }
            self.watch();
            self.window().close();
            self.changed.notify_all();
        });
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks what was taken until it is time to end.
    fn watch(&self) {
        let mut active = Instant::now();
        let goes_on = || !self.stop.is_set() && self.spool.directory().exists() && !self.request.has_ended();
        while active.elapsed() < IDLE && goes_on() && !self.window().is_done() {
            std::thread::sleep(POLL);
            let wanted = self.spool.take_wanted().and_then(|name| match LogFile::parse(name.trim()) {
                Some(LogFile::Segment(name)) => Some(name),
                _ => None,
            });
            let mut window = self.window();
            let mut moved = window.note_taken(&|name| self.spool.has(&name.to_string()));
            let unwanted = match wanted {
                Some(name) => {
                    moved = true;
                    window.aim_behind(name)
                }
                None => Vec::new(),
            };
            drop(window);
            unwanted.iter().for_each(|name| self.spool.drop_segment(&name.to_string()));
            if moved {
                active = Instant::now();
            }
            self.changed.notify_all();
        }
    }

    /// Fetches one segment after the other.
    fn fetch(&self) {
        while let Some(name) = self.next() {
            let fetched = self.fetch_one(name);
            let mut window = self.window();
            match fetched {
                // Meanwhile the server may have gone elsewhere.
                Ok(true) if window.is_wanted(name) => window.ready(name),
                Ok(true) => {
                    self.spool.drop_segment(&name.to_string());
                    window.forget(name);
                }
                Ok(false) => window.absent(name, Instant::now()),
                Err(error) => {
                    tracing::debug!(segment = %name, %error, "not fetched ahead");
                    window.absent(name, Instant::now());
                }
            }
        }
    }

    /// Waits for something to fetch; `None` at the end.
    fn next(&self) -> Option<SegmentName> {
        let mut window = self.window();
        loop {
            if window.is_closed() {
                return None;
            }
            if let Some(name) = window.begin_next(Instant::now()) {
                return Some(name);
            }
            window = self.changed.wait_timeout(window, IDLE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Only whole segments: what grows is fetched when it is asked for.
    fn fetch_one(&self, name: SegmentName) -> Result<bool, AppError> {
        let Some(start) = name.start(self.choice.segment_size()) else {
            return Ok(false);
        };
        let Some(log) = self.choice.log_with(name.timeline, start)? else {
            return Ok(false);
        };
        if log.segment_hash(start)?.is_none() {
            return Ok(false);
        }
        let text = name.to_string();
        let io = |error| AppError::io("write into", self.spool.directory(), error);
        self.spool.announce(&text).map_err(io)?;
        let put = match archive_get::segment(
            self.context,
            self.choice,
            &log,
            start,
            self.request.in_place_tablespaces,
        ) {
            Ok(Some(bytes)) => self.spool.put(&text, &bytes).map_err(io).map(|()| true),
            Ok(None) => Ok(false),
            Err(error) => Err(error),
        };
        self.spool.withdraw(&text);
        put
    }
}
