//! Before a directory is written over in place: the log that only it may still hold goes into the repository.

mod before;
mod compare;
mod way;

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use everpoint_core::production::changes;
use everpoint_core::unsaved::{HeldLog, Unsaved, unsaved};
use everpoint_core::{BranchId, FailureClass, LogOffset, SeenBy, Span};
use everpoint_engine::LogSink;

use super::links::aside;
use crate::facts::{self, Facts};
use crate::log_writer::{LogWriter, fork};
use crate::production::{self as sightings, Place};
use crate::{AppError, ClusterContext, Event, Events, text, writable};
pub use before::early;
use way::Step;

/// Where archive-get leaves the error that stopped a recovery, beside the WAL.
pub const FETCH_ERROR: &str = "everpoint-fetch-error.json";

/// Stands in a restored directory that was not meant to replace production.
pub const COPY_MARK: &str = "everpoint.copy";

/// Bytes of log read at once.
const CHUNK: u64 = 1 << 20;

/// Stores the log that `pg_wal` holds beyond what the repository has, of every timeline on the way of the server that was in
/// the directory, and returns whether anything is known now that was not before. A directory of another cluster, or one
/// without log, has nothing to give; what a copy wrote is none of production's log, and goes with the directory. Where it is
/// only looked (`look`), nothing is stored: what would be is told, and what would refuse refuses.
///
/// # Errors
/// If the log is there and can't be stored: then nothing in the directory may be touched.
pub fn run(
    context: &ClusterContext,
    facts: &Facts,
    directory: &Path,
    (look, events): (bool, &dyn Events),
) -> Result<bool, AppError> {
    let part = facts.identity.as_ref().and_then(|(_, known)| {
        let version = known.server_version;
        context.engine.tablespace_directory(version)
    });
    save_all(context, facts, directory, (look, events))
        .map_err(|error| with_way_out(error, directory, part.as_deref()))
}

fn save_all(
    context: &ClusterContext,
    facts: &Facts,
    directory: &Path,
    (look, events): (bool, &dyn Events),
) -> Result<bool, AppError> {
    let Some((identity, known)) = &facts.identity else {
        return Ok(false);
    };
    if directory.join(COPY_MARK).exists() {
        return Ok(false);
    }
    let place = context.engine.local_place(directory)?;
    if place.system.to_string() != known.system_identifier {
        return Ok(false);
    }
    let (identity, segment_size) = (*identity, known.segment_size);
    Salvage { context, directory, identity, segment_size, look, events }.all(&place)
}

/// What to do about log that can't be saved.
fn with_way_out(mut error: AppError, directory: &Path, part: Option<&str>) -> AppError {
    let way = format!(
        "nothing in {} was changed; to restore without the log that only it holds, keep it aside, all of it: {}, then run the \
         same command again",
        directory.display(),
        aside(directory, part)
    );
    error.message.push_str("; without that, log that only the directory holds would be destroyed");
    error.hint = Some(match error.hint {
        Some(hint) => format!("{hint}; {way}"),
        None => way,
    });
    error
}

struct Salvage<'a> {
    context: &'a ClusterContext,
    directory: &'a Path,
    identity: u32,
    segment_size: u64,
    /// Nothing is stored.
    look: bool,
    events: &'a dyn Events,
}

impl Salvage<'_> {
    fn all(&self, place: &everpoint_engine::LocalPlace) -> Result<bool, AppError> {
        let way = self.way(place)?;
        let mut writer = LogWriter::open(self.context, self.identity, self.segment_size)?;
        let mut saved = false;
        for step in &way {
            saved |= self.save(step, &mut writer)?;
        }
        let noted = way.last().filter(|_| !self.look).map_or(Ok(false), |leaf| self.note(leaf))?;
        Ok(saved || noted)
    }

    /// Stores what is not stored of one timeline.
    fn save(&self, step: &Step, writer: &mut LogWriter) -> Result<bool, AppError> {
        let held = self.context.engine.local_log(self.directory, &step.local, self.segment_size)?;
        if held.runs.is_empty() && held.odd.is_empty() && step.left_at.is_some() {
            return Ok(false);
        }
        let history = step.history.as_deref().ok_or_else(|| self.no_history(step.local.timeline))?;
        let stored = writer.position(step.local.timeline, history)?;
        let facts =
            HeldLog { runs: &held.runs, odd: &held.odd, reached: step.local.reached, left_at: step.left_at };
        let found = unsaved(&facts, stored).map_err(|odd| self.unreadable(step, odd))?;
        if stored.is_some() || step.left_at.is_none() {
            self.tell(step, &found);
        }
        if let Some(known) = found.known {
            self.compare(step, history, known)?;
        }
        if found.spans.is_empty() {
            return Ok(false);
        }
        let log = self.directory.join("pg_wal");
        if self.look {
            return self.would_save(&log, &found.spans);
        }
        self.events.emit(Event::Step(format!("saving the WAL that only {} holds", log.display())));
        for span in found.spans {
            let run = held.runs.iter().find(|run| run.from <= span.from && span.to <= run.to);
            let begin = run.map_or(span.from, |run| run.from);
            self.copy(step, history, begin, span, writer)?;
        }
        Ok(true)
    }

    /// Says what would be stored, if it could be.
    fn would_save(&self, log: &Path, spans: &[Span]) -> Result<bool, AppError> {
        if let Some(error) = writable::seems_wrong(self.context) {
            return Err(error);
        }
        if let Some(last) = spans.last() {
            self.events.emit(Event::Warning(format!(
                "the WAL up to {} that only {} holds is saved first when this is done: the plan does not know it yet",
                text::lsn(last.to),
                log.display()
            )));
        }
        Ok(!spans.is_empty())
    }

    /// Stores a span, beginning with what is stored before it already (but not before `begin`), to compare that.
    fn copy(
        &self,
        step: &Step,
        history: &[u8],
        begin: LogOffset,
        span: Span,
        writer: &mut LogWriter,
    ) -> Result<(), AppError> {
        let timeline = step.local.timeline;
        let (engine, log) = (self.context.engine.as_ref(), self.directory.join("pg_wal"));
        let begins = (timeline, span.from);
        let joined = writer.forks(timeline, history, span.from, &mut |of, part| {
            fork::read_beside(engine, &log, self.segment_size, begins, (of, part))
        })?;
        if !joined {
            let text = fork::not_joined(&self.context.name, timeline, span.from);
            self.events.emit(Event::Warning(text));
        }
        writer.timeline(timeline, history, span.from)?;
        let mut at = writer.compares_from().map_or(span.from, |from| from.max(begin).min(span.from));
        // Only the timeline of a branch is in the names of its segments.
        let names =
            self.context.cluster.log(self.identity, BranchId::new(timeline, [0; 8]), self.segment_size);
        while at < span.to {
            let name = names.segment_name(at);
            let until = names.segment_start(at).plus(self.segment_size).min(span.to);
            let mut file = self.open(&name, at)?;
            while at < until {
                let count = usize::try_from(until.since(at).min(CHUNK)).unwrap_or_default();
                let mut bytes = vec![0; count];
                file.read_exact(&mut bytes).map_err(|error| self.io(&name, error))?;
                writer.write(at, &bytes)?;
                at = at.plus(count as u64);
            }
        }
        writer.timeline_end(at)?;
        let text = format!("WAL of timeline {timeline} up to {} is stored now", text::lsn(at));
        self.events.emit(Event::Info(text));
        Ok(())
    }

    fn open(&self, name: &str, at: LogOffset) -> Result<File, AppError> {
        let path = self.directory.join("pg_wal").join(name);
        let mut file = File::open(&path).map_err(|error| self.io(name, error))?;
        let into = at.0.checked_rem(self.segment_size).unwrap_or_default();
        file.seek(SeekFrom::Start(into)).map_err(|error| self.io(name, error))?;
        Ok(file)
    }

    fn io(&self, name: &str, error: std::io::Error) -> AppError {
        if error.kind() == ErrorKind::UnexpectedEof {
            let message = "the segment is shorter than it should be";
            return AppError::new("log.short", FailureClass::Damaged, "read", name, message);
        }
        AppError::io("read", &self.directory.join("pg_wal").join(name), error)
    }

    fn tell(&self, step: &Step, found: &Unsaved) {
        let (timeline, at) = (step.local.timeline, text::lsn);
        if let Some(missing) = found.missing {
            self.events.emit(Event::Warning(format!(
                "the server in {} has written WAL of timeline {timeline} up to {}, and what lies behind {} is neither stored \
                 nor in pg_wal: it is lost",
                self.directory.display(),
                at(missing.to),
                at(missing.from)
            )));
        }
        if let Some(stray) = found.stray {
            self.events.emit(Event::Warning(format!(
                "the WAL of timeline {timeline} in {} goes on at {} behind a place that no server replays; that is not saved",
                self.directory.display(),
                at(stray.from)
            )));
        }
    }

    /// Production is where its own directory is, if that goes on from where it was seen: a failover that nobody has told us of.
    fn note(&self, leaf: &Step) -> Result<bool, AppError> {
        let Some(history) = &leaf.history else {
            return Ok(false);
        };
        let place = Place {
            identity: self.identity,
            timeline: leaf.local.timeline,
            history,
            position: leaf.local.reached,
        };
        let facts = facts::load(self.context)?;
        if !changes(&facts.log, &place.seen(SeenBy::Push)) {
            return Ok(false);
        }
        let text = format!(
            "production goes on with timeline {}: {} was there when its server stopped",
            place.timeline,
            self.directory.display()
        );
        self.events.emit(Event::Info(text));
        sightings::note(self.context, &place, self.segment_size, SeenBy::Push)
    }

    fn unreadable(&self, step: &Step, odd: Span) -> AppError {
        let object = format!("the WAL of timeline {} at {}", step.local.timeline, text::lsn(odd.from));
        let message = format!(
            "its server has written more, and what {} holds there can't be read",
            self.directory.join("pg_wal").display()
        );
        AppError::new("restore.log_unsaved", FailureClass::Failed, "save", object, message)
    }

    fn no_history(&self, timeline: u32) -> AppError {
        let object = format!("the WAL of timeline {timeline}");
        let path = self.directory.join("pg_wal").join(format!("{timeline:08X}.history"));
        let message = format!("{} is not there, so nobody knows from where it goes on", path.display());
        AppError::new("restore.log_unsaved", FailureClass::Failed, "save", object, message)
            .hint("put that file back from a standby or an archive")
    }
}

/// A recovery that stopped because log could not be fetched gets the reason that archive-get left.
#[must_use]
pub fn with_fetch_error(error: AppError, directory: &Path) -> AppError {
    let left = directory.join("pg_wal").join(FETCH_ERROR);
    let Ok(text) = std::fs::read_to_string(left) else {
        return error;
    };
    let Ok(fetch) = serde_json::from_str::<FetchError>(&text) else {
        return error;
    };
    let class = if fetch.damaged { FailureClass::Damaged } else { error.class };
    AppError::new(&fetch.code, class, "replay", fetch.object, fetch.message).cause(error)
}

/// What archive-get leaves when it fails for another reason than "not there".
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct FetchError {
    /// Stable code.
    pub code: String,
    /// The file asked for.
    pub object: String,
    /// Why it could not be had.
    pub message: String,
    /// The repository holds it, but damaged.
    pub damaged: bool,
}

impl FetchError {
    /// Leaves it beside `destination`, best effort: the exit code stops the server anyway.
    pub fn leave(&self, destination: &Path) {
        if let (Some(directory), Ok(text)) = (destination.parent(), serde_json::to_string(self))
            && let Err(error) = std::fs::write(directory.join(FETCH_ERROR), text)
        {
            tracing::debug!(%error, "the reason could not be left beside the WAL");
        }
    }
}
