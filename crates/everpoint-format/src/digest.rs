//! Digests of log pieces: version byte, fixed facts, then events, each behind its length so that unknown kinds are skipped.

use everpoint_core::{Digest, LogEvent, LogOffset, Micros, RecordSpan, Span, TransactionEnd, Verdict};

use crate::error::FormatError;
use crate::varint::{Fields, MAX_FIELD, put, put_bytes, put_signed};

const VERSION: u8 = 1;

/// Encodes a digest.
#[must_use]
pub fn encode(digest: &Digest) -> Vec<u8> {
    let mut out = vec![VERSION];
    put(&mut out, digest.system);
    put(&mut out, u64::from(digest.timeline));
    put(&mut out, u64::from(digest.log_format));
    put(&mut out, digest.span.from.0);
    put(&mut out, digest.span.to.since(digest.span.from));
    out.extend_from_slice(&digest.content_hash);
    optional(&mut out, digest.previous_hash.as_ref(), |out, hash| out.extend_from_slice(hash));
    match &digest.verdict {
        Verdict::Intact => out.push(0),
        Verdict::EndsAt { at } => {
            out.push(1);
            put(&mut out, at.0);
        }
        Verdict::Broken { at, reason } => {
            out.push(2);
            put(&mut out, at.0);
            put_bytes(&mut out, reason.as_bytes());
        }
    }
    optional(&mut out, digest.first_record.as_ref(), |out, at| put(out, at.0));
    optional(&mut out, digest.last_record.as_ref(), |out, record| put_span(out, *record, LogOffset(0)));
    optional(&mut out, digest.first_previous.as_ref(), |out, at| put(out, at.0));
    out.push(u8::from(digest.head_unknown));
    optional(&mut out, digest.covered_until.as_ref(), |out, time| put_signed(out, time.0));
    put(&mut out, digest.records);
    put(&mut out, digest.events.len() as u64);
    let mut base = Base { position: digest.span.from, time: 0 };
    for event in &digest.events {
        let mut body = Vec::new();
        let kind = put_event(&mut body, event, &mut base);
        out.push(kind);
        put_bytes(&mut out, &body);
    }
    out
}

/// What deltas of events refer to: start of the record before, and the time before.
struct Base {
    position: LogOffset,
    time: i64,
}

fn optional<T>(out: &mut Vec<u8>, value: Option<&T>, put_value: impl FnOnce(&mut Vec<u8>, &T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put_value(out, value);
    }
}

fn put_span(out: &mut Vec<u8>, record: RecordSpan, base: LogOffset) {
    put_signed(out, record.start.0.wrapping_sub(base.0) as i64);
    put(out, record.end.since(record.start));
}

fn put_end(out: &mut Vec<u8>, end: &TransactionEnd, base: &Base) {
    put(out, end.xid);
    put_signed(out, end.time.0.wrapping_sub(base.time));
    out.push(u8::from(end.prepared));
    put(out, end.subxids.len() as u64);
    end.subxids.iter().for_each(|xid| put(out, *xid));
}

/// Kind byte of each event; a new kind takes the next number, never a used one.
fn put_event(out: &mut Vec<u8>, event: &LogEvent, base: &mut Base) -> u8 {
    put_span(out, event.record(), base.position);
    base.position = event.record().start;
    match event {
        LogEvent::Commit(end) | LogEvent::Abort(end) => {
            put_end(out, end, base);
            base.time = end.time.0;
            if matches!(event, LogEvent::Commit(_)) { 1 } else { 2 }
        }
        LogEvent::Prepare { xid, gid, .. } => {
            put(out, *xid);
            put_bytes(out, gid.as_bytes());
            3
        }
        LogEvent::RestorePoint { name, time, .. } => {
            put_bytes(out, name.as_bytes());
            put_signed(out, time.0);
            4
        }
        LogEvent::Checkpoint { redo, shutdown, time, timeline, previous_timeline, .. } => {
            put(out, redo.0);
            out.push(u8::from(*shutdown));
            put_signed(out, time.0);
            put(out, u64::from(*timeline));
            put(out, u64::from(*previous_timeline));
            5
        }
        LogEvent::EndOfRecovery { time, timeline, previous_timeline, .. } => {
            put_signed(out, time.0);
            put(out, u64::from(*timeline));
            put(out, u64::from(*previous_timeline));
            6
        }
        LogEvent::Parameters { minimal, limits, .. } => {
            out.push(u8::from(*minimal));
            limits.iter().for_each(|limit| put_signed(out, i64::from(*limit)));
            7
        }
        LogEvent::DatabaseCreate { xid, database, tablespace, .. } => {
            put_all(out, &[*xid, u64::from(*database), u64::from(*tablespace)]);
            8
        }
        LogEvent::DatabaseDrop { xid, database, tablespaces, .. } => {
            put_all(out, &[*xid, u64::from(*database), tablespaces.len() as u64]);
            tablespaces.iter().for_each(|oid| put(out, u64::from(*oid)));
            9
        }
        LogEvent::TablespaceCreate { xid, tablespace, path, .. } => {
            put_all(out, &[*xid, u64::from(*tablespace)]);
            put_bytes(out, path.as_bytes());
            10
        }
        LogEvent::TablespaceDrop { xid, tablespace, .. } => {
            put_all(out, &[*xid, u64::from(*tablespace)]);
            11
        }
        LogEvent::SegmentSwitch { .. } => 12,
        LogEvent::BackupEnd { start, .. } => {
            put(out, start.0);
            13
        }
        LogEvent::Extension { manager, .. } => {
            put(out, u64::from(*manager));
            14
        }
    }
}

fn put_all(out: &mut Vec<u8>, values: &[u64]) {
    values.iter().for_each(|value| put(out, *value));
}

/// Decodes a digest. Events of kinds that this version does not know are left out.
///
/// # Errors
/// `UnknownVersion`, `Truncated` or `Invalid`; never panics, and allocates no more than the input is long.
pub fn decode(bytes: &[u8]) -> Result<Digest, FormatError> {
    let mut fields = Fields(bytes);
    let version = fields.byte()?;
    if version != VERSION {
        return Err(FormatError::UnknownVersion { version: u16::from(version) });
    }
    let (system, timeline, log_format) = (fields.number()?, fields.number32()?, fields.number32()?);
    let from = LogOffset(fields.number()?);
    let span = Span { from, to: from.plus(fields.number()?) };
    let content_hash = fields.array()?;
    let previous_hash = take_optional(&mut fields, |f| f.array())?;
    let verdict = match fields.byte()? {
        0 => Verdict::Intact,
        1 => Verdict::EndsAt { at: LogOffset(fields.number()?) },
        2 => Verdict::Broken { at: LogOffset(fields.number()?), reason: fields.text(MAX_FIELD)? },
        other => {
            return Err(FormatError::Invalid {
                what: "a digest".to_owned(),
                why: format!("verdict {other}"),
            });
        }
    };
    let first_record = take_optional(&mut fields, |f| f.number().map(LogOffset))?;
    let last_record = take_optional(&mut fields, |f| take_span(f, LogOffset(0)))?;
    let first_previous = take_optional(&mut fields, |f| f.number().map(LogOffset))?;
    let head_unknown = fields.byte()? != 0;
    let covered_until = take_optional(&mut fields, |f| f.signed().map(Micros))?;
    let records = fields.number()?;
    let count = fields.number()?;
    let (mut events, mut base) = (Vec::new(), Base { position: from, time: 0 });
    for _ in 0..count {
        let kind = fields.byte()?;
        let body = fields.bytes()?;
        events.extend(take_event(kind, &body, &mut base)?);
    }
    if !fields.0.is_empty() {
        let why = "something follows its end".to_owned();
        return Err(FormatError::Invalid { what: "a digest".to_owned(), why });
    }
    Ok(Digest {
        system,
        timeline,
        log_format,
        span,
        content_hash,
        previous_hash,
        verdict,
        first_record,
        last_record,
        first_previous,
        head_unknown,
        covered_until,
        records,
        events,
    })
}

type Body<'a> = Fields<&'a [u8]>;

fn take_optional<T>(
    fields: &mut Body<'_>,
    take: impl FnOnce(&mut Body<'_>) -> Result<T, FormatError>,
) -> Result<Option<T>, FormatError> {
    if fields.byte()? == 0 { Ok(None) } else { take(fields).map(Some) }
}

fn take_span(fields: &mut Body<'_>, base: LogOffset) -> Result<RecordSpan, FormatError> {
    let start = LogOffset(base.0.wrapping_add(fields.signed()? as u64));
    Ok(RecordSpan { start, end: start.plus(fields.number()?) })
}

fn take_end(
    fields: &mut Body<'_>,
    record: RecordSpan,
    base: &mut Base,
) -> Result<TransactionEnd, FormatError> {
    let xid = fields.number()?;
    let time = base.time.wrapping_add(fields.signed()?);
    base.time = time;
    let prepared = fields.byte()? != 0;
    let count = fields.number()?;
    let subxids = take_many(fields, count, |f| f.number())?;
    Ok(TransactionEnd { xid, time: Micros(time), record, subxids, prepared })
}

fn take_many<T>(
    fields: &mut Body<'_>,
    count: u64,
    mut take: impl FnMut(&mut Body<'_>) -> Result<T, FormatError>,
) -> Result<Vec<T>, FormatError> {
    if count > fields.0.len() as u64 {
        return Err(FormatError::Truncated { what: "a list in a digest".to_owned() });
    }
    (0..count).map(|_| take(fields)).collect()
}

fn take_event(kind: u8, body: &[u8], base: &mut Base) -> Result<Option<LogEvent>, FormatError> {
    let mut fields = Fields(body);
    let f = &mut fields;
    let record = take_span(f, base.position)?;
    base.position = record.start;
    Ok(Some(match kind {
        1 => LogEvent::Commit(take_end(f, record, base)?),
        2 => LogEvent::Abort(take_end(f, record, base)?),
        3 => LogEvent::Prepare { xid: f.number()?, gid: f.text(MAX_FIELD)?, record },
        4 => LogEvent::RestorePoint { name: f.text(MAX_FIELD)?, time: Micros(f.signed()?), record },
        5 => LogEvent::Checkpoint {
            redo: LogOffset(f.number()?),
            shutdown: f.byte()? != 0,
            time: Micros(f.signed()?),
            timeline: f.number32()?,
            previous_timeline: f.number32()?,
            record,
        },
        6 => LogEvent::EndOfRecovery {
            time: Micros(f.signed()?),
            timeline: f.number32()?,
            previous_timeline: f.number32()?,
            record,
        },
        7 => {
            let minimal = f.byte()? != 0;
            let mut limits = [0; 5];
            for limit in &mut limits {
                *limit = i32::try_from(f.signed()?).map_err(|_| FormatError::Invalid {
                    what: "a digest".to_owned(),
                    why: "a setting of more than 32 bits".to_owned(),
                })?;
            }
            LogEvent::Parameters { minimal, limits, record }
        }
        8 => LogEvent::DatabaseCreate {
            xid: f.number()?,
            database: f.number32()?,
            tablespace: f.number32()?,
            record,
        },
        9 => {
            let (xid, database, count) = (f.number()?, f.number32()?, f.number()?);
            LogEvent::DatabaseDrop {
                xid,
                database,
                tablespaces: take_many(f, count, |f| f.number32())?,
                record,
            }
        }
        10 => LogEvent::TablespaceCreate {
            xid: f.number()?,
            tablespace: f.number32()?,
            path: f.text(MAX_FIELD)?,
            record,
        },
        11 => LogEvent::TablespaceDrop { xid: f.number()?, tablespace: f.number32()?, record },
        12 => LogEvent::SegmentSwitch { record },
        13 => LogEvent::BackupEnd { start: LogOffset(f.number()?), record },
        14 => LogEvent::Extension { manager: f.number32()?, record },
        _ => return Ok(None),
    }))
}
