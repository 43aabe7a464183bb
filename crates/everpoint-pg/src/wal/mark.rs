//! The mark that DROP DATABASE puts on a database before it removes files: in the database's row in `pg_database`, in
//! place, outside of any transaction. Since 13.12, 14.9, 15.4 and in 16 a database that bears it lets nobody in.

use everpoint_core::{LogEvent, RecordSpan};

use super::format::WalFormat;
use super::record::{BlockReference, RecordHeader, RecordParts, manager};
use crate::fields::Fields;
use crate::page::PAGE_BYTES;

/// The kind of record that changes a row in place.
const IN_PLACE: u8 = 0x70;
/// Oid of the tablespace of the relations that all databases share. Of those only `pg_database` is changed in place.
const GLOBAL: u32 = 1664;
/// The limit of connections that stands for the mark.
const MARK: i32 = -2;
/// Bytes of a page's header: the list of its rows follows.
const PAGE_HEADER_BYTES: usize = 24;

/// Whether the record changes a row in place.
pub(super) fn may_mark(header: &RecordHeader) -> bool {
    header.manager == manager::HEAP && header.kind() == IN_PLACE
}

/// The mark, if the record sets it or may set it.
pub(super) fn mark(
    header: &RecordHeader,
    body: &[u8],
    record: RecordSpan,
    format: WalFormat,
) -> Result<Option<LogEvent>, String> {
    let parts = RecordParts::parse(body, format)?;
    let [block] = parts.blocks.as_slice() else {
        return Ok(None);
    };
    if block.tablespace != GLOBAL || block.database != 0 || block.fork != 0 {
        return Ok(None);
    }
    // A compressed image is not opened: it may set the mark on some database.
    let database = if block.image_bytes > 0 && block.image_compressed {
        Some(0)
    } else {
        row(&parts, block).and_then(|row| marked(&row, format))
    };
    Ok(database.map(|database| LogEvent::DatabaseDrop {
        xid: u64::from(header.xid),
        database,
        tablespaces: Vec::new(),
        record,
    }))
}

/// The row without its header: stored by itself, or in the image of its page.
fn row(parts: &RecordParts<'_>, block: &BlockReference) -> Option<Vec<u8>> {
    if block.image_bytes == 0 {
        return Some(parts.data.to_vec());
    }
    let image = parts.data.get(..usize::from(block.image_bytes))?;
    let (before, after) = image.split_at_checked(usize::from(block.image_hole))?;
    let mut page = before.to_vec();
    page.resize(PAGE_BYTES.checked_sub(after.len())?, 0);
    page.extend_from_slice(after);

    let number = usize::from(Fields::new(parts.main).u16()?);
    let pointer = PAGE_HEADER_BYTES.checked_add(number.checked_sub(1)?.checked_mul(4)?)?;
    let pointer = Fields::new(page.get(pointer..)?).u32()?;
    let (offset, length) = (pointer & 0x7FFF, pointer >> 17);
    let (offset, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
    let row = page.get(offset..offset.checked_add(length)?)?;
    let header = usize::from(*row.get(22)?);
    row.get(header..).map(<[u8]>::to_vec)
}

/// Oid of the database, if the row bears the mark.
fn marked(row: &[u8], format: WalFormat) -> Option<u32> {
    // Until 14 the names of collation and character type, 64 bytes each, stand before the limit.
    let limit = if format >= WalFormat::V15 { 80 } else { 208 };
    let database = Fields::new(row).u32()?;
    (Fields::new(row.get(limit..)?).i32()? == MARK).then_some(database)
}
