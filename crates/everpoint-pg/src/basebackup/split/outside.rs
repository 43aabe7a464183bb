//! What a base backup does not send: configuration outside of the data directory, and what links in it lead to.

use everpoint_engine::{EngineError, FileKind, PART_BYTES};

use super::{Arc, Job, Splitter};
use crate::outside::{Outside, OutsideFile, is_own_place};

/// Configuration at the top of a data directory, without which its server was started with files from elsewhere.
const USUAL: [&str; 3] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];

impl Splitter<'_> {
    /// Remembers that a file came that may be configuration.
    pub(super) fn note(&mut self, path: &str) {
        if !is_own_place(path) {
            self.came.insert(path.to_owned());
        }
    }

    /// Adds what was read beside the stream and did not come with it. What is missing then is noted in `outside`.
    pub(in super::super) fn outside(&mut self, outside: &mut Outside) -> Result<(), EngineError> {
        for file in &outside.files {
            self.whole(file, FileKind::External)?;
        }
        for file in &outside.inside {
            // A base backup passes over links; the server's functions follow them.
            if !self.came.contains(&file.path) {
                self.whole(file, FileKind::Plain)?;
            }
        }
        let came = &self.came;
        outside.missed_inside(|path| came.contains(path));
        if !outside.known {
            for name in USUAL.into_iter().filter(|name| !came.contains(*name)) {
                let reason = "the role can't see where it lies".to_owned();
                outside.lacks.insert(name.to_owned(), reason);
            }
        }
        Ok(())
    }

    fn whole(&mut self, file: &OutsideFile, kind: FileKind) -> Result<(), EngineError> {
        let meta = Arc::new(file.meta(kind));
        let mut parts = file.bytes.chunks(PART_BYTES).peekable();
        let mut offset = 0;
        loop {
            let mut data = self.buffer()?;
            data.extend_from_slice(parts.next().unwrap_or_default());
            let (length, last) = (data.len() as u64, parts.peek().is_none());
            self.send(Job { file: Arc::clone(&meta), pages: None, offset, data, last })?;
            if last {
                return Ok(());
            }
            offset += length;
        }
    }
}
