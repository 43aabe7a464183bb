//! Reads the TARGET of a restore: a moment, a position, a transaction, a name.

use everpoint_app::AppError;
use everpoint_core::{FailureClass, LogOffset, Micros, Target};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

use crate::render::time::exact;

/// A target and how it was understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parsed {
    pub(crate) target: Target,
    /// In words, times with their zone.
    pub(crate) shown: String,
}

const FORMS: &str = "one of: latest, 2026-01-29 14:30:00+01, lsn:0/3000148, xid:731, before-xid:731, name:LABEL, \
                     backup:LABEL";

/// Reads `text`; a time without zone is in `zone`.
///
/// # Errors
/// Class `Usage`: it is none of the forms, or a time that the zone has twice or never.
pub(crate) fn parse(text: &str, zone: &TimeZone) -> Result<Parsed, AppError> {
    let text = text.trim();
    if text == "latest" {
        return Ok(Parsed { target: Target::Latest, shown: "the latest moment that is stored".to_owned() });
    }
    if let Some((word, value)) = text.split_once(':')
        && word.starts_with(|c: char| c.is_ascii_alphabetic())
    {
        return keyword(text, word, value);
    }
    let moment = time(text, zone)?;
    Ok(Parsed { target: Target::Time(moment), shown: exact(moment, zone) })
}

fn wrong(text: &str, message: impl Into<String>) -> AppError {
    AppError::new("restore.target", FailureClass::Usage, "understand the target", text, message).hint(FORMS)
}

fn keyword(text: &str, word: &str, value: &str) -> Result<Parsed, AppError> {
    if value.is_empty() {
        return Err(wrong(text, format!("nothing follows `{word}:`")));
    }
    let target = match word {
        "lsn" => Target::Position(lsn(value).ok_or_else(|| wrong(text, "an LSN looks like 0/3000148"))?),
        "xid" => Target::Xid { xid: xid(text, value)?, before: false },
        "before-xid" => Target::Xid { xid: xid(text, value)?, before: true },
        "name" => Target::Name(value.to_owned()),
        "backup" => Target::Backup(value.to_owned()),
        _ => return Err(wrong(text, format!("`{word}:` is no kind of target"))),
    };
    let shown = match word {
        "lsn" => format!("position {value}"),
        "xid" => format!("transaction {value}"),
        "before-xid" => format!("just before transaction {value}"),
        "name" => format!("restore point {value}"),
        _ => format!("the end of backup {value}"),
    };
    Ok(Parsed { target, shown })
}

fn xid(text: &str, value: &str) -> Result<u64, AppError> {
    value
        .parse()
        .ok()
        .filter(|xid| *xid > 2)
        .ok_or_else(|| wrong(text, "a transaction id is a number above 2"))
}

fn lsn(value: &str) -> Option<LogOffset> {
    let (high, low) = value.split_once('/')?;
    let half = |text: &str| {
        let hex = !text.is_empty() && text.len() <= 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| u64::from_str_radix(text, 16).ok()).flatten()
    };
    Some(LogOffset(half(high)? << 32 | half(low)?))
}

/// A moment; without a zone it is in `zone`.
///
/// # Errors
/// Class `Usage`: it is none, or one that the zone has twice or never.
pub(crate) fn moment(text: &str, zone: &TimeZone) -> Result<Micros, AppError> {
    time(text.trim(), zone)
}

/// A time: date, or date and time of day, then nothing, `Z`, an offset, or the name of a zone.
fn time(text: &str, zone: &TimeZone) -> Result<Micros, AppError> {
    let (civil, rest) = split_zone(text);
    if fraction_digits(civil) > 6 {
        return Err(wrong(
            text,
            "a time has at most six digits after the point: PostgreSQL counts microseconds",
        ));
    }
    let moment: DateTime =
        civil.parse().map_err(|error: jiff::Error| wrong(text, "it is no time").cause(error))?;
    let zone = match rest {
        "" => zone.clone(),
        "Z" | "z" | "UTC" | "GMT" => TimeZone::UTC,
        offset if offset.starts_with(['+', '-']) => {
            offset_zone(offset).ok_or_else(|| wrong(text, format!("{offset} is no offset from UTC")))?
        }
        name => TimeZone::get(name.trim_matches(['[', ']'])).map_err(|error| {
            wrong(text, format!("{name} is no time zone known here; an offset such as +01 always works"))
                .cause(error)
        })?,
    };
    let ambiguous = zone.to_ambiguous_timestamp(moment);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => {}
        AmbiguousOffset::Gap { before, after } => {
            let message =
                format!("the clock was put from {before} to {after} then, so this time did not exist");
            return Err(wrong(text, message).hint("give the offset from UTC, such as +01"));
        }
        AmbiguousOffset::Fold { before, after } => {
            let message =
                format!("the clock was put from {before} to {after} then, so this time was there twice");
            return Err(wrong(text, message)
                .hint(format!("say which one: \"{civil}{before}\" or \"{civil}{after}\"")));
        }
    }
    let stamp = ambiguous.unambiguous().map_err(|error| wrong(text, "it is out of range").cause(error))?;
    Ok(Micros(stamp.as_microsecond()))
}

/// Cuts `2026-01-29 14:30:00.5+01` before its zone.
fn split_zone(text: &str) -> (&str, &str) {
    // Date and time of day consist of these; the date's own minus signs are the first two.
    let mut dashes = 0;
    let cut = text.char_indices().find(|(at, c)| match c {
        '-' => {
            dashes += 1;
            dashes > 2
        }
        '0'..='9' | ':' | '.' => false,
        'T' | 't' | ' ' => {
            text.get(at + 1..).is_none_or(|next| !next.starts_with(|c: char| c.is_ascii_digit()))
        }
        _ => true,
    });
    let (civil, rest) = text.split_at(cut.map_or(text.len(), |(at, _)| at));
    (civil.trim(), rest.trim())
}

fn fraction_digits(civil: &str) -> usize {
    civil.split_once('.').map_or(0, |(_, fraction)| fraction.len())
}

/// `+01`, `-0530`, `+05:30`, `+05:30:15`.
fn offset_zone(text: &str) -> Option<TimeZone> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let plain: String = digits
        .split(':')
        .map(|part| if part.len() == 2 || !digits.contains(':') { part } else { "x" })
        .collect();
    if !matches!(plain.len(), 2 | 4 | 6) {
        return None;
    }
    let part = |from: usize, below: i32| match plain.get(from..from + 2) {
        None => Some(0),
        Some(two) if two.bytes().all(|b| b.is_ascii_digit()) => two.parse().ok().filter(|n: &i32| *n < below),
        Some(_) => None,
    };
    let seconds = part(0, 16)? * 3600 + part(2, 60)? * 60 + part(4, 60)?;
    Some(Offset::from_seconds(sign * seconds).ok()?.to_time_zone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::get("Europe/Berlin").unwrap()
    }

    fn moment(text: &str) -> i64 {
        match parse(text, &berlin()) {
            Ok(Parsed { target: Target::Time(at), .. }) => at.0,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn times_with_and_without_zone() {
        let wanted = 1_769_693_400_500_000;
        for text in [
            "2026-01-29 14:30:00.5+01",
            "2026-01-29 14:30:00.5",
            "2026-01-29T13:30:00.5Z",
            "2026-01-29T13:30:00.500000Z",
            "2026-01-29 14:30:00.500 +01:00",
            "2026-01-29 14:30:00.5+0100",
            "2026-01-29 14:30:00.5+01:00:00",
            "2026-01-29 13:30:00.5 UTC",
            "2026-01-29 14:30:00.5 Europe/Berlin",
            "2026-01-29T14:30:00.5[Europe/Berlin]",
            "2026-01-29 08:30:00.5-05",
            "2026-01-29 19:00:00.5+05:30",
            "  2026-01-29 14:30:00.5  ",
        ] {
            assert_eq!(moment(text), wanted, "{text}");
        }
        assert_eq!(moment("2026-01-29 14:30"), 1_769_693_400_000_000);
        assert_eq!(moment("2026-07-01 14:30"), 1_782_909_000_000_000);
        assert_eq!(moment("2026-01-29"), 1_769_641_200_000_000);
        assert_eq!(moment("2026-01-29 14:30:00.123456+01"), 1_769_693_400_123_456);
    }

    #[test]
    fn a_time_is_shown_back_in_the_zone() {
        let shown = parse("2026-01-29T13:30:00.5Z", &berlin()).unwrap().shown;
        assert_eq!(shown, "2026-01-29 14:30:00.500000 +01:00");
    }

    #[test]
    fn times_that_a_zone_has_twice_or_never_are_refused() {
        let twice = parse("2026-10-25 02:30:00", &berlin()).unwrap_err();
        assert!(twice.message.contains("twice"), "{twice}");
        assert!(twice.hint.unwrap().contains("2026-10-25 02:30:00+02"));
        assert!(parse("2026-03-29 02:30:00", &berlin()).unwrap_err().message.contains("did not exist"));
        assert_eq!(moment("2026-10-25 02:30:00+02") + 3_600_000_000, moment("2026-10-25 02:30:00+01"));
    }

    #[test]
    fn other_targets() {
        let target = |text| parse(text, &berlin()).unwrap().target;
        assert_eq!(target("latest"), Target::Latest);
        assert_eq!(target("lsn:1/3000148"), Target::Position(LogOffset(0x1_0300_0148)));
        assert_eq!(target("xid:731"), Target::Xid { xid: 731, before: false });
        assert_eq!(target("before-xid:731"), Target::Xid { xid: 731, before: true });
        assert_eq!(target("name:before the party"), Target::Name("before the party".to_owned()));
        assert_eq!(target("backup:20260129-143000F"), Target::Backup("20260129-143000F".to_owned()));
    }

    #[test]
    fn what_is_no_target_is_refused_as_usage() {
        for bad in [
            "",
            "yesterday",
            "lsn:",
            "lsn:0",
            "lsn:0/",
            "lsn:0/123456789",
            "lsn:+1/2",
            "xid:abc",
            "xid:-1",
            "xid:0",
            "frob:1",
            "2026-13-01",
            "2026-01-29 25:00",
            "2026-01-29 14:30+99",
            "2026-01-29 14:30+1",
            "2026-01-29 14:30:00.1234567",
            "2026-01-29 14:30 Mars/Olympus",
            "14:30",
            "2026-01-29 14:30+01:0",
        ] {
            let error = parse(bad, &berlin()).expect_err(bad);
            assert_eq!(error.class, FailureClass::Usage, "{bad}");
            assert!(error.hint.is_some(), "{bad}");
        }
    }
}
