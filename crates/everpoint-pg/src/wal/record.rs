//! Records: the fixed header, the block references and the main data.

use super::format::{RECORD_HEADER_BYTES, RECORD_MAX_BYTES, WalFormat};
use crate::fields::Fields;

/// Resource managers whose records are read.
pub(crate) mod manager {
    pub(crate) const XLOG: u8 = 0;
    pub(crate) const TRANSACTION: u8 = 1;
    pub(crate) const DATABASE: u8 = 4;
    pub(crate) const TABLESPACE: u8 = 5;
    pub(crate) const HEAP: u8 = 10;
    /// The last one that comes with PostgreSQL 13 to 18.
    pub(crate) const LAST_BUILT_IN: u8 = 21;
    /// The first one that an extension may have (15 and later).
    pub(crate) const FIRST_CUSTOM: u8 = 128;
}

const BLOCK_ID_MAX: u8 = 32;
const ID_DATA_SHORT: u8 = 255;
const ID_DATA_LONG: u8 = 254;
const ID_ORIGIN: u8 = 253;
const ID_TOP_XID: u8 = 252;

const FORK_MASK: u8 = 0x0F;
const HAS_IMAGE: u8 = 0x10;
const HAS_DATA: u8 = 0x20;
const SAME_RELATION: u8 = 0x80;
const IMAGE_HAS_HOLE: u8 = 0x01;

/// The fixed header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of the whole record, header included.
    pub total: u32,
    /// Transaction; 0 for none.
    pub xid: u32,
    /// Start of the record before; 0 in the first record after a reset of the log.
    pub previous: u64,
    /// Flags: the high half belongs to the resource manager.
    pub info: u8,
    /// Resource manager.
    pub manager: u8,
    /// CRC-32C of the rest of the record and then of this header without the checksum itself.
    pub checksum: u32,
}

impl RecordHeader {
    /// Reads a header; `None` if there are fewer than 24 bytes.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        Some(Self {
            total: fields.u32()?,
            xid: fields.u32()?,
            previous: fields.u64()?,
            info: fields.u8()?,
            manager: fields.u8()?,
            checksum: {
                let _padding = fields.u16()?;
                fields.u32()?
            },
        })
    }

    /// The part of `info` that says which kind of record of its resource manager it is.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        self.info & 0xF0
    }

    /// What is wrong with the header by itself, in words; `None` if nothing is.
    pub(crate) fn fault(&self, format: Option<WalFormat>) -> Option<String> {
        if u64::from(self.total) < RECORD_HEADER_BYTES || u64::from(self.total) > RECORD_MAX_BYTES {
            return Some(format!("impossible record length {}", self.total));
        }
        let custom = self.manager >= manager::FIRST_CUSTOM && format >= Some(WalFormat::V15);
        let known = self.manager <= manager::LAST_BUILT_IN || custom;
        (!known).then(|| format!("unknown resource manager {}", self.manager))
    }
}

/// A reference to a block that a record changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockReference {
    /// Oid of the tablespace.
    pub tablespace: u32,
    /// Oid of the database; 0 for shared relations.
    pub database: u32,
    /// Number of the relation's files.
    pub relation: u32,
    /// 0 main, 1 free space map, 2 visibility map, 3 init.
    pub fork: u8,
    /// Block within the fork.
    pub block: u32,
    /// Bytes of page image stored with it; 0 for none.
    pub image_bytes: u16,
    /// Where in the page the image leaves out zeros.
    pub image_hole: u16,
    /// The image is compressed.
    pub image_compressed: bool,
}

/// A record taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordParts<'a> {
    /// Blocks that it changes.
    pub blocks: Vec<BlockReference>,
    /// Of each block in turn its image and what else its resource manager says of it.
    pub data: &'a [u8],
    /// The part that only its resource manager understands.
    pub main: &'a [u8],
    /// Transaction at the top, where a subtransaction's first record says it (14 and later).
    pub top_xid: Option<u32>,
    /// Replication origin.
    pub origin: Option<u16>,
}

impl<'a> RecordParts<'a> {
    /// Takes the body of a record (all after the fixed header) apart.
    ///
    /// # Errors
    /// In words, if lengths don't fit together.
    pub fn parse(body: &'a [u8], format: WalFormat) -> Result<Self, String> {
        let mut parser = Parser {
            fields: Fields::new(body),
            format,
            relation: None,
            data_bytes: 0,
            main_bytes: 0,
            parts: Self { blocks: Vec::new(), data: &[], main: &[], top_xid: None, origin: None },
        };
        parser.run().ok_or_else(|| "the headers within the record don't fit its length".to_owned())?;
        Ok(parser.parts)
    }
}

struct Parser<'a> {
    fields: Fields<'a>,
    format: WalFormat,
    relation: Option<(u32, u32, u32)>,
    /// Bytes of block images and block data announced so far.
    data_bytes: usize,
    main_bytes: usize,
    parts: RecordParts<'a>,
}

impl Parser<'_> {
    /// Headers come first, then the blocks' data in the same order, then the main data. The main data's header is
    /// the last of the headers.
    fn run(&mut self) -> Option<()> {
        while self.fields.rest().len() > self.data_bytes.checked_add(self.main_bytes)? {
            match self.fields.u8()? {
                ID_DATA_SHORT => {
                    self.main_bytes = usize::from(self.fields.u8()?);
                    break;
                }
                ID_DATA_LONG => {
                    self.main_bytes = usize::try_from(self.fields.u32()?).ok()?;
                    break;
                }
                ID_ORIGIN => self.parts.origin = Some(self.fields.u16()?),
                ID_TOP_XID => self.parts.top_xid = Some(self.fields.u32()?),
                id if id <= BLOCK_ID_MAX => self.block()?,
                _ => return None,
            }
        }
        if self.fields.rest().len() != self.data_bytes.checked_add(self.main_bytes)? {
            return None;
        }
        self.parts.data = self.fields.take(self.data_bytes)?;
        self.parts.main = self.fields.rest();
        Some(())
    }

    fn block(&mut self) -> Option<()> {
        let flags = self.fields.u8()?;
        let data = self.fields.u16()?;
        if (flags & HAS_DATA != 0) != (data > 0) {
            return None;
        }
        let (image_bytes, image_hole, image_compressed) =
            if flags & HAS_IMAGE == 0 { (0, 0, false) } else { self.image()? };
        if flags & SAME_RELATION == 0 {
            self.relation = Some((self.fields.u32()?, self.fields.u32()?, self.fields.u32()?));
        }
        let (tablespace, database, relation) = self.relation?;
        let block = self.fields.u32()?;
        self.data_bytes = self.data_bytes.checked_add(usize::from(data) + usize::from(image_bytes))?;
        let fork = flags & FORK_MASK;
        self.parts.blocks.push(BlockReference {
            tablespace,
            database,
            relation,
            fork,
            block,
            image_bytes,
            image_hole,
            image_compressed,
        });
        Some(())
    }

    /// The length of the hole is stored only for a compressed image (else it follows from the length). The bit
    /// that means "compressed" up to 14 means "to be applied" from 15 on, where each method has a bit of its own.
    fn image(&mut self) -> Option<(u16, u16, bool)> {
        let length = self.fields.u16()?;
        let hole = self.fields.u16()?;
        let info = self.fields.u8()?;
        let compressed = if self.format >= WalFormat::V15 { info & 0x1C != 0 } else { info & 0x02 != 0 };
        if compressed && info & IMAGE_HAS_HOLE != 0 {
            let _hole_length = self.fields.u16()?;
        }
        Some((length, hole, compressed))
    }
}
