//! The log that the directory of a stopped server still holds.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use everpoint_core::{LogEvent, LogOffset, Span, Verdict};
use everpoint_engine::{Decoded, EngineError, LocalLog, LocalTimeline, LogDecoder as _};

use super::failed;
use crate::lsn::SegmentName;
use crate::wal::{SegmentHead, WalDecoder, unknown_carry};

/// Bytes decoded at once.
const STRIDE_BYTES: usize = 1 << 20;

/// What log of a timeline a data directory's `pg_wal` holds. Files that are kept for later use, or hold something else than
/// their names say, are none of it.
///
/// # Errors
/// If the directory or a segment can't be read.
pub fn local_log(directory: &Path, of: &LocalTimeline, segment_size: u64) -> Result<LocalLog, EngineError> {
    let log = directory.join("pg_wal");
    let segments = segments(&log, of.timeline, segment_size).map_err(|error| failed("list", &log, error))?;
    let mut walk = Walk { of, segment_size, found: LocalLog::default(), run: None, ends_in: None };
    let first = segment_start(of.begin, segment_size);
    for (start, path) in segments.into_iter().filter(|(start, _)| *start >= first) {
        walk.segment(start, &path).map_err(|error| failed("read", &path, error))?;
    }
    Ok(walk.end())
}

/// Up to where a directory holds log of a timeline in the segment in which it begins; `None` if that is not there, or holds
/// nothing of it yet.
pub(super) fn begun(
    directory: &Path,
    of: &LocalTimeline,
    segment_size: u64,
) -> Result<Option<LogOffset>, EngineError> {
    let start = segment_start(of.begin, segment_size);
    let path =
        directory.join("pg_wal").join(SegmentName::containing(of.timeline, start, segment_size).to_string());
    let mut walk = Walk { of, segment_size, found: LocalLog::default(), run: None, ends_in: None };
    match walk.segment(start, &path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| failed("read", &path, error))?,
    }
    Ok(walk.found.runs.last().map(|run| run.to).filter(|to| *to > of.begin))
}

/// What was found so far.
struct Walk<'a> {
    of: &'a LocalTimeline,
    segment_size: u64,
    found: LocalLog,
    /// The run that the next segment may continue, and whether it is among those found.
    run: Option<(Span, bool, WalDecoder)>,
    /// The segment up to whose middle at least the server has written.
    ends_in: Option<Span>,
}

impl Walk<'_> {
    fn segment(&mut self, start: LogOffset, path: &Path) -> io::Result<()> {
        let all = Span { from: start, to: start.plus(self.segment_size) };
        let mut file = File::open(path)?;
        let mut buffer = vec![0; STRIDE_BYTES];
        let count = file.read(&mut buffer)?;
        let piece = buffer.get(..count).unwrap_or_default();
        let must_be = start < self.of.reached;
        let Some(_) = SegmentHead::parse(piece).ok().filter(|head| self.is_written(head, start)) else {
            if must_be {
                self.found.odd.push(all);
            }
            return Ok(());
        };
        let (mut run, listed, mut decoder) = match self.run.take() {
            Some((run, listed, decoder)) if decoder.position() == start => (run, listed, decoder),
            _ => {
                let decoder = WalDecoder::new(self.segment_size, unknown_carry(start));
                (Span { from: start, to: start }, false, decoder)
            }
        };
        decoder.feed(piece);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => decoder.feed(buffer.get(..count).unwrap_or_default()),
            }
        }
        let decoded = decoder.cut();
        let is_whole = decoder.position() == all.to;
        let switched = decoded.events.iter().any(|event| matches!(event, LogEvent::SegmentSwitch { .. }));
        // What the server has gone on from is given whole, whatever is in it; and nothing else comes behind a switch.
        let full = is_whole && (all.to <= self.of.reached || (switched && is_last(&decoded)));
        let to = decoded.last_record.map(|last| last.end);
        if let Some(to) = if full { Some(all.to) } else { to } {
            run.to = to;
            self.list(run, listed);
        }
        let listed = listed || run.to > run.from;
        if must_be && self.of.reached <= all.to {
            self.ends_in = Some(all);
        } else if must_be && !is_whole {
            self.found.odd.push(all);
        }
        if full || (is_whole && goes_on(&decoded, decoder.carry().received)) {
            self.run = Some((run, listed, decoder));
        }
        Ok(())
    }

    fn list(&mut self, run: Span, listed: bool) {
        match self.found.runs.last_mut().filter(|_| listed) {
            Some(last) => *last = run,
            None => self.found.runs.push(run),
        }
    }

    /// Files made ready for later use still hold older log: their first page says so. After a promotion they may even lie at
    /// their own place, with what the older timeline had there; but the segment in which a timeline begins does begin with
    /// pages of the older one.
    fn is_written(&self, head: &SegmentHead, start: LogOffset) -> bool {
        let of = self.of;
        head.start == start
            && head.system == of.system
            && head.segment_size == self.segment_size
            && (head.timeline == of.timeline || (head.timeline < of.timeline && start < of.begin))
    }

    fn end(mut self) -> LocalLog {
        let reached = self.of.reached;
        if let Some(segment) = self.ends_in
            && !self.found.runs.iter().any(|run| run.from < reached && aligned(run.to) >= reached)
        {
            self.found.odd.push(segment);
        }
        self.found
    }
}

/// What `pg_control` calls the end of a record is where the next one begins.
const fn aligned(end: LogOffset) -> LogOffset {
    LogOffset(end.0.next_multiple_of(8))
}

/// Whether a switch of segments is the last record of its segment.
fn is_last(decoded: &Decoded) -> bool {
    let last = decoded.last_record;
    decoded
        .events
        .iter()
        .any(|event| matches!(event, LogEvent::SegmentSwitch { record } if Some(*record) == last))
}

/// Whether the next segment may continue it. A record that goes on there ends here, too: then the next segment tells.
fn goes_on(decoded: &Decoded, unfinished: u64) -> bool {
    match decoded.verdict {
        Verdict::Intact => true,
        Verdict::EndsAt { .. } => unfinished > 0 || decoded.last_record.is_none(),
        Verdict::Broken { .. } => false,
    }
}

/// Start of the segment that holds a position.
fn segment_start(position: LogOffset, segment_size: u64) -> LogOffset {
    LogOffset(position.0 - position.0.checked_rem(segment_size).unwrap_or_default())
}

fn segments(log: &Path, timeline: u32, segment_size: u64) -> io::Result<Vec<(LogOffset, PathBuf)>> {
    let mut segments = Vec::new();
    let entries = match fs::read_dir(log) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(segments),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_str().and_then(SegmentName::parse);
        if let Some(name) = name.filter(|name| name.timeline == timeline)
            && let Some(start) = name.start(segment_size)
        {
            segments.push((start, entry.path()));
        }
    }
    segments.sort();
    Ok(segments)
}
