//! Takes archives apart into parts for the workers.

mod outside;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use everpoint_core::{FailureClass, Micros};
use everpoint_engine::{EngineError, FileKind, FileMeta, PART_BYTES};

use super::spaces;
use super::tar::{Entry, EntryKind, TarEvent, TarReader};
use super::worker::Job;
use crate::files::{Class, Live, Notes, PUT_ASIDE, Pages, beyond, classify, is_of_live};
use crate::page::PAGE_BYTES;
use crate::recovery::COPY_SETTING;

/// Written by the server for this very backup, although a data directory's own files of these names are left out.
const MADE_BY_THE_BACKUP: [&str; 2] = ["backup_label", "tablespace_map"];

/// Why an archive without any entry is no tablespace.
const NOTHING_SENT: &str = "the server sent nothing of it: what its link leads to is not there";

/// The file that is being read.
struct Open {
    file: Arc<FileMeta>,
    pages: Option<Pages>,
    offset: u64,
    size: u64,
    buffer: Vec<u8>,
}

/// Splits one archive after the other.
pub(super) struct Splitter<'a> {
    jobs: SyncSender<Job>,
    free: Receiver<Vec<u8>>,
    failed: &'a AtomicBool,
    check_pages: bool,
    object: &'a str,
    reader: TarReader,
    prefix: String,
    /// Paths, as the image names them, that are left out with what is below them.
    pub(super) leave_out: Vec<String>,
    /// What the server knows, if that is known: pages of no database are not checked.
    pub(super) live: Option<Live>,
    /// A mark of a copy ends the backup: nothing else has told that the server is one.
    pub(super) refuses_copy: bool,
    notes: &'a Notes,
    /// Entries of the archive so far.
    entries: u64,
    open: Option<Open>,
    /// Files that came and may be configuration.
    came: BTreeSet<String>,
    /// Tablespaces of which something came.
    pub(super) spaces: BTreeSet<u32>,
}

impl<'a> Splitter<'a> {
    pub(super) fn new(
        jobs: SyncSender<Job>,
        free: Receiver<Vec<u8>>,
        failed: &'a AtomicBool,
        check_pages: bool,
        object: &'a str,
        notes: &'a Notes,
    ) -> Self {
        Self {
            jobs,
            free,
            failed,
            check_pages,
            object,
            reader: TarReader::default(),
            prefix: String::new(),
            leave_out: Vec::new(),
            live: None,
            refuses_copy: false,
            notes,
            entries: 0,
            open: None,
            came: BTreeSet::new(),
            spaces: BTreeSet::new(),
        }
    }

    /// A new archive begins, whose paths stand below `prefix` (empty, or with a slash at its end).
    pub(super) fn archive(&mut self, prefix: String) -> Result<(), EngineError> {
        self.end()?;
        self.reader = TarReader::default();
        self.prefix = prefix;
        self.entries = 0;
        Ok(())
    }

    /// The archive is complete.
    pub(super) fn end(&mut self) -> Result<(), EngineError> {
        let space = self.prefix.trim_end_matches('/');
        if !space.is_empty() && self.entries == 0 {
            self.notes.lacks(space, NOTHING_SENT);
        }
        let finished = self.reader.finish();
        finished.map_err(|error| self.broken(error.to_string()))
    }

    /// Takes bytes of the archive.
    pub(super) fn data(&mut self, mut input: &[u8]) -> Result<(), EngineError> {
        loop {
            let event = self.reader.next(&mut input);
            match event.map_err(|error| self.broken(error.to_string()))? {
                None => return Ok(()),
                Some(TarEvent::Begin(entry)) => self.begin(&entry)?,
                Some(TarEvent::Data(data)) => self.content(data)?,
                Some(TarEvent::End) => self.close()?,
            }
        }
    }

    /// A directory of which no archive tells.
    pub(super) fn directory(&mut self, path: String, mode: u32, modified: Micros) -> Result<(), EngineError> {
        let file = FileMeta { path, kind: FileKind::Directory, mode, modified, size_hint: 0 };
        self.send(Job { file: Arc::new(file), pages: None, offset: 0, data: Vec::new(), last: true })
    }

    /// A small file of which no archive tells.
    pub(super) fn file(
        &mut self,
        path: &str,
        content: &[u8],
        mode: u32,
        modified: Micros,
    ) -> Result<(), EngineError> {
        let (path, size_hint) = (path.to_owned(), content.len() as u64);
        let file = FileMeta { path, kind: FileKind::Plain, mode, modified, size_hint };
        let data = content.to_vec();
        self.send(Job { file: Arc::new(file), pages: None, offset: 0, data, last: true })
    }

    fn begin(&mut self, entry: &Entry) -> Result<(), EngineError> {
        let Some(relative) = normal(&entry.path) else {
            return Err(self.broken(format!("the path {:?} leads out of the data directory", entry.path)));
        };
        self.entries += 1;
        let path = format!("{}{relative}", self.prefix);
        self.spaces.extend(spaces::of_entry(&path));
        if self.leave_out.iter().any(|out| Path::new(&path).starts_with(out)) {
            return Ok(());
        }
        let modified = Micros(entry.modified.saturating_mul(1_000_000));
        let class = match classify(&path) {
            _ if relative.is_empty() => Class::Skip("is the data directory itself"),
            Class::Skip(_) if MADE_BY_THE_BACKUP.contains(&path.as_str()) => Class::Plain,
            class => class,
        };
        match (&entry.kind, class) {
            // Directories are kept, whatever becomes of their contents.
            (EntryKind::Directory, _) if path.split('/').next() == Some(PUT_ASIDE) => {}
            (EntryKind::Directory, _) if !relative.is_empty() => {
                return self.directory(path, entry.mode, modified);
            }
            (EntryKind::File, Class::Skip(_)) if self.refuses_copy && path == COPY_SETTING => {
                return Err(self.copy());
            }
            (EntryKind::File, Class::Skip(reason)) => tracing::debug!(path, "left out: it {reason}"),
            (EntryKind::File, class) => {
                self.note(&path);
                let pages = if let Class::Pages(pages) = class { Some(pages) } else { None };
                if pages.is_some() && !entry.size.is_multiple_of(PAGE_BYTES as u64) {
                    self.notes.odd(&path, beyond(entry.size, PAGE_BYTES as u64));
                }
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                let checked = self.check_pages && is_of_live(directory, self.live.as_ref());
                let kind = if pages.is_some() { FileKind::Pages } else { FileKind::Plain };
                let file = FileMeta { path, kind, mode: entry.mode, modified, size_hint: entry.size };
                self.open = Some(Open {
                    file: Arc::new(file),
                    pages: pages.filter(|_| checked),
                    offset: 0,
                    size: entry.size,
                    buffer: self.buffer()?,
                });
            }
            // Links to tablespaces are known from the server's list.
            (EntryKind::Link(target), _) if path.starts_with("pg_tblspc/") => {
                tracing::trace!(path, target, "tablespace link");
            }
            (EntryKind::Link(_) | EntryKind::Other(_), _) => {
                self.notes.lacks(&path, "it is neither file nor directory");
            }
            (EntryKind::Directory, _) => {}
        }
        Ok(())
    }

    fn content(&mut self, mut data: &[u8]) -> Result<(), EngineError> {
        while !data.is_empty() {
            let Some(open) = self.open.as_mut() else {
                return Ok(());
            };
            let room = PART_BYTES.saturating_sub(open.buffer.len());
            let (now, rest) = data.split_at_checked(room).unwrap_or((data, &[]));
            open.buffer.extend_from_slice(now);
            data = rest;
            if open.buffer.len() == PART_BYTES && open.offset + (PART_BYTES as u64) < open.size {
                self.send_part(false)?;
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), EngineError> {
        self.send_part(true)?;
        self.open = None;
        Ok(())
    }

    fn send_part(&mut self, last: bool) -> Result<(), EngineError> {
        let next = if last { Vec::new() } else { self.buffer()? };
        let Some(open) = self.open.as_mut() else {
            return Ok(());
        };
        let data = std::mem::replace(&mut open.buffer, next);
        let offset = open.offset;
        open.offset += data.len() as u64;
        let job = Job { file: Arc::clone(&open.file), pages: open.pages, offset, data, last };
        self.send(job)
    }

    /// An empty buffer; waits until a worker gives one back.
    fn buffer(&self) -> Result<Vec<u8>, EngineError> {
        self.free.recv().map_err(|_| self.workers_gone())
    }

    fn send(&self, job: Job) -> Result<(), EngineError> {
        if self.failed.load(Ordering::SeqCst) {
            return Err(self.workers_gone());
        }
        self.jobs.send(job).map_err(|_| self.workers_gone())
    }

    /// Stands in for the worker's own error, which is reported instead.
    fn workers_gone(&self) -> EngineError {
        EngineError::new("pg.backup_stopped", "back up", self.object, "what was read could not be stored")
    }

    fn copy(&self) -> EngineError {
        let message = format!(
            "its data directory holds {COPY_SETTING}: it is a copy that everpoint restored, and nothing else shows that"
        );
        EngineError::new("pg.copy", "back up", self.object, message).class(FailureClass::Usage).hint(format!(
            "if it is production now: everpoint adopt CLUSTER DIRECTORY, where that directory is; a clone of it that has nothing \
             to be adopted for (a standby, a cluster with a name of its own): remove {COPY_SETTING} from its directory"
        ))
    }

    fn broken(&self, message: String) -> EngineError {
        EngineError::new("pg.protocol", "back up", self.object, message)
    }
}

/// A path without `./` and slashes at its end; `None` if it is absolute or climbs.
fn normal(path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    (!parts.contains(&"..")).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(normal("./pg_wal/archive_status/").as_deref(), Some("pg_wal/archive_status"));
        assert_eq!(normal("./").as_deref(), Some(""));
        assert_eq!(normal("/etc/passwd"), None);
        assert_eq!(normal("base/../../x"), None);
    }
}
