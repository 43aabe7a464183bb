//! Tails: the newest part of the log, stored before its segment is whole.

use std::io::{Read, Write};
use std::ops::ControlFlow;

use everpoint_core::{Digest, FailureClass, LogOffset, Span};
use everpoint_format::digest;
use everpoint_format::seal::ObjectKind;

use super::{LogStore, Piece, Stored};
use crate::error::code;
use crate::object::{format_error, missing};
use crate::{RepoError, names};

impl LogStore {
    fn tail_name(&self, span: Span) -> String {
        format!("{}.tail/{}", self.segment(self.names.start(span.from)), names::span(span))
    }

    /// Stores a tail: the bytes of `digest.span`, which must not leave one segment. Once it returns they are durable.
    ///
    /// # Errors
    /// `repo.invalid` if digest and bytes don't fit, `repo.differs` if another content is stored for the same span.
    pub fn put_tail(&self, digest: &Digest, bytes: &[u8]) -> Result<Stored, RepoError> {
        let (span, name) = (digest.span, self.tail_name(digest.span));
        let inside = span.from < span.to && span.to.since(self.names.start(span.from)) <= self.names.size;
        if !inside || span.to.since(span.from) != bytes.len() as u64 {
            return Err(RepoError::invalid("store", name, "its digest spans other bytes than were given"));
        }
        if *blake3::hash(bytes).as_bytes() != digest.content_hash {
            return Err(RepoError::invalid("store", name, "its digest was made of other bytes"));
        }
        match self.write_tail(&name, digest, bytes) {
            Ok(()) => Ok(Stored::New),
            Err(error) if error.code == code::EXISTS => self.same_tail(&name, digest),
            Err(error) => Err(error),
        }
    }

    fn write_tail(&self, name: &str, digest: &Digest, bytes: &[u8]) -> Result<(), RepoError> {
        let wrap = |error| format_error("store", name, error);
        let mut writer = self.shared.stream(name, ObjectKind::Tail, self.codec)?;
        let encoded = digest::encode(digest);
        writer.write_all(&(encoded.len() as u64).to_le_bytes()).map_err(|error| wrap(error.into()))?;
        writer.write_all(&encoded).map_err(|error| wrap(error.into()))?;
        // So that the digest can be read without the bytes.
        writer.cut().map_err(wrap)?;
        writer.write_all(bytes).map_err(|error| wrap(error.into()))?;
        Ok(writer.finish(&[]).map_err(wrap)?.commit()?)
    }

    fn same_tail(&self, name: &str, digest: &Digest) -> Result<Stored, RepoError> {
        let (stored, _) = self.load_tail(name, false)?;
        if stored.content_hash == digest.content_hash {
            return Ok(Stored::AlreadySame);
        }
        Err(RepoError::new(
            code::DIFFERS,
            "store",
            name,
            "another content is stored for the same part of the log",
        )
        .class(FailureClass::Damaged)
        .hint("a copy of the cluster may be storing into the same place; nothing was changed"))
    }

    /// Reads a tail: its digest, which describes all of [`Piece::stored`], and the bytes of [`Piece::span`].
    ///
    /// # Errors
    /// `repo.replaced` if it was replaced by its segment since it was listed: list again.
    pub fn read_tail(&self, piece: &Piece) -> Result<(Digest, Vec<u8>), RepoError> {
        let name = self.tail_name(piece.stored);
        let (digest, mut bytes) = self.load_tail(&name, true).map_err(replaced)?;
        let wanted = usize::try_from(piece.span.from.since(piece.stored.from)).unwrap_or(usize::MAX);
        bytes.drain(..wanted.min(bytes.len()));
        Ok((digest, bytes))
    }

    pub(super) fn tail_digest(&self, piece: &Piece) -> Result<Digest, RepoError> {
        Ok(self.load_tail(&self.tail_name(piece.stored), false).map_err(replaced)?.0)
    }

    /// The digest, and the bytes if they are wanted.
    fn load_tail(&self, name: &str, with_bytes: bool) -> Result<(Digest, Vec<u8>), RepoError> {
        let wrap = |error| format_error("read", name, error);
        let mut reader = self.shared.read_stream(name, ObjectKind::Tail)?;
        let mut length = [0; 8];
        reader.read_exact(&mut length).map_err(|error| wrap(error.into()))?;
        let length = u64::from_le_bytes(length);
        let mut encoded = Vec::new();
        reader.by_ref().take(length).read_to_end(&mut encoded).map_err(|error| wrap(error.into()))?;
        let digest = digest::decode(&encoded).map_err(wrap)?;
        let mut bytes = Vec::new();
        if with_bytes {
            reader.read_to_end(&mut bytes).map_err(|error| wrap(error.into()))?;
            if bytes.len() as u64 != digest.span.to.since(digest.span.from) {
                return Err(RepoError::damaged(
                    "read",
                    name,
                    "it holds fewer or more bytes than its digest says",
                ));
            }
        }
        Ok((digest, bytes))
    }

    /// Replaces the tails within `digest.span` by one that holds the same: stored and read back before those go.
    ///
    /// # Errors
    /// As [`LogStore::put_tail`]; `repo.damaged` if it can't be read back: nothing was removed then.
    pub fn merge_tails(&self, digest: &Digest, bytes: &[u8]) -> Result<(), RepoError> {
        self.put_tail(digest, bytes)?;
        let name = self.tail_name(digest.span);
        let (stored, read) = self.load_tail(&name, true)?;
        if stored.content_hash != digest.content_hash || read != bytes {
            return Err(RepoError::damaged(
                "replace tails by",
                name,
                "what was stored is not what it was given",
            ));
        }
        let mut replaced = Vec::new();
        let prefix = format!("{}.tail/", self.segment(self.names.start(digest.span.from)));
        self.shared.store.list(&prefix, None, &mut |info| {
            let found = info.name.strip_prefix(&prefix).and_then(names::parse_span);
            if found.is_some_and(|span| {
                span.from >= digest.span.from && span.to <= digest.span.to && span != digest.span
            }) {
                replaced.push(info.name);
            }
            ControlFlow::Continue(())
        })?;
        for name in replaced {
            self.shared.store.delete(&name)?;
        }
        Ok(())
    }

    /// Removes a tail that can't be read, after its bytes were received again. One that can be read stays.
    ///
    /// # Errors
    /// If the store can't tell, or can't remove it.
    pub fn remove_unreadable(&self, piece: &Piece) -> Result<(), RepoError> {
        let name = self.tail_name(piece.stored);
        match self.load_tail(&name, true) {
            Err(error) if error.is_damaged() => Ok(self.shared.store.delete(&name)?),
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes the tails of a segment that is stored and verified.
    ///
    /// # Errors
    /// `repo.missing` if the segment or its digest is not stored: nothing was removed.
    pub fn remove_tails(&self, segment: LogOffset) -> Result<(), RepoError> {
        let start = self.names.start(segment);
        for name in [self.segment(start), self.digest_name(start)] {
            if self.shared.store.head(&name)?.is_none() && !self.is_bundled(start)? {
                return Err(missing("remove the tails that are replaced by", &name));
            }
        }
        let mut tails = Vec::new();
        self.shared.store.list(&format!("{}.tail/", self.segment(start)), None, &mut |info| {
            tails.push(info.name);
            ControlFlow::Continue(())
        })?;
        for name in tails {
            self.shared.store.delete(&name)?;
        }
        Ok(())
    }
}

/// A tail that is gone was replaced.
fn replaced(error: RepoError) -> RepoError {
    if !error.is_missing() {
        return error;
    }
    RepoError { code: code::REPLACED, message: "it was replaced by its segment".to_owned(), ..error }
        .retryable()
}
