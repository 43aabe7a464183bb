//! The log that the directory of a stopped server still holds.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use everpoint_core::{LogEvent, LogOffset, Verdict};
use everpoint_engine::{EngineError, LocalLog, LogDecoder as _};

use super::failed;
use crate::history::History;
use crate::lsn::SegmentName;
use crate::wal::{SegmentHead, WalDecoder, unknown_carry};

/// Bytes decoded at once.
const STRIDE_BYTES: usize = 1 << 20;

/// What log of `timeline` a data directory's `pg_wal` holds in whole records: the newest unbroken run of segments.
/// `None` if there is not one record.
///
/// # Errors
/// If the directory or a segment can't be read.
pub fn local_log(
    directory: &Path,
    timeline: u32,
    segment_size: u64,
) -> Result<Option<LocalLog>, EngineError> {
    let log = directory.join("pg_wal");
    let segments = segments(&log, timeline, segment_size).map_err(|error| failed("list", &log, error))?;
    let fork = fork(&log, timeline)?;
    let mut best: Option<LocalLog> = None;
    let mut run: Option<(LocalLog, WalDecoder)> = None;
    for (start, path) in segments {
        let fail = |error| failed("read", &path, error);
        let mut file = File::open(&path).map_err(fail)?;
        let mut buffer = vec![0; STRIDE_BYTES];
        let count = file.read(&mut buffer).map_err(fail)?;
        let piece = buffer.get(..count).unwrap_or_default();
        // Files made ready for later use still hold older log: their first page says so.
        // After a promotion they may even lie at their own place, with what the older timeline had there.
        let written = |head: &SegmentHead| head.start == start && (head.timeline == timeline || start < fork);
        let Some(head) = SegmentHead::parse(piece).ok().filter(written) else {
            continue;
        };
        let (mut found, mut decoder) = match run.take() {
            Some((found, decoder)) if decoder.position() == start && found.system == head.system => {
                (found, decoder)
            }
            _ => (
                LocalLog { system: head.system, from: start, to: start },
                WalDecoder::new(segment_size, unknown_carry(start)),
            ),
        };
        decoder.feed(piece);
        loop {
            let count = file.read(&mut buffer).map_err(fail)?;
            if count == 0 {
                break;
            }
            decoder.feed(buffer.get(..count).unwrap_or_default());
        }
        let decoded = decoder.cut();
        if let Some(last) = decoded.last_record {
            found.to = last.end;
            best = Some(found);
        }
        // A record that goes on in the next segment ends here too: then the next segment tells. Behind a switch of segments
        // the log goes on there in any case.
        let switched = decoded.events.iter().any(|event| matches!(event, LogEvent::SegmentSwitch { .. }));
        let goes_on = match decoded.verdict {
            Verdict::Intact => true,
            Verdict::EndsAt { .. } => {
                switched || decoder.carry().received > 0 || decoded.last_record.is_none()
            }
            Verdict::Broken { .. } => false,
        };
        run = goes_on.then_some((found, decoder));
    }
    Ok(best)
}

/// Where a timeline begins: the segment in which it does begins with pages of the older one.
fn fork(log: &Path, timeline: u32) -> Result<LogOffset, EngineError> {
    let path = log.join(format!("{timeline:08X}.history"));
    let content = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LogOffset(0)),
        read => read.map_err(|error| failed("read", &path, error))?,
    };
    let history = History::parse(timeline, &content).ok();
    Ok(history.and_then(|history| history.fork()).map_or(LogOffset(0), |(_, at)| at))
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
