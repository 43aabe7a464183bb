//! What records say: the few kinds that recovery and its targets depend on. All others are only checked.

use everpoint_core::{LogEvent, LogOffset, Micros, RecordSpan, TransactionEnd};

use super::format::WalFormat;
use super::mark;
use super::record::{RecordHeader, RecordParts, manager};
use crate::fields::Fields;

/// PostgreSQL counts from 2000-01-01; this is that moment in microseconds since 1970.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

mod xlog {
    pub(super) const CHECKPOINT_SHUTDOWN: u8 = 0x00;
    pub(super) const CHECKPOINT_ONLINE: u8 = 0x10;
    pub(super) const SWITCH: u8 = 0x40;
    pub(super) const BACKUP_END: u8 = 0x50;
    pub(super) const PARAMETER_CHANGE: u8 = 0x60;
    pub(super) const RESTORE_POINT: u8 = 0x70;
    pub(super) const END_OF_RECOVERY: u8 = 0x90;
}

const TABLESPACE_CREATE: u8 = 0x00;

mod transaction {
    pub(super) const KIND_MASK: u8 = 0x70;
    pub(super) const HAS_INFO: u8 = 0x80;
    pub(super) const COMMIT: u8 = 0x00;
    pub(super) const PREPARE: u8 = 0x10;
    pub(super) const ABORT: u8 = 0x20;
    pub(super) const COMMIT_PREPARED: u8 = 0x30;
    pub(super) const ABORT_PREPARED: u8 = 0x40;

    pub(super) const INFO_DATABASE: u32 = 1;
    pub(super) const INFO_SUBTRANSACTIONS: u32 = 1 << 1;
    pub(super) const INFO_RELATIONS: u32 = 1 << 2;
    pub(super) const INFO_INVALIDATIONS: u32 = 1 << 3;
    pub(super) const INFO_TWO_PHASE: u32 = 1 << 4;
    pub(super) const INFO_DROPPED_STATISTICS: u32 = 1 << 8;
}

/// Bytes of a PREPARE record that are kept: its header and the name, which has at most 200 bytes.
const PREPARE_KEPT_BYTES: usize = 1024;

/// How much of the body of such a record is needed, in bytes. The end of a transaction is needed whole: what it
/// takes is what its list of subtransactions takes.
pub(crate) fn needed_bytes(header: &RecordHeader) -> usize {
    match (header.manager, header.kind()) {
        (
            manager::XLOG,
            xlog::CHECKPOINT_SHUTDOWN
            | xlog::CHECKPOINT_ONLINE
            | xlog::SWITCH
            | xlog::BACKUP_END
            | xlog::PARAMETER_CHANGE
            | xlog::RESTORE_POINT
            | xlog::END_OF_RECOVERY,
        )
        | (manager::DATABASE | manager::TABLESPACE, _) => usize::MAX,
        (manager::TRANSACTION, info) => match info & transaction::KIND_MASK {
            transaction::COMMIT
            | transaction::ABORT
            | transaction::COMMIT_PREPARED
            | transaction::ABORT_PREPARED => usize::MAX,
            transaction::PREPARE => PREPARE_KEPT_BYTES,
            _ => 0,
        },
        _ if mark::may_mark(header) => usize::MAX,
        _ => 0,
    }
}

/// Whether the record ends its segment.
pub(crate) const fn is_switch(header: &RecordHeader) -> bool {
    header.manager == manager::XLOG && header.kind() == xlog::SWITCH
}

/// Whether the record creates a tablespace.
pub(crate) const fn is_tablespace_create(header: &RecordHeader) -> bool {
    header.manager == manager::TABLESPACE && header.kind() == TABLESPACE_CREATE
}

/// What the record says; `None` for the kinds that are not read.
///
/// `body` is all after the fixed header, at least as much as [`needed_bytes`] tells.
///
/// # Errors
/// In words, if a record of a kind that is read can't be.
pub(crate) fn event(
    header: &RecordHeader,
    body: &[u8],
    record: RecordSpan,
    format: WalFormat,
) -> Result<Option<LogEvent>, String> {
    let needed = needed_bytes(header);
    if needed == 0 {
        return Ok(None);
    }
    if mark::may_mark(header) {
        return mark::mark(header, body, record, format);
    }
    let main =
        if needed == usize::MAX { RecordParts::parse(body, format)?.main } else { main_of_head(body)? };
    let mut fields = Fields::new(main);
    let event = match header.manager {
        manager::XLOG => of_xlog(header.kind(), &mut fields, record),
        manager::TRANSACTION => of_transaction(header, &mut fields, record, format),
        manager::DATABASE => of_database(header, &mut fields, record, format),
        _ => of_tablespace(header, &mut fields, record),
    };
    event.ok_or_else(|| {
        format!("a record of resource manager {} and kind {:02X} is too short", header.manager, header.kind())
    })
}

/// The main data of a record whose end was not kept and that refers to no blocks.
fn main_of_head(body: &[u8]) -> Result<&[u8], String> {
    let mut fields = Fields::new(body);
    loop {
        let skipped = match fields.u8() {
            Some(255) => {
                return fields.u8().map(|_| fields.rest()).ok_or_else(|| "too short".to_owned());
            }
            Some(254) => {
                return fields.u32().map(|_| fields.rest()).ok_or_else(|| "too short".to_owned());
            }
            Some(253) => fields.take(2),
            Some(252) => fields.take(4),
            _ => None,
        };
        if skipped.is_none() {
            return Err("a record of a transaction has no main data".to_owned());
        }
    }
}

fn micros(fields: &mut Fields<'_>) -> Option<Micros> {
    Some(Micros(fields.i64()?.saturating_add(EPOCH_MICROS)))
}

/// Text up to the first zero byte, or all of it; bytes that are no UTF-8 are escaped.
fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    everpoint_core::name::escape(text)
}

// The outer `Option` is "could be read", the inner one "is of interest".
fn of_xlog(kind: u8, fields: &mut Fields<'_>, record: RecordSpan) -> Option<Option<LogEvent>> {
    let event = match kind {
        xlog::CHECKPOINT_SHUTDOWN | xlog::CHECKPOINT_ONLINE => {
            checkpoint(fields, kind == xlog::CHECKPOINT_SHUTDOWN, record)?
        }
        xlog::SWITCH => LogEvent::SegmentSwitch { record },
        xlog::BACKUP_END => LogEvent::BackupEnd { start: LogOffset(fields.u64()?), record },
        xlog::PARAMETER_CHANGE => {
            let limits = [fields.i32()?, fields.i32()?, fields.i32()?, fields.i32()?, fields.i32()?];
            LogEvent::Parameters { minimal: fields.i32()? == 0, limits, record }
        }
        xlog::RESTORE_POINT => {
            let time = micros(fields)?;
            LogEvent::RestorePoint { name: text(fields.rest()), time, record }
        }
        _ => LogEvent::EndOfRecovery {
            time: micros(fields)?,
            timeline: fields.u32()?,
            previous_timeline: fields.u32()?,
            record,
        },
    };
    Some(Some(event))
}

fn checkpoint(fields: &mut Fields<'_>, shutdown: bool, record: RecordSpan) -> Option<LogEvent> {
    let redo = LogOffset(fields.u64()?);
    let timeline = fields.u32()?;
    let previous_timeline = fields.u32()?;
    // Full-page writes, WAL level (17 and later, padding before), next ids and horizons.
    fields.take(48)?;
    let time = Micros(fields.i64()?.saturating_mul(1_000_000));
    Some(LogEvent::Checkpoint { redo, shutdown, time, timeline, previous_timeline, record })
}

fn of_transaction(
    header: &RecordHeader,
    fields: &mut Fields<'_>,
    record: RecordSpan,
    format: WalFormat,
) -> Option<Option<LogEvent>> {
    let kind = header.info & transaction::KIND_MASK;
    if kind == transaction::PREPARE {
        return prepared(fields, record, format).map(Some);
    }
    let committed = matches!(kind, transaction::COMMIT | transaction::COMMIT_PREPARED);
    let prepared = matches!(kind, transaction::COMMIT_PREPARED | transaction::ABORT_PREPARED);
    let time = micros(fields)?;
    let info = if header.info & transaction::HAS_INFO == 0 { 0 } else { fields.u32()? };
    let mut end = TransactionEnd { xid: u64::from(header.xid), time, record, subxids: Vec::new(), prepared };
    if info & transaction::INFO_DATABASE != 0 {
        fields.take(8)?;
    }
    if info & transaction::INFO_SUBTRANSACTIONS != 0 {
        let ids = items(fields, 4)?;
        end.subxids = ids.chunks_exact(4).filter_map(|id| Fields::new(id).u32()).map(u64::from).collect();
    }
    if info & transaction::INFO_RELATIONS != 0 {
        items(fields, 12)?;
    }
    if info & transaction::INFO_DROPPED_STATISTICS != 0 {
        items(fields, if format >= WalFormat::V18 { 16 } else { 12 })?;
    }
    if info & transaction::INFO_INVALIDATIONS != 0 {
        items(fields, 16)?;
    }
    // The session that ends a prepared transaction has none itself: the record's own xid is 0.
    if info & transaction::INFO_TWO_PHASE != 0 {
        end.xid = u64::from(fields.u32()?);
    }
    Some(Some(if committed { LogEvent::Commit(end) } else { LogEvent::Abort(end) }))
}

/// A counted list of items of this size.
fn items<'a>(fields: &mut Fields<'a>, size: usize) -> Option<&'a [u8]> {
    let count = usize::try_from(fields.i32()?).ok()?;
    fields.take(count.checked_mul(size)?)
}

fn prepared(fields: &mut Fields<'_>, record: RecordSpan, format: WalFormat) -> Option<LogEvent> {
    let _magic_and_length = fields.u64()?;
    let xid = u64::from(fields.u32()?);
    let _database = fields.u32()?;
    let _prepared_at = fields.u64()?;
    let _owner = fields.u32()?;
    // Counts of subtransactions, relations on commit and abort, statistics on commit and abort (15), invalidations.
    fields.take(if format >= WalFormat::V15 { 24 } else { 16 })?;
    let _cache_file_and_padding = fields.u16()?;
    let name_bytes = usize::from(fields.u16()?);
    let _origin = fields.take(16)?;
    Some(LogEvent::Prepare { xid, gid: text(fields.take(name_bytes)?), record })
}

fn of_database(
    header: &RecordHeader,
    fields: &mut Fields<'_>,
    record: RecordSpan,
    format: WalFormat,
) -> Option<Option<LogEvent>> {
    // Up to 14: 00 create, 10 drop. From 15 on: 00 create by copying files, 10 create by logged blocks, 20 drop.
    let kind = header.kind();
    let drop_kind = if format >= WalFormat::V15 { 0x20 } else { 0x10 };
    if kind > drop_kind {
        return Some(None);
    }
    let (database, xid) = (fields.u32()?, u64::from(header.xid));
    if kind != drop_kind {
        return Some(Some(LogEvent::DatabaseCreate { xid, database, tablespace: fields.u32()?, record }));
    }
    let tablespaces = items(fields, 4)?.chunks_exact(4).filter_map(|id| Fields::new(id).u32()).collect();
    Some(Some(LogEvent::DatabaseDrop { xid, database, tablespaces, record }))
}

fn of_tablespace(
    header: &RecordHeader,
    fields: &mut Fields<'_>,
    record: RecordSpan,
) -> Option<Option<LogEvent>> {
    let (tablespace, xid) = (fields.u32()?, u64::from(header.xid));
    Some(match header.kind() {
        TABLESPACE_CREATE => {
            Some(LogEvent::TablespaceCreate { tablespace, path: text(fields.rest()), xid, record })
        }
        0x10 => Some(LogEvent::TablespaceDrop { tablespace, xid, record }),
        _ => None,
    })
}
