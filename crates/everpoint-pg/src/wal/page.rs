//! Headers of WAL pages.

use super::format::{WAL_PAGE_BYTES, WalFormat};
use crate::fields::Fields;

/// Bytes of the header of an ordinary page.
pub(crate) const SHORT_HEADER_BYTES: u64 = 24;

/// Bytes of the header of a segment's first page.
pub(crate) const LONG_HEADER_BYTES: u64 = 40;

const CONTINUES: u16 = 0x0001;
const LONG: u16 = 0x0002;
const OVERWRITES: u16 = 0x0008;
const ALL_FLAGS: u16 = 0x000F;

/// The header of a WAL page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    /// Layout of the log.
    pub format: WalFormat,
    /// The page begins with the rest of a record.
    pub continues: bool,
    /// A record that began on an earlier page was given up by a crash; the page begins with a new record.
    pub overwrites: bool,
    /// Timeline of the page.
    pub timeline: u32,
    /// Position of the page.
    pub position: u64,
    /// Bytes that are still to come of the record that continues here, on this page and later ones.
    pub remaining: u32,
    /// What only the first page of a segment says.
    pub segment: Option<SegmentFields>,
}

/// What the first page of a segment says besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentFields {
    /// System identifier of the cluster.
    pub system: u64,
    /// Bytes of a segment.
    pub segment_size: u32,
    /// Bytes of a WAL page.
    pub page_size: u32,
}

/// How many bytes the header of the page has in which `position` lies.
pub(crate) const fn header_bytes(position: u64, segment_size: u64) -> u64 {
    let page = position - position % WAL_PAGE_BYTES;
    if page.is_multiple_of(segment_size) { LONG_HEADER_BYTES } else { SHORT_HEADER_BYTES }
}

impl PageHeader {
    /// Reads a header.
    ///
    /// # Errors
    /// In words, if it is none, or of a layout that is not known.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut fields = Fields::new(bytes);
        Self::fields(&mut fields)
            .ok_or_else(|| format!("a page header was cut short at {} bytes", bytes.len()))?
    }

    fn fields(fields: &mut Fields<'_>) -> Option<Result<Self, String>> {
        let magic = fields.u16()?;
        let flags = fields.u16()?;
        let timeline = fields.u32()?;
        let position = fields.u64()?;
        let remaining = fields.u32()?;
        let Some(format) = WalFormat::from_magic(magic) else {
            return Some(Err(format!("page magic {magic:04X} is none of PostgreSQL 13 to 18")));
        };
        if flags & !ALL_FLAGS != 0 {
            return Some(Err(format!("unknown page flags {flags:04X}")));
        }
        let segment = if flags & LONG == 0 {
            None
        } else {
            let _padding = fields.u32()?;
            Some(SegmentFields {
                system: fields.u64()?,
                segment_size: fields.u32()?,
                page_size: fields.u32()?,
            })
        };
        Some(Ok(Self {
            format,
            continues: flags & CONTINUES != 0,
            overwrites: flags & OVERWRITES != 0,
            timeline,
            position,
            remaining,
            segment,
        }))
    }
}
