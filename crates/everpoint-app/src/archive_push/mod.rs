//! `archive-push`: stores a file that PostgreSQL wants to have archived; returns only when it is durable.
//!
//! PostgreSQL asks for one file at a time. So that a burst drains in parallel, segments that wait in `archive_status` are
//! stored along with the one asked for; when their turn comes only their checksum is compared.

mod apart;
mod batch;
mod left;
mod origin;
mod segment;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use everpoint_core::{FailureClass, SeenBy};
use everpoint_engine::LogHead;
use everpoint_repo::{LogStore, Stored, code};
use serde::Serialize;

use crate::lineage::{Lineage, branch_id};
use crate::log_file::{LogFile, SegmentName};
use crate::log_writer::DIVERGED_HINT;
use crate::restore::salvage::COPY_MARK;
use crate::{AppError, ClusterContext, Event, Events, production};
use segment::Pushed;

/// What to store.
#[derive(Debug, Clone)]
pub struct ArchivePushRequest {
    /// The file, as PostgreSQL names it with `%p`.
    pub path: PathBuf,
    /// How many segments that wait behind it are stored along at most.
    pub look_ahead: usize,
}

/// What was done.
#[derive(Debug, Clone, Serialize)]
pub struct ArchivePushReport {
    /// Name of the file.
    pub name: String,
    /// It was stored now; else the same content was stored before, or it was given up.
    pub stored: bool,
    /// Segments that were stored along.
    pub ahead: usize,
}

/// Code of errors that say that another content is stored.
const DIFFERS: &str = "archive.differs";

/// The first page of a segment.
const PAGE: u64 = 8192;

/// Stores a file of the log.
///
/// # Errors
/// `Damaged` if it belongs to another cluster, or another content is stored under its name, and its server has not left its
/// timeline since: nothing was changed.
pub fn run(
    context: &ClusterContext,
    request: &ArchivePushRequest,
    events: &dyn Events,
) -> Result<ArchivePushReport, AppError> {
    let name = request.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some(file) = LogFile::parse(&name) else {
        let message = "its name is none of a file of the log";
        return Err(AppError::new("archive.file_name", FailureClass::Usage, "store", &name, message)
            .hint("archive_command = 'everpoint archive-push CLUSTER %p'"));
    };
    let place = Place { context, path: &request.path, directory: directory_of(&request.path) };
    let copy = is_copy(&place.directory);
    if copy {
        events.emit(Event::Warning(production::marked(context, None)));
    }
    let pushed = match file {
        LogFile::Segment(segment) => {
            origin::refuse_clone(context, &request.path, &place.directory)?;
            batch::run(&place, segment, request.look_ahead, events)
                .and_then(|pushed| if copy { Ok(()) } else { place.note(segment) }.map(|()| pushed))
        }
        LogFile::History(timeline) => Ok((place.push_history(timeline)?, 0)),
        LogFile::Partial(segment) | LogFile::Backup(segment) => {
            place.push_other(segment, &name).map(|stored| (stored, 0))
        }
    };
    let (stored, ahead) = pushed.or_else(|error| match file {
        LogFile::Segment(segment) | LogFile::Partial(segment) | LogFile::Backup(segment)
            if error.code == DIFFERS && !copy =>
        {
            if matches!(file, LogFile::Segment(_))
                && let Ok(head) = place.head_of(&request.path)
            {
                place.note_apart(segment, head.segment_size);
            }
            let given_up = place.given_up(segment, &name).ok_or(error)?;
            events.emit(Event::Warning(given_up));
            Ok((Stored::AlreadySame, 0))
        }
        _ => Err(error),
    })?;
    Ok(ArchivePushReport { name, stored: stored == Stored::New, ahead })
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Whether the data directory is marked as a copy. PostgreSQL runs the command in it and names files relative to it; behind
/// a link, `pg_wal` does not lie in it.
fn is_copy(log: &Path) -> bool {
    let above = log.parent().map(|above| above.join(COPY_MARK));
    let here = Path::new("PG_VERSION").exists().then(|| PathBuf::from(COPY_MARK));
    above.into_iter().chain(here).any(|mark| std::fs::symlink_metadata(mark).is_ok())
}

/// A file and what lies beside it.
struct Place<'a> {
    context: &'a ClusterContext,
    path: &'a Path,
    directory: PathBuf,
}

impl Place<'_> {
    /// Stores the history of a timeline.
    fn push_history(&self, timeline: u32) -> Result<Stored, AppError> {
        let bytes = read(self.path)?;
        self.context.engine.history(&bytes)?;
        let head = self.head_beside()?;
        Ok(self.lineage(&head)?.log(branch_id(timeline, &bytes)).put_history(&bytes)?)
    }

    /// Notes that production pushes the branch of this segment: where nothing else brings the log, a failover shows in
    /// nothing else.
    fn note(&self, segment: SegmentName) -> Result<(), AppError> {
        let head = self.head_of(self.path)?;
        let lineage = self.lineage(&head)?;
        let (log, history) = self.log(&lineage, segment.timeline)?;
        let place = production::Place {
            identity: lineage.identity,
            timeline: segment.timeline,
            history: &history,
            position: head.start,
        };
        // What is pushed without its history has a branch that is not named after it.
        if place.branch() == *log.branch() {
            production::note(self.context, &place, head.segment_size, SeenBy::Push)?;
        }
        Ok(())
    }

    /// Stores a `.partial` or `.backup` file.
    fn push_other(&self, segment: SegmentName, name: &str) -> Result<Stored, AppError> {
        let bytes = read(self.path)?;
        // A segment says itself to which cluster it belongs.
        let head = match self.context.engine.log_head(&bytes) {
            Ok(head) => head,
            Err(_) => self.head_beside()?,
        };
        let stored = self.log(&self.lineage(&head)?, segment.timeline)?.0.put_other(name, &bytes);
        stored.map_err(
            |error| {
                if error.code == code::DIFFERS { differs(name).cause(error) } else { error.into() }
            },
        )
    }

    /// What the newest segment beside the file says about the cluster.
    fn head_beside(&self) -> Result<LogHead, AppError> {
        let entries = std::fs::read_dir(&self.directory)
            .map_err(|error| AppError::io("list", &self.directory, error))?;
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(|error| AppError::io("list", &self.directory, error))?.file_name();
            if let Some(LogFile::Segment(segment)) = name.to_str().and_then(LogFile::parse) {
                names.push(segment);
            }
        }
        names.sort_unstable();
        // Segments that are kept for later use are not written yet; they still begin as they did in their former life.
        let head = |name: &SegmentName| self.head_of(&self.directory.join(name.to_string())).ok();
        names.iter().rev().find_map(head).ok_or_else(|| {
            let object = self.path.display().to_string();
            let message = "no segment beside it tells to which cluster it belongs";
            AppError::new("archive.no_segment", FailureClass::Failed, "store", object, message)
        })
    }

    fn head_of(&self, path: &Path) -> Result<LogHead, AppError> {
        let mut page = Vec::new();
        let file = File::open(path).map_err(|error| AppError::io("read", path, error))?;
        file.take(PAGE).read_to_end(&mut page).map_err(|error| AppError::io("read", path, error))?;
        Ok(self.context.engine.log_head(&page)?)
    }

    /// The branches of the identity that wrote a segment.
    fn lineage(&self, head: &LogHead) -> Result<Lineage<'_>, AppError> {
        let cluster = &self.context.cluster;
        let identity = cluster.identity_for(head.system, head.version, head.segment_size, false).map_err(|error| {
            if error.code != code::WRONG_CLUSTER {
                return AppError::from(error);
            }
            let message = format!("it was written by another cluster (system identifier {})", head.system);
            AppError::new("archive.wrong_cluster", FailureClass::Damaged, "store", self.path.display().to_string(), message)
                .hint(format!(
                    "archive_command of this server names {}, which is somebody else: give each cluster a name of its own",
                    self.context.name
                ))
                .cause(error)
        })?;
        Ok(Lineage {
            cluster,
            engine: self.context.engine.as_ref(),
            identity: identity.0,
            segment_size: head.segment_size,
        })
    }

    /// The log of a timeline, with its history: by the history file beside, else the only branch that is stored.
    fn log(&self, lineage: &Lineage<'_>, timeline: u32) -> Result<(LogStore, Vec<u8>), AppError> {
        if timeline == 1 {
            return Ok((lineage.log(branch_id(1, &[])), Vec::new()));
        }
        let path = self.directory.join(format!("{timeline:08X}.history"));
        match std::fs::read(&path) {
            Ok(history) => return Ok((lineage.log(branch_id(timeline, &history)), history)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(AppError::io("read", &path, error)),
        }
        let mut branches = lineage.of_timeline(timeline)?;
        match (branches.pop(), branches.is_empty()) {
            (Some(branch), true) => {
                let log = lineage.log(branch);
                let history = log.history()?.unwrap_or_default();
                Ok((log, history))
            }
            (None, _) => Ok((lineage.log(branch_id(timeline, &[])), Vec::new())),
            (Some(_), false) => {
                let object = self.path.display().to_string();
                let message =
                    format!("several branches have timeline {timeline}, and {} is not there", path.display());
                Err(AppError::new("archive.no_history", FailureClass::Failed, "store", object, message)
                    .hint("put the timeline's history file back beside it"))
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, AppError> {
    std::fs::read(path).map_err(|error| AppError::io("read", path, error))
}

/// Another content is stored under the name.
fn differs(name: &str) -> AppError {
    let message = "another content is stored under this name; nothing was changed";
    AppError::new(DIFFERS, FailureClass::Damaged, "store", name, message)
        .hint(format!("{DIVERGED_HINT}, or switch its archive_mode off"))
}
