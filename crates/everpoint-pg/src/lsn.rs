//! PostgreSQL's words for positions: LSNs and the names of files in `pg_wal`.

use std::fmt;
use std::str::FromStr;

use everpoint_core::LogOffset;

/// A position in the log as PostgreSQL writes it: two hexadecimal halves, `16/B374D848`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl From<LogOffset> for Lsn {
    fn from(offset: LogOffset) -> Self {
        Self(offset.0)
    }
}

impl From<Lsn> for LogOffset {
    fn from(lsn: Lsn) -> Self {
        Self(lsn.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// Text that is no LSN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read LSN {text:?}: it is not two hexadecimal numbers of up to 8 digits with a slash between")]
pub struct LsnError {
    /// The text.
    pub text: String,
}

impl FromStr for Lsn {
    type Err = LsnError;

    fn from_str(text: &str) -> Result<Self, LsnError> {
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(u64::from(hex32(high)?) << 32 | u64::from(hex32(low)?))))
            .ok_or_else(|| LsnError { text: text.to_owned() })
    }
}

/// One to eight hexadecimal digits and nothing else (`from_str_radix` would take a sign).
fn hex32(text: &str) -> Option<u32> {
    let digits = (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// Exactly eight upper-case hexadecimal digits, as in file names.
fn name_part(text: &str) -> Option<u32> {
    let digits = text.len() == 8 && !text.bytes().any(|byte| byte.is_ascii_lowercase());
    digits.then(|| hex32(text)).flatten()
}

/// Whether PostgreSQL can have segments of this many bytes: a power of two from 1 MiB to 1 GiB.
#[must_use]
pub const fn is_segment_size(bytes: u64) -> bool {
    bytes.is_power_of_two() && bytes >= 1 << 20 && bytes <= 1 << 30
}

/// The name of a log segment: three numbers of eight hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// Timeline.
    pub timeline: u32,
    /// High half of the position.
    pub high: u32,
    /// Number of the segment within that half.
    pub number: u32,
}

impl SegmentName {
    /// The segment in which the byte at `position` lies, on a timeline. `segment_size` in bytes, see
    /// [`is_segment_size`].
    #[must_use]
    pub fn containing(timeline: u32, position: LogOffset, segment_size: u64) -> Self {
        let low = position.0 & 0xFFFF_FFFF;
        let number = low.checked_div(segment_size).unwrap_or_default();
        Self { timeline, high: (position.0 >> 32) as u32, number: number as u32 }
    }

    /// Reads a name; `None` if it is not exactly one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (timeline, rest) = name.split_at_checked(8)?;
        let (high, number) = rest.split_at_checked(8)?;
        Some(Self { timeline: name_part(timeline)?, high: name_part(high)?, number: name_part(number)? })
    }

    /// Position of its first byte; `None` if there is no such segment at this segment size.
    #[must_use]
    pub fn start(&self, segment_size: u64) -> Option<LogOffset> {
        let low = u64::from(self.number).checked_mul(segment_size)?;
        (low < 1 << 32).then_some(LogOffset(u64::from(self.high) << 32 | low))
    }

    /// The next segment on the same timeline.
    #[must_use]
    pub fn next(&self, segment_size: u64) -> Self {
        let start = self.start(segment_size).unwrap_or_default();
        Self::containing(self.timeline, start.plus(segment_size), segment_size)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline, self.high, self.number)
    }
}

/// The kinds of files that PostgreSQL archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalFile {
    /// A whole segment.
    Segment(SegmentName),
    /// The last segment of a timeline that ended inside it.
    Partial(SegmentName),
    /// Note of a backup that began in this segment, at this offset.
    Backup(SegmentName, u32),
    /// The history of this timeline.
    History(u32),
}

impl WalFile {
    /// Reads a file name; `None` if PostgreSQL archives nothing of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(timeline) = name.strip_suffix(".history") {
            return name_part(timeline).map(Self::History);
        }
        let Some((segment, suffix)) = name.split_once('.') else {
            return SegmentName::parse(name).map(Self::Segment);
        };
        let segment = SegmentName::parse(segment)?;
        if suffix == "partial" {
            return Some(Self::Partial(segment));
        }
        let offset = suffix.strip_suffix(".backup")?;
        name_part(offset).map(|offset| Self::Backup(segment, offset))
    }
}

impl fmt::Display for WalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(segment) => write!(f, "{segment}"),
            Self::Partial(segment) => write!(f, "{segment}.partial"),
            Self::Backup(segment, offset) => write!(f, "{segment}.{offset:08X}.backup"),
            Self::History(timeline) => write!(f, "{timeline:08X}.history"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_lsn_survives_printing_and_parsing(value: u64) {
            prop_assert_eq!(Lsn(value).to_string().parse(), Ok(Lsn(value)));
        }

        #[test]
        fn a_segment_name_survives_and_holds_its_position(timeline: u32, value: u64, power in 20_u32..=30) {
            let size = 1_u64 << power;
            let name = SegmentName::containing(timeline, LogOffset(value), size);
            prop_assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
            prop_assert_eq!(name.start(size), Some(LogOffset(value - value % size)));
        }

        #[test]
        fn any_name_of_a_file_survives(timeline: u32, high: u32, number: u32, offset: u32, kind in 0..4) {
            let segment = SegmentName { timeline, high, number };
            let file = match kind {
                0 => WalFile::Segment(segment),
                1 => WalFile::Partial(segment),
                2 => WalFile::Backup(segment, offset),
                _ => WalFile::History(timeline),
            };
            prop_assert_eq!(WalFile::parse(&file.to_string()), Some(file));
        }
    }

    #[test]
    fn other_text_is_no_lsn() {
        for bad in ["", "/", "1/", "/1", "+1/2", "1/123456789", "g/1", "1/2/3", "0x1/2", " 1/2"] {
            assert_eq!(bad.parse::<Lsn>(), Err(LsnError { text: bad.to_owned() }), "{bad}");
        }
        assert_eq!("16/b374d848".parse(), Ok(Lsn(0x16_B374_D848)));
    }

    #[test]
    fn names_follow_the_segment_size() {
        let name = |position, size| SegmentName::containing(1, LogOffset(position), size).to_string();
        assert_eq!(name(0x1_0100_0000, 16 << 20), "000000010000000100000001");
        assert_eq!(name(0x1_0100_0000, 1 << 20), "000000010000000100000010");
        assert_eq!(name(0xFFFF_FFFF, 1 << 30), "000000010000000000000003");
        let last = SegmentName::parse("0000000200000000000000FF").unwrap();
        assert_eq!(last.next(16 << 20).to_string(), "000000020000000100000000");
        assert_eq!(last.start(1 << 30), None);
    }

    #[test]
    fn other_files_are_told_apart() {
        for bad in [
            "00000001000000000000000",
            "000000010000000000000001.partia",
            "000000010000000000000001.backup",
            "00000001.histor",
            "0000000a.history",
            "xlogtemp.1",
            "archive_status",
        ] {
            assert_eq!(WalFile::parse(bad), None, "{bad}");
        }
    }
}
