//! Which PostgreSQL wrote a piece of WAL, and what its layout makes different.

/// Bytes of a WAL page. A compile-time choice of PostgreSQL that practically nobody changes; a page header that says
/// otherwise is reported as broken.
pub const WAL_PAGE_BYTES: u64 = 8192;

/// Records start at multiples of this.
pub(crate) const RECORD_ALIGNMENT: u64 = 8;

/// Bytes of a record's fixed header.
pub const RECORD_HEADER_BYTES: u64 = 24;

/// No record can be longer: PostgreSQL can't allocate more for one.
pub(crate) const RECORD_MAX_BYTES: u64 = 1 << 30;

/// The layouts of WAL that are understood, by major version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFormat {
    /// PostgreSQL 13.
    V13,
    /// PostgreSQL 14.
    V14,
    /// PostgreSQL 15.
    V15,
    /// PostgreSQL 16.
    V16,
    /// PostgreSQL 17.
    V17,
    /// PostgreSQL 18.
    V18,
}

impl WalFormat {
    /// The layout that a page with this magic number has; `None` for one that is not known.
    #[must_use]
    pub const fn from_magic(magic: u16) -> Option<Self> {
        match magic {
            0xD106 => Some(Self::V13),
            0xD10D => Some(Self::V14),
            0xD110 => Some(Self::V15),
            0xD113 => Some(Self::V16),
            0xD116 => Some(Self::V17),
            0xD118 => Some(Self::V18),
            _ => None,
        }
    }

    /// The magic number of its pages.
    #[must_use]
    pub const fn magic(self) -> u16 {
        match self {
            Self::V13 => 0xD106,
            Self::V14 => 0xD10D,
            Self::V15 => 0xD110,
            Self::V16 => 0xD113,
            Self::V17 => 0xD116,
            Self::V18 => 0xD118,
        }
    }

    /// Major version of PostgreSQL.
    #[must_use]
    pub const fn major(self) -> u32 {
        match self {
            Self::V13 => 13,
            Self::V14 => 14,
            Self::V15 => 15,
            Self::V16 => 16,
            Self::V17 => 17,
            Self::V18 => 18,
        }
    }
}

/// The next position at or after `position` at which a record may start.
pub(crate) const fn aligned(position: u64) -> u64 {
    position.saturating_add(RECORD_ALIGNMENT - 1) & !(RECORD_ALIGNMENT - 1)
}
