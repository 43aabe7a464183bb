//! Names of the files that PostgreSQL archives and asks for.

use everpoint_core::LogOffset;

/// Positions are counted within pieces of this many bytes in names of segments.
const PIECE: u64 = 1 << 32;

/// What a file of the log is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFile {
    /// A whole segment.
    Segment(SegmentName),
    /// The history of a timeline.
    History(u32),
    /// The last segment of a timeline that was left.
    Partial(SegmentName),
    /// What a backup of the server's own making left.
    Backup(SegmentName),
}

/// The name of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// Number of the timeline.
    pub timeline: u32,
    high: u32,
    low: u32,
}

impl SegmentName {
    /// The segment of this timeline that begins at `start`; `segment_size` is not 0.
    #[must_use]
    pub fn at(timeline: u32, start: LogOffset, segment_size: u64) -> Self {
        let low = (start.0 % PIECE).checked_div(segment_size).unwrap_or_default();
        let half = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Self { timeline, high: half(start.0 / PIECE), low: half(low) }
    }

    /// Where it begins, if segments have that many bytes; `None` if there is no such segment then.
    #[must_use]
    pub fn start(self, segment_size: u64) -> Option<LogOffset> {
        let within = u64::from(self.low).checked_mul(segment_size).filter(|within| *within < PIECE)?;
        Some(LogOffset(u64::from(self.high) * PIECE + within))
    }

    fn parse(text: &str) -> Option<Self> {
        Some(Self {
            timeline: hex8(text.get(..8)?)?,
            high: hex8(text.get(8..16)?)?,
            low: hex8(text.get(16..)?)?,
        })
    }
}

impl std::fmt::Display for SegmentName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline, self.high, self.low)
    }
}

impl LogFile {
    /// Reads a name; `None` if it is none of a file of the log.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name.split_once('.') {
            None => SegmentName::parse(name).map(Self::Segment),
            Some((timeline, "history")) => hex8(timeline).map(Self::History),
            Some((segment, "partial")) => SegmentName::parse(segment).map(Self::Partial),
            Some((segment, rest)) => {
                hex8(rest.strip_suffix(".backup")?)?;
                SegmentName::parse(segment).map(Self::Backup)
            }
        }
    }

    /// The timeline to which it belongs.
    #[must_use]
    pub const fn timeline(self) -> u32 {
        match self {
            Self::Segment(segment) | Self::Partial(segment) | Self::Backup(segment) => segment.timeline,
            Self::History(timeline) => timeline,
        }
    }
}

fn hex8(text: &str) -> Option<u32> {
    let canonical =
        text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte));
    if canonical { u32::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_say_what_a_file_is() {
        let segment = SegmentName { timeline: 1, high: 2, low: 3 };
        let name = "000000010000000200000003";
        assert_eq!(LogFile::parse(name), Some(LogFile::Segment(segment)));
        assert_eq!(LogFile::parse(&format!("{name}.partial")), Some(LogFile::Partial(segment)));
        assert_eq!(LogFile::parse(&format!("{name}.00000028.backup")), Some(LogFile::Backup(segment)));
        assert_eq!(LogFile::parse("0000000A.history"), Some(LogFile::History(10)));
        for bad in [
            "",
            "RECOVERYXLOG",
            "0000000a.history",
            "00000001000000020000000",
            "000000010000000200000003.",
            "000000010000000200000003.backup",
            "000000010000000200000003.history",
            "0000000100000002000000033",
            "00000001000000020000000é",
            "../../../etc/passwd",
        ] {
            assert_eq!(LogFile::parse(bad), None, "{bad}");
        }
        assert_eq!(segment.start(16 << 20), Some(LogOffset((2 << 32) + (3 << 24))));
        assert_eq!(SegmentName { low: 256, ..segment }.start(16 << 20), None);
    }

    proptest! {
        #[test]
        fn a_name_survives_printing_and_parsing(timeline: u32, number: u64, power in 20_u32..=30) {
            let size = 1_u64 << power;
            let start = LogOffset(number - number % size);
            let name = SegmentName::at(timeline, start, size);
            prop_assert_eq!(LogFile::parse(&name.to_string()), Some(LogFile::Segment(name)));
            prop_assert_eq!(name.start(size), Some(start));
        }
    }
}
