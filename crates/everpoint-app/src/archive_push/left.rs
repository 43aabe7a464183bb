//! Log of a timeline that its server has left: a server that was set back and then promoted still wants to have archived what
//! it wrote in between, under names that are taken. Refused, it would never come to its new timeline.

use std::path::Path;

use everpoint_core::followed;

use super::Place;
use crate::log_file::SegmentName;
use crate::text;

impl Place<'_> {
    /// What is said of a file that is given up because the server beside has left its timeline; `None`: it has not, or nothing
    /// tells.
    pub(super) fn given_up(&self, segment: SegmentName, name: &str) -> Option<String> {
        let engine = self.context.engine.as_ref();
        let place = engine.local_place(self.data_directory()?).ok()?;
        let history = place.history.filter(|_| place.timeline > segment.timeline)?;
        let steps = followed(&engine.history(&history).ok()?);
        let size = self.head_of(self.path).or_else(|_| self.head_beside()).ok()?.segment_size;
        let start = segment.start(size)?;
        let left = steps.iter().find(|step| step.timeline == segment.timeline && start < step.until)?;
        Some(format!(
            "{name} is not stored, as another content has its name: this server was set back, and has left timeline {} at {} for \
             timeline {}, from which on it is protected by itself; what it wrote before, since it was set back, only a backup \
             holds that is taken now: everpoint backup {}",
            segment.timeline,
            text::lsn(left.until),
            place.timeline,
            self.context.name
        ))
    }

    /// PostgreSQL runs the command in its data directory; behind a link, `pg_wal` does not lie in it.
    fn data_directory(&self) -> Option<&Path> {
        let here = Path::new(".");
        if here.join("PG_VERSION").exists() { Some(here) } else { self.directory.parent() }
    }
}
