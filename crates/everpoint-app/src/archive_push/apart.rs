//! A server whose log went another way than the stored one is remembered beside its log: once it has recycled the segments that
//! differ, nothing else tells that what it writes next does not follow what is stored.

use std::io::ErrorKind;
use std::path::PathBuf;

use everpoint_core::{FailureClass, LogOffset};
use serde::{Deserialize, Serialize};

use super::{DIFFERS, Place};
use crate::log_file::SegmentName;
use crate::log_writer::DIVERGED_HINT;
use crate::{AppError, text};

/// Where it is remembered, beside the segments.
const FILE: &str = "everpoint-apart.json";

/// From where on log of a timeline that this server writes is not what is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Apart {
    /// The repository, and the name of the cluster in it: elsewhere nothing of the other server is stored.
    repository: String,
    cluster: String,
    timeline: u32,
    /// Start of the first segment that was refused.
    from: u64,
}

impl Place<'_> {
    fn apart_file(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    fn apart(&self) -> Result<Option<Apart>, AppError> {
        let path = self.apart_file();
        match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            // One that can't be understood tells of nothing: a crash may have left it so.
            other => {
                let found =
                    serde_json::from_slice(&other.map_err(|error| AppError::io("read", &path, error))?);
                Ok(found.ok().filter(|apart: &Apart| {
                    apart.repository == self.repository() && apart.cluster == self.context.name
                }))
            }
        }
    }

    fn repository(&self) -> String {
        self.context.repository.id().to_string()
    }

    /// Whether what this server writes of a timeline from a position on is known not to follow what is stored.
    pub(super) fn is_apart(&self, timeline: u32, from: LogOffset) -> Result<bool, AppError> {
        Ok(self.apart()?.is_some_and(|apart| apart.timeline == timeline && apart.from <= from.0))
    }

    /// Remembers that a segment was refused. Best effort: it is refused in any case.
    pub(super) fn note_apart(&self, segment: SegmentName, segment_size: u64) {
        let Some(start) = segment.start(segment_size) else { return };
        if self.is_apart(segment.timeline, start).unwrap_or(true) {
            return;
        }
        let apart = Apart {
            repository: self.repository(),
            cluster: self.context.name.clone(),
            timeline: segment.timeline,
            from: start.0,
        };
        let written = serde_json::to_vec(&apart).map_err(std::io::Error::from);
        if let Err(error) = written.and_then(|bytes| std::fs::write(self.apart_file(), bytes)) {
            tracing::warn!(%error, "that the server's log went another way could not be remembered");
        }
    }

    /// A segment is what is stored: the server is one that writes that log.
    pub(super) fn forget_apart(&self, timeline: u32, start: LogOffset) -> Result<(), AppError> {
        if !self.is_apart(timeline, start)? {
            return Ok(());
        }
        let path = self.apart_file();
        std::fs::remove_file(&path).map_err(|error| AppError::io("remove", &path, error))
    }
}

/// Why a segment of such a server is not stored.
pub(super) fn refused(name: SegmentName, start: LogOffset) -> AppError {
    let message = format!(
        "this server's log went another way than the stored one before {}: what it writes does not follow that; nothing was \
         changed",
        text::lsn(start)
    );
    AppError::new(DIFFERS, FailureClass::Damaged, "store", name.to_string(), message).hint(DIVERGED_HINT)
}
