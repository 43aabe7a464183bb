//! Moments as people read them: `2026-01-29 14:30:00 +01:00`, in the machine's zone, with six digits more where they count.

use everpoint_core::Micros;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `2026-01-29 14:30:00 +01:00`: to the second.
pub(crate) fn local(rfc3339: &str) -> String {
    let zone = crate::zone::shown();
    rfc3339.parse().map_or_else(|_| rfc3339.to_owned(), |at| show(at, &zone, false))
}

/// `2026-01-29 14:30:00.500000 +01:00`: to the microsecond, in the machine's zone. It can be pasted behind `--to`.
pub(crate) fn local_exact(rfc3339: &str) -> String {
    let zone = crate::zone::shown();
    rfc3339.parse().map_or_else(|_| rfc3339.to_owned(), |at| show(at, &zone, true))
}

/// The same of a moment, in `zone`.
pub(crate) fn exact(moment: Micros, zone: &TimeZone) -> String {
    Timestamp::from_microsecond(moment.0)
        .map_or_else(|_| format!("{} us", moment.0), |at| show(at, zone, true))
}

fn show(at: Timestamp, zone: &TimeZone, exact: bool) -> String {
    let format = if exact { "%Y-%m-%d %H:%M:%S.%6f %:z" } else { "%Y-%m-%d %H:%M:%S %:z" };
    at.to_zoned(zone.clone()).strftime(format).to_string()
}

/// A text whose moments are in UTC, as messages have them (`2026-01-29T13:30:00.500000Z`, `2026-01-29 13:30:00.500000 UTC`),
/// with those moments as people read them.
pub(crate) fn for_people(text: &str, zone: &TimeZone) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = None;
    while let Some(next) = rest.chars().next() {
        let begins = next.is_ascii_digit() && !before.is_some_and(|c: char| c.is_ascii_alphanumeric());
        match begins.then(|| in_utc(rest)).flatten() {
            Some((at, length)) => {
                out.push_str(&show(at, zone, at.subsec_nanosecond() != 0));
                rest = rest.get(length..).unwrap_or_default();
                before = None;
            }
            None => {
                out.push(next);
                before = Some(next);
                rest = rest.get(next.len_utf8()..).unwrap_or_default();
            }
        }
    }
    out
}

/// The moment with which a text begins, and how long it is there.
fn in_utc(text: &str) -> Option<(Timestamp, usize)> {
    const SHAPE: &str = "dddd-dd-dd_dd:dd:dd";
    let clock = text.get(..SHAPE.len())?;
    let fits = clock.bytes().zip(SHAPE.bytes()).all(|(b, wanted)| match wanted {
        b'd' => b.is_ascii_digit(),
        b'_' => b == b'T' || b == b' ',
        other => b == other,
    });
    let behind = text.get(SHAPE.len()..).filter(|_| fits)?;
    let digits =
        behind.strip_prefix('.').map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    let fraction = if digits > 0 { digits + 1 } else { 0 };
    let mark = ["Z", " UTC"].into_iter().find(|mark| {
        let more = behind.get(fraction..).and_then(|rest| rest.strip_prefix(mark));
        more.is_some_and(|more| !more.starts_with(|c: char| c.is_ascii_alphanumeric()))
    })?;
    let length = SHAPE.len() + fraction;
    let at = format!("{}Z", text.get(..length)?).parse().ok()?;
    Some((at, length + mark.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zone_is_shown() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        assert_eq!(exact(Micros(1_769_693_400_500_000), &berlin), "2026-01-29 14:30:00.500000 +01:00");
        assert_eq!(local("no time"), "no time");
        assert_eq!(local_exact("no time"), "no time");
    }

    #[test]
    fn moments_in_messages_have_the_one_form() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        for (text, wanted) in [
            ("at 2026-01-29T13:30:00.500000Z.", "at 2026-01-29 14:30:00.500000 +01:00."),
            ("until 2026-07-29 13:30:00.000000 UTC, and", "until 2026-07-29 15:30:00 +02:00, and"),
            ("--to '2026-01-29T13:30:00.000001Z'", "--to '2026-01-29 14:30:00.000001 +01:00'"),
            ("2026-01-29T13:30:00Z", "2026-01-29 14:30:00 +01:00"),
            ("covered/2026-01-29T13:30:00Zebra", "covered/2026-01-29T13:30:00Zebra"),
            (
                "everpoint-4f2a91c0-20260129T030000Z-17.tar.age é",
                "everpoint-4f2a91c0-20260129T030000Z-17.tar.age é",
            ),
            ("2026-99-29T13:30:00Z", "2026-99-29T13:30:00Z"),
            ("2026-01-29 14:30:00 +01:00", "2026-01-29 14:30:00 +01:00"),
            ("12026-01-29T13:30:00Z", "12026-01-29T13:30:00Z"),
            ("", ""),
        ] {
            assert_eq!(for_people(text, &berlin), wanted);
        }
    }
}
