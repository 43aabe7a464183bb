//! Positions in a log and moments in time.

use std::fmt;

use crate::digest::RecordSpan;

/// A byte position in the log of one branch. PostgreSQL calls it LSN; the engine crate owns that word and its syntax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogOffset(pub u64);

impl LogOffset {
    /// The position `bytes` further on; saturates at the end of the number range.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// How many bytes lie between `earlier` and this position; zero if `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Two hexadecimal numbers, the high and the low 32 bits: how positions are named in reasons.
impl fmt::Display for LogOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// A moment: microseconds since 1970-01-01 00:00:00 UTC, without leap seconds (as PostgreSQL counts).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Micros(pub i64);

/// Date and time of day in UTC to the microsecond, of the proleptic Gregorian calendar.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY: i64 = 86_400_000_000;
        let (year, month, day) = civil(self.0.div_euclid(DAY));
        let micros = self.0.rem_euclid(DAY);
        let seconds = micros / 1_000_000;
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:06} UTC",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            micros % 1_000_000
        )
    }
}

/// Year, month and day of a day counted from 1970-01-01. Years are taken to begin in March, so that the leap day is
/// the last of its year, in eras of 400 years, which all have the same number of days.
const fn civil(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    // 0000-03-01 lies this many days before 1970-01-01.
    let days = days + 719_468;
    let era = days.div_euclid(ERA);
    let of_era = days.rem_euclid(ERA);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let carry = if month <= 2 { 1 } else { 0 };
    (year + era * 400 + carry, month, day)
}

/// A half-open range of the log: `from` is in it, `to` is the first byte after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// First byte.
    pub from: LogOffset,
    /// First byte after the range.
    pub to: LogOffset,
}

impl Span {
    /// Whether the record belongs to a piece with this span: it ends in it.
    #[must_use]
    pub const fn ends_in(self, record: RecordSpan) -> bool {
        self.from.0 < record.end.0 && record.end.0 <= self.to.0
    }

    /// Whether the two have a byte in common.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.from.0 < other.to.0 && other.from.0 < self.to.0
    }
}

/// The name of a branch of the log in the repository, unique within one identity of a cluster.
///
/// A branch is not a timeline number alone (two copies promoted apart both take timeline 2), so the name is
/// `<timeline, 8 hex digits>-<16 hex digits of the hash of its history>`; see [`BranchId::new`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchId(String);

impl BranchId {
    /// Names the branch with this timeline number and the hash of its history (all zero for a first timeline).
    #[must_use]
    pub fn new(timeline: u32, history_hash: [u8; 8]) -> Self {
        Self(format!("{timeline:08X}-{:016x}", u64::from_be_bytes(history_hash)))
    }

    /// Reads a name as [`BranchId::new`] makes it; `None` if it is not one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (timeline, hash) = name.split_once('-')?;
        let well_formed = timeline.len() == 8
            && hash.len() == 16
            && timeline.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
            && hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        well_formed.then(|| Self(name.to_owned()))
    }

    /// The timeline number in the name.
    #[must_use]
    pub fn timeline(&self) -> u32 {
        self.0.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or_default()
    }

    /// The name as it stands in object names.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BranchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_moments_are_named() {
        assert_eq!(LogOffset(0x1_0300_0148).to_string(), "1/3000148");
        for (micros, text) in [
            (1_769_697_000_500_000, "2026-01-29 14:30:00.500000 UTC"),
            (0, "1970-01-01 00:00:00.000000 UTC"),
            (-1, "1969-12-31 23:59:59.999999 UTC"),
            (951_782_400_000_000, "2000-02-29 00:00:00.000000 UTC"),
            (4_107_542_400_000_000, "2100-03-01 00:00:00.000000 UTC"),
            (-62_135_596_800_000_000, "0001-01-01 00:00:00.000000 UTC"),
        ] {
            assert_eq!(Micros(micros).to_string(), text);
        }
        // The extremes print something and don't overflow.
        assert!(Micros(i64::MIN).to_string().starts_with('-'));
        assert!(Micros(i64::MAX).to_string().ends_with("UTC"));
    }

    #[test]
    fn a_branch_name_survives_printing_and_parsing() {
        let id = BranchId::new(0x1f, [0xab, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(id.as_str(), "0000001F-ab00000000000007");
        assert_eq!(BranchId::parse(id.as_str()), Some(id.clone()));
        assert_eq!(id.timeline(), 31);
        for bad in
            ["", "1-2", "0000001f-ab00000000000007", "0000001F-ab0000000000000g", "0000001F_ab00000000000007"]
        {
            assert_eq!(BranchId::parse(bad), None, "{bad}");
        }
    }
}
