//! What is known of a branch besides its segments: history, covered until, gaps, what expired, other files.

use std::ops::ControlFlow;

use everpoint_core::{FailureClass, LogOffset, Micros, Span};
use everpoint_format::records::Gap;
use everpoint_format::seal::ObjectKind;

use super::LogStore;
use crate::error::code;
use crate::object::{format_error, now};
use crate::{RepoError, Stored, names};

/// How often a listing is repeated when what it showed is replaced before it is read.
const ATTEMPTS: usize = 20;

impl LogStore {
    /// Stores the timeline's history file.
    ///
    /// # Errors
    /// `repo.differs` if another one is stored.
    pub fn put_history(&self, bytes: &[u8]) -> Result<Stored, RepoError> {
        self.put_same(&format!("{}/history", self.base), ObjectKind::History, bytes)
    }

    /// The timeline's history file; `None` if none is stored (a first timeline has none).
    ///
    /// # Errors
    /// If it can't be read.
    pub fn history(&self) -> Result<Option<Vec<u8>>, RepoError> {
        self.shared.get(&format!("{}/history", self.base), ObjectKind::History)
    }

    /// Stores a file that is neither segment nor history: `.backup`, `.partial`.
    ///
    /// # Errors
    /// `repo.differs` if another content is stored under this name.
    pub fn put_other(&self, name: &str, bytes: &[u8]) -> Result<Stored, RepoError> {
        names::check_word("store the file", name)?;
        self.put_same(&format!("{}/other/{name}", self.base), ObjectKind::Other, bytes)
    }

    /// Such a file; `None` if none is stored.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn other(&self, name: &str) -> Result<Option<Vec<u8>>, RepoError> {
        names::check_word("read the file", name)?;
        self.shared.get(&format!("{}/other/{name}", self.base), ObjectKind::Other)
    }

    fn put_same(&self, name: &str, kind: ObjectKind, bytes: &[u8]) -> Result<Stored, RepoError> {
        match self.shared.put(name, kind, bytes) {
            Ok(()) => Ok(Stored::New),
            Err(error) if error.code == code::EXISTS => {
                let stored = match self.shared.need(name, kind) {
                    // What can't be read any more is made anew from the same source.
                    Err(error) if error.is_damaged() => {
                        tracing::warn!(%error, "it is stored again");
                        self.shared.store.delete(name)?;
                        return self.shared.put(name, kind, bytes).map(|()| Stored::New);
                    }
                    stored => stored?,
                };
                if stored == bytes {
                    return Ok(Stored::AlreadySame);
                }
                Err(RepoError::new(code::DIFFERS, "store", name, "another content is stored under this name")
                    .class(FailureClass::Damaged)
                    .hint("a copy of the cluster may be storing into the same place; nothing was changed"))
            }
            Err(error) => Err(error),
        }
    }

    /// Records that the server committed nothing beyond `position` until `until`. Earlier such records are removed after.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn put_covered(&self, position: LogOffset, until: Micros) -> Result<(), RepoError> {
        let prefix = format!("{}/covered/", self.base);
        let name = format!("{prefix}{}", names::covered(position, until));
        // The name says it all; the object seals the name.
        match self.shared.put(&name, ObjectKind::Covered, &[]) {
            Err(error) if error.code != code::EXISTS => return Err(error),
            _ => {}
        }
        let mut older = Vec::new();
        self.shared.store.list(&prefix, None, &mut |info| {
            if info.name >= name {
                return ControlFlow::Break(());
            }
            older.push(info.name);
            ControlFlow::Continue(())
        })?;
        for name in older {
            self.shared.store.delete(&name)?;
        }
        Ok(())
    }

    /// The newest such record: greatest position, then latest moment. `None` if there is none.
    ///
    /// # Errors
    /// If it can't be read, `repo.damaged` if it fails its check.
    pub fn covered(&self) -> Result<Option<(LogOffset, Micros)>, RepoError> {
        let prefix = format!("{}/covered/", self.base);
        for _ in 0..ATTEMPTS {
            let mut newest = None;
            self.shared.store.list(&prefix, None, &mut |info| {
                let found = info.name.strip_prefix(&prefix).and_then(names::parse_covered);
                newest = newest.max(found);
                ControlFlow::Continue(())
            })?;
            let Some((position, until)) = newest else {
                return Ok(None);
            };
            let name = format!("{prefix}{}", names::covered(position, until));
            // One that is gone was replaced by a newer one.
            if self.shared.get(&name, ObjectKind::Covered)?.is_some() {
                return Ok(newest);
            }
        }
        Err(RepoError::new(code::REPLACED, "read", prefix, "it is replaced all the time").retryable())
    }

    /// Records that retention lets log go, of which the last ends at `position`: what is missing before is no gap. Earlier
    /// such records are removed after.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn put_expired(&self, position: LogOffset) -> Result<(), RepoError> {
        let prefix = format!("{}/expired/", self.base);
        let name = format!("{prefix}{:016x}", position.0);
        match self.shared.put(&name, ObjectKind::Expired, &[]) {
            Err(error) if error.code != code::EXISTS => return Err(error),
            _ => {}
        }
        let mut older = Vec::new();
        self.shared.store.list(&prefix, None, &mut |info| {
            if info.name >= name {
                return ControlFlow::Break(());
            }
            older.push(info.name);
            ControlFlow::Continue(())
        })?;
        older.iter().try_for_each(|name| self.shared.store.delete(name)).map_err(RepoError::from)
    }

    /// The greatest such position; `None` if nothing was let go. One that fails its check is passed over: then gaps are told
    /// that are none.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn expired(&self) -> Result<Option<LogOffset>, RepoError> {
        let prefix = format!("{}/expired/", self.base);
        let mut found = Vec::new();
        self.shared.store.list(&prefix, None, &mut |info| {
            found.extend(info.name.strip_prefix(&prefix).and_then(names::parse_hex16));
            ControlFlow::Continue(())
        })?;
        for position in found.into_iter().rev() {
            match self.shared.get(&format!("{prefix}{position:016x}"), ObjectKind::Expired) {
                Ok(Some(_)) => return Ok(Some(LogOffset(position))),
                Ok(None) => {}
                Err(error) if error.is_damaged() => {
                    tracing::warn!(%error, "what expired is not known exactly")
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Records that a part of the log is lost. One that is recorded already stays.
    ///
    /// # Errors
    /// `repo.invalid` for an empty span.
    pub fn put_gap(&self, span: Span, reason: &str) -> Result<(), RepoError> {
        let name = format!("{}/gap/{}", self.base, names::span(span));
        if span.from >= span.to {
            return Err(RepoError::invalid("record the gap", name, "it is empty"));
        }
        let gap = Gap { from: span.from.0, to: span.to.0, at: now().0, reason: reason.to_owned() };
        match self.shared.put(&name, ObjectKind::Gap, &gap.encode()) {
            Err(error) if error.code != code::EXISTS => Err(error),
            _ => Ok(()),
        }
    }

    /// The gaps that are recorded, by position.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn gaps(&self) -> Result<Vec<(Span, Gap)>, RepoError> {
        let prefix = format!("{}/gap/", self.base);
        let mut spans = Vec::new();
        self.shared.store.list(&prefix, None, &mut |info| {
            spans.extend(info.name.strip_prefix(&prefix).and_then(names::parse_span));
            ControlFlow::Continue(())
        })?;
        let mut gaps = Vec::with_capacity(spans.len());
        for span in spans {
            let name = format!("{prefix}{}", names::span(span));
            let bytes = self.shared.need(&name, ObjectKind::Gap)?;
            gaps.push((span, Gap::decode(&bytes).map_err(|error| format_error("read", &name, error))?));
        }
        Ok(gaps)
    }
}
