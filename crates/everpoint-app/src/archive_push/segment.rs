//! One segment: checked, decoded, hashed and stored in one pass, in memory of a few MiB whatever its size.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use everpoint_core::join::NOTHING_BEFORE;
use everpoint_core::{Carry, FailureClass, LogOffset, Span, Verdict, followed};
use everpoint_engine::LogHead;
use everpoint_repo::{LogStore, PieceKind, Stored, code};

use super::{Place, differs};
use crate::archive_get::{self, Choice};
use crate::lineage::{Lineage, carry_at_end, knows_something, unknown_carry};
use crate::log_file::SegmentName;
use crate::log_writer::{digest, fork};
use crate::{AppError, Event, Events, text};

/// Bytes read at once: they stay in the cache of the core that hashes, decodes and compresses them.
const CHUNK: usize = 256 << 10;
/// So many bytes of what a capture has stored are compared.
const COMPARED: usize = 64 << 10;
/// Bytes at the end of the segment before in which its unfinished record is looked for.
const TAIL: u64 = 1 << 20;

/// What came out of a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pushed {
    pub(super) stored: Stored,
}

/// A segment file that was opened and whose beginning is what its name says.
pub(super) struct Segment {
    name: SegmentName,
    path: PathBuf,
    file: File,
    pub(super) head: LogHead,
}

impl Segment {
    pub(super) fn open(place: &Place<'_>, name: SegmentName) -> Result<Self, AppError> {
        let path = place.directory.join(name.to_string());
        let io = |error| AppError::io("read", &path, error);
        let file = File::open(&path).map_err(io)?;
        let head = place.head_of(&path)?;
        let length = file.metadata().map_err(io)?.len();
        let wrong = |message: String| {
            AppError::new(
                "archive.wrong_segment",
                FailureClass::Damaged,
                "store",
                path.display().to_string(),
                message,
            )
            .hint("the file is not the segment that its name says: compare it with pg_waldump")
        };
        if length != head.segment_size {
            return Err(wrong(format!(
                "it has {length} bytes, and says that segments have {}",
                head.segment_size
            )));
        }
        if name.start(head.segment_size) != Some(head.start) {
            return Err(wrong(format!("its first page says that it belongs at {}", text::lsn(head.start))));
        }
        if head.timeline > name.timeline {
            return Err(wrong(format!("its first page is of the younger timeline {}", head.timeline)));
        }
        Ok(Self { name, path, file, head })
    }

    fn io(&self, error: std::io::Error) -> AppError {
        AppError::io("read", &self.path, error)
    }

    /// Reads all of it in pieces.
    fn each(&self, take: &mut dyn FnMut(&[u8]) -> Result<(), AppError>) -> Result<(), AppError> {
        let mut file = &self.file;
        file.rewind().map_err(|error| self.io(error))?;
        let (mut buffer, mut left) = (vec![0; CHUNK], self.head.segment_size);
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let Some(part) = buffer.get_mut(..wanted) else {
                break;
            };
            file.read_exact(part).map_err(|error| self.io(error))?;
            take(part)?;
            left = left.saturating_sub(wanted as u64);
        }
        Ok(())
    }

    /// A part of it.
    fn part(&self, span: Span) -> Result<Vec<u8>, AppError> {
        let mut bytes = vec![0; usize::try_from(span.to.since(span.from)).unwrap_or_default()];
        self.file
            .read_exact_at(&mut bytes, span.from.since(self.head.start))
            .map_err(|error| self.io(error))?;
        Ok(bytes)
    }

    /// BLAKE3 of all of it.
    pub(super) fn hash(&self) -> Result<[u8; 32], AppError> {
        let mut hasher = blake3::Hasher::new();
        self.each(&mut |bytes| {
            hasher.update(bytes);
            Ok(())
        })?;
        Ok(*hasher.finalize().as_bytes())
    }

    pub(super) fn differs(&self, ours: [u8; 32], stored: Option<[u8; 32]>) -> AppError {
        let made = differs(&self.name.to_string());
        let hex = |hash: [u8; 32]| blake3::Hash::from_bytes(hash).to_hex().to_string();
        let stored = stored.map_or_else(String::new, |stored| format!(", stored is {}", hex(stored)));
        let message = format!("{} (BLAKE3 of the file is {}{stored})", made.message, hex(ours));
        AppError { message, ..made }
    }

    /// Stores it. `published` is given its hash as soon as that is known, before it is durable; `previous` is asked for the
    /// hash of the segment before when everything else is done.
    pub(super) fn push(
        &self,
        target: &Target<'_>,
        published: &mut dyn FnMut([u8; 32]),
        previous: &mut dyn FnMut() -> Result<Option<[u8; 32]>, AppError>,
        events: &dyn Events,
    ) -> Result<Pushed, AppError> {
        let (start, size) = (self.head.start, self.head.segment_size);
        target.compare_tails(self)?;
        let engine = target.lineage.engine;
        let joined = target.is_joined(start, events)?;
        let carry = if joined { target.carry(start)? } else { unknown_carry(start) };
        let mut decoder = engine.decoder(size, carry);
        let mut hasher = blake3::Hasher::new();
        let mut writer = target.log.begin_segment(start)?;
        self.each(&mut |bytes| {
            hasher.update(bytes);
            decoder.feed(bytes);
            Ok(writer.write(bytes)?)
        })?;
        let hash = *hasher.finalize().as_bytes();
        published(hash);
        let decoded = decoder.cut();
        if let Verdict::Broken { at, reason } = &decoded.verdict {
            let text = format!("{} is stored, but broken at {}: {reason}", self.name, text::lsn(*at));
            events.emit(Event::Warning(text));
        }
        let span = Span { from: start, to: start.plus(size) };
        let previous = if joined { previous()? } else { Some(NOTHING_BEFORE) };
        let digest = digest(target.log.branch(), span, hash, previous, None, decoded);
        let stored = writer.finish(&digest).map_err(|error| match error.code {
            code::DIFFERS => self.differs(hash, target.log.segment_hash(start).ok().flatten()).cause(error),
            _ => error.into(),
        })?;
        target.log.remove_tails(start)?;
        Ok(Pushed { stored })
    }
}

/// Where segments of one timeline go.
pub(super) struct Target<'a> {
    pub(super) place: &'a Place<'a>,
    pub(super) lineage: Lineage<'a>,
    pub(super) log: LogStore,
    pub(super) history: Vec<u8>,
}

impl Target<'_> {
    /// Whether the branch goes on from what is stored, if it begins with this segment.
    fn is_joined(&self, start: LogOffset, events: &dyn Events) -> Result<bool, AppError> {
        if self.history.is_empty() {
            return Ok(true);
        }
        let (lineage, directory) = (&self.lineage, &self.place.directory);
        let timeline = self.log.branch().timeline();
        let joined = fork::is_joined(
            self.place.context,
            lineage,
            &self.log,
            &self.history,
            start,
            &mut |of, span| {
                let begins = (timeline, start);
                fork::read_beside(lineage.engine, directory, lineage.segment_size, begins, (of, span))
            },
        )?;
        let joined = joined && !self.begins_apart(start)?;
        if !joined {
            events.emit(Event::Warning(fork::not_joined(&self.place.context.name, timeline, start)));
        }
        Ok(joined)
    }

    /// Whether it begins behind log of another timeline of which this server is known to have had other than what is stored.
    fn begins_apart(&self, start: LogOffset) -> Result<bool, AppError> {
        let Some(before) = self.lineage.predecessor(&self.log, &self.history, start)? else {
            return Ok(false);
        };
        let timeline = before.log.branch().timeline();
        Ok(before.log.branch() != self.log.branch() && self.place.is_apart(timeline, before.start)?)
    }

    /// The unfinished record at the end of the segment before: from its file if that is still beside, else from the
    /// repository, else unknown.
    fn carry(&self, start: LogOffset) -> Result<Carry, AppError> {
        if let Some((before, path)) = self.file_before(start) {
            match self.carry_of_file(before, &path) {
                Ok(carry) => return Ok(carry),
                Err(error) => tracing::debug!(%error, "the segment before can't be read"),
            }
        }
        match self.lineage.predecessor(&self.log, &self.history, start)? {
            Some(before) => before.carry(self.lineage.engine),
            None => Ok(unknown_carry(start)),
        }
    }

    fn carry_of_file(&self, before: LogOffset, path: &Path) -> Result<Carry, AppError> {
        let io = |error| AppError::io("read", path, error);
        let mut file = File::open(path).map_err(io)?;
        let size = self.lineage.segment_size;
        let (engine, mut tail) = (self.lineage.engine, Vec::new());
        file.seek(SeekFrom::Start(size.saturating_sub(TAIL))).map_err(io)?;
        (&mut file).take(TAIL).read_to_end(&mut tail).map_err(io)?;
        let carry = carry_at_end(engine, &tail, before, size);
        if knows_something(&carry) || size <= TAIL {
            return Ok(carry);
        }
        // One long record covers all of these pages.
        let mut decoder = engine.decoder(size, unknown_carry(before));
        file.rewind().map_err(io)?;
        let mut buffer = vec![0; CHUNK];
        loop {
            match file.read(&mut buffer).map_err(io)? {
                0 => return Ok(decoder.carry()),
                length => decoder.feed(buffer.get(..length).unwrap_or_default()),
            }
        }
    }

    /// The file of the segment before, if it lies beside and is what its name says: a file under that name may be one that
    /// is kept for later use.
    fn file_before(&self, start: LogOffset) -> Option<(LogOffset, PathBuf)> {
        let size = self.lineage.segment_size;
        let before = LogOffset(start.0.checked_sub(size)?);
        let timeline = self.timeline_at(start);
        let path = self.place.directory.join(SegmentName::at(timeline, before, size).to_string());
        let head = self.place.head_of(&path).ok()?;
        let length = path.metadata().ok()?.len();
        (head.start == before && head.segment_size == size && length == size).then_some((before, path))
    }

    /// The timeline that wrote what lies before the segment at `start`.
    fn timeline_at(&self, start: LogOffset) -> u32 {
        let own = self.log.branch().timeline();
        if self.history.is_empty() {
            return own;
        }
        let steps = followed(&self.lineage.engine.history(&self.history).unwrap_or_default());
        steps.iter().find(|step| step.until >= start).map_or(own, |step| step.timeline)
    }

    /// BLAKE3 of the segment before: as stored, else of its file if the server has finished it.
    ///
    /// # Errors
    /// `archive.differs` if both are there and differ: the server went another way than the stored log.
    pub(super) fn previous_hash(&self, start: LogOffset) -> Result<Option<[u8; 32]>, AppError> {
        let stored = self.lineage.predecessor(&self.log, &self.history, start)?;
        let hash = stored.as_ref().map(|before| before.hash);
        let Some(before) = self.finished_before(start)? else {
            return Ok(hash);
        };
        let ours = before.hash()?;
        match stored {
            Some(stored) if stored.hash != ours && !self.was_given(&stored.log, stored.start, ours)? => {
                Err(before.differs(ours, hash))
            }
            Some(_) => Ok(hash),
            None => Ok(Some(ours)),
        }
    }

    /// Compares a segment with what is stored under its name.
    ///
    /// # Errors
    /// `archive.differs` if it is another.
    pub(super) fn compare(&self, segment: &Segment, stored: [u8; 32]) -> Result<(), AppError> {
        let ours = segment.hash()?;
        if ours == stored || self.was_given(&self.log, segment.head.start, ours)? {
            return Ok(());
        }
        Err(segment.differs(ours, Some(stored)))
    }

    /// Compares the last of what a capture has stored of a segment with the file that is to take its place.
    ///
    /// # Errors
    /// `archive.differs` if it is another.
    fn compare_tails(&self, segment: &Segment) -> Result<(), AppError> {
        let (start, size) = (segment.head.start, segment.head.segment_size);
        let mut tails = self.log.pieces_between(start, start.plus(size))?;
        tails.retain(|piece| piece.kind == PieceKind::Tail && piece.span.from >= start);
        let mut compared = 0;
        for tail in tails.iter().rev().filter(|tail| tail.span.to <= start.plus(size)) {
            let bytes = match self.log.read_tail(tail) {
                Ok((_, bytes)) => bytes,
                // A capture has put it together with others meanwhile, and compares by itself.
                Err(error) if error.code == code::REPLACED || error.is_damaged() || error.is_missing() => {
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            if segment.part(tail.span)? != bytes {
                let ours = segment.hash()?;
                if self.was_given(&self.log, start, ours)? {
                    return Ok(());
                }
                return Err(segment.differs(ours, None));
            }
            compared += bytes.len();
            if compared >= COMPARED {
                break;
            }
        }
        Ok(())
    }

    /// Whether a file with this hash is the stored segment as a restore handed it out: with records that name places of
    /// tablespaces rewritten. It stays in `pg_wal` after the recovery, and is no other log.
    fn was_given(&self, log: &LogStore, start: LogOffset, ours: [u8; 32]) -> Result<bool, AppError> {
        let choice = Choice::of(self.lineage, self.log.branch().clone(), self.history.clone());
        let given = archive_get::segment(self.place.context, &choice, log, start, true)?;
        Ok(given.is_some_and(|bytes| *blake3::hash(&bytes).as_bytes() == ours))
    }

    /// The file of the segment before, if the server has finished it. On one timeline it has when it finished the next.
    fn finished_before(&self, start: LogOffset) -> Result<Option<Segment>, AppError> {
        let Some((before, path)) = self.file_before(start) else {
            return Ok(None);
        };
        let timeline = self.timeline_at(start);
        let name = SegmentName::at(timeline, before, self.lineage.segment_size);
        let status = self.place.directory.join("archive_status");
        let is = |suffix: &str| status.join(format!("{name}.{suffix}")).exists();
        if timeline != self.log.branch().timeline() && !is("ready") && !is("done") {
            return Ok(None);
        }
        let file = File::open(&path).map_err(|error| AppError::io("read", &path, error))?;
        let head = self.place.head_of(&path)?;
        Ok(Some(Segment { name, path, file, head }))
    }
}
