//! The write-ahead log of PostgreSQL 13 to 18: pages, records, and what the few kinds of records say that recovery
//! and its targets depend on.
//!
//! [`WalDecoder`] reads the log as it flows by; [`digest_of_segment`], [`last_carry_of_segment`] and [`records`] work
//! on bytes at hand.

mod contents;
mod decoder;
mod format;
mod mark;
mod page;
mod record;
mod segment;
mod unfinished;

pub(crate) use contents::is_tablespace_create;
pub use decoder::{SeenRecord, WalDecoder};
pub use format::{RECORD_HEADER_BYTES, WAL_PAGE_BYTES, WalFormat};
pub(crate) use page::header_bytes as page_header_bytes;
pub use page::{PageHeader, SegmentFields};
pub use record::{BlockReference, RecordHeader, RecordParts};
pub use segment::{
    Records, SegmentHead, digest_of_segment, last_carry_of_segment, record_starts, records, unknown_carry,
};
