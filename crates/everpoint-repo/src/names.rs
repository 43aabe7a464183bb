//! Names of objects: the one place where they are put together and taken apart.

use everpoint_core::{LogOffset, Micros, Span};

use crate::RepoError;

/// Format version, repository id, encrypted or not.
pub(crate) const CONFIG: &str = "config";
/// Key slots.
pub(crate) const KEYS: &str = "keys/";
/// All clusters.
pub(crate) const CLUSTERS: &str = "clusters/";

/// Longest name of a cluster.
const MAX_CLUSTER: usize = 63;
/// Longest label, lease id or file name.
const MAX_WORD: usize = 150;

/// Checks the name of a cluster: `[a-z0-9][a-z0-9._-]{0,62}`.
pub(crate) fn check_cluster(name: &str) -> Result<(), RepoError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut bytes = name.bytes();
    let good = bytes.next().is_some_and(allowed) && bytes.all(|byte| allowed(byte) || b"._-".contains(&byte));
    if good && name.len() <= MAX_CLUSTER {
        return Ok(());
    }
    let rule =
        "a cluster's name has 1 to 63 small letters, digits and . _ -, and begins with a letter or digit";
    Err(RepoError::invalid("use as a cluster's name", format!("{:?}", shorten(name)), rule))
}

/// Checks a word that becomes one part of an object name: letters, digits and `. _ + = -`, the first one no dot.
pub(crate) fn check_word(operation: &'static str, word: &str) -> Result<(), RepoError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._+=-".contains(&byte);
    if !word.is_empty() && word.len() <= MAX_WORD && !word.starts_with('.') && word.bytes().all(allowed) {
        return Ok(());
    }
    let rule = "it may hold letters, digits and . _ + = - only, and not begin with a dot";
    Err(RepoError::invalid(operation, format!("{:?}", shorten(word)), rule))
}

fn shorten(text: &str) -> String {
    text.chars().take(MAX_WORD).collect()
}

/// A number as it stands at the end of an object name: decimal, without leading zeros.
pub(crate) fn parse_number(text: &str) -> Option<u32> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    if canonical { text.parse().ok() } else { None }
}

/// Two 64-bit numbers as 16 hex digits each, which sort as the numbers do.
pub(crate) fn pair(first: u64, second: u64) -> String {
    format!("{first:016x}-{second:016x}")
}

/// Reads what [`pair`] made.
pub(crate) fn parse_pair(text: &str) -> Option<(u64, u64)> {
    let (first, second) = text.split_once('-')?;
    Some((parse_hex16(first)?, parse_hex16(second)?))
}

/// Reads 16 hex digits.
pub(crate) fn parse_hex16(text: &str) -> Option<u64> {
    let canonical =
        text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if canonical { u64::from_str_radix(text, 16).ok() } else { None }
}

/// A span of the log in an object name.
pub(crate) fn span(span: Span) -> String {
    pair(span.from.0, span.to.0)
}

/// Reads what [`span`] made; `None` if it is no span or an empty one.
pub(crate) fn parse_span(text: &str) -> Option<Span> {
    let (from, to) = parse_pair(text)?;
    (from < to).then_some(Span { from: LogOffset(from), to: LogOffset(to) })
}

/// `covered until` in an object name. Moments before 1970 don't occur; they would count as 1970.
pub(crate) fn covered(position: LogOffset, until: Micros) -> String {
    pair(position.0, u64::try_from(until.0).unwrap_or_default())
}

/// Reads what [`covered`] made.
pub(crate) fn parse_covered(text: &str) -> Option<(LogOffset, Micros)> {
    let (position, until) = parse_pair(text)?;
    Some((LogOffset(position), Micros(i64::try_from(until).ok()?)))
}

/// How a branch's segments are named: as PostgreSQL names its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentNames {
    /// Number of the timeline.
    pub(crate) timeline: u32,
    /// Bytes of a segment: a power of two from 1 MiB to 1 GiB.
    pub(crate) size: u64,
}

/// PostgreSQL counts segments within pieces of this many bytes.
const HIGH: u64 = 1 << 32;

impl SegmentNames {
    /// The name of the segment that holds `position`.
    pub(crate) fn name(self, position: LogOffset) -> String {
        let (high, low) = (position.0 / HIGH, (position.0 % HIGH) / self.size.max(1));
        format!("{:08X}{high:08X}{low:08X}", self.timeline)
    }

    /// Start of the segment of this name; `None` if it is not the name of a segment of this branch.
    pub(crate) fn parse(self, name: &str) -> Option<LogOffset> {
        let hex = |text: &str| {
            let canonical = text.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte));
            if canonical { u32::from_str_radix(text, 16).ok() } else { None }
        };
        if name.len() != 24 {
            return None;
        }
        let (timeline, high, low) = (hex(name.get(..8)?)?, hex(name.get(8..16)?)?, hex(name.get(16..)?)?);
        let low = u64::from(low).checked_mul(self.size)?;
        let fits = timeline == self.timeline && low < HIGH;
        fits.then(|| LogOffset(u64::from(high).saturating_mul(HIGH).saturating_add(low)))
    }

    /// Start of the segment that holds `position`.
    pub(crate) fn start(self, position: LogOffset) -> LogOffset {
        LogOffset(position.0 - position.0 % self.size.max(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_clusters_are_checked() {
        for good in ["a", "order-db", "0.x_y", &"a".repeat(63)] {
            assert!(check_cluster(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "-a", ".a", "a/b", "ä", "a b", &"a".repeat(64)] {
            assert!(check_cluster(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn segments_are_named_as_postgresql_names_them() {
        let names = SegmentNames { timeline: 1, size: 16 << 20 };
        assert_eq!(names.name(LogOffset(0x3000148)), "000000010000000000000003");
        assert_eq!(names.name(LogOffset(0x1_FF00_0000)), "0000000100000001000000FF");
        let small = SegmentNames { timeline: 0x1f, size: 1 << 20 };
        assert_eq!(small.name(LogOffset(0x2_FFF0_0001)), "0000001F0000000200000FFF");
        for bad in [
            "",
            "00000002000000000000000A",
            "000000010000000000000100",
            "00000001000000000000000a",
            "0000000100000000000000030",
        ] {
            assert_eq!(names.parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_segment_name_survives_printing_and_parsing(timeline: u32, at: u64, power in 20_u32..=30) {
            let names = SegmentNames { timeline, size: 1 << power };
            let start = names.start(LogOffset(at));
            prop_assert_eq!(names.parse(&names.name(LogOffset(at))), Some(start));
        }

        #[test]
        fn pairs_survive_and_sort_as_their_numbers(a: (u64, u64), b: (u64, u64)) {
            prop_assert_eq!(parse_pair(&pair(a.0, a.1)), Some(a));
            prop_assert_eq!(pair(a.0, a.1).cmp(&pair(b.0, b.1)), a.cmp(&b));
        }
    }
}
