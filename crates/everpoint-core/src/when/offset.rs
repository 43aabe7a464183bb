//! The zone of a time: an offset, a name, or what clocks there call it.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

use super::{Reading, Unread, local};
use crate::position::Micros;

/// Names of the time zone database that say what the clock shows in winter, whatever it shows at that moment.
const LIKE_ABBREVIATIONS: [&str; 7] = ["CET", "MET", "EET", "WET", "EST", "MST", "HST"];

/// The zone that a text names; without one, the machine's. `civil` is the time that it is about.
pub(super) fn zone(
    text: Option<&str>,
    civil: Option<DateTime>,
    reading: &Reading<'_>,
) -> Result<TimeZone, Unread> {
    let Some(text) = text else { return local(reading).cloned() };
    if matches!(text.to_ascii_uppercase().as_str(), "Z" | "UTC" | "GMT" | "UT") {
        return Ok(TimeZone::UTC);
    }
    if text.starts_with(['+', '-']) {
        return fixed(text).ok_or_else(|| {
            Unread::new(format!("{text} is no offset from UTC"))
                .hint("offsets look like +01, -0530 or +05:30")
        });
    }
    if let Some(offset) = in_force(text, civil, reading) {
        return Ok(offset.to_time_zone());
    }
    let unknown = || {
        Unread::new(format!("{text} is no time zone known here")).hint("an offset such as +01 always works")
    };
    let found = (reading.zones)(text).ok_or_else(unknown)?;
    if LIKE_ABBREVIATIONS.contains(&text) {
        let called = |offset: Offset, civil: DateTime| {
            offset.to_timestamp(civil).is_ok_and(|at| found.to_offset_info(at).abbreviation() == text)
        };
        if civil.is_some_and(|civil| !offsets(&found, civil).into_iter().any(|offset| called(offset, civil)))
        {
            let message = format!("clocks there did not show {text} at that time of the year");
            return Err(Unread::new(message).hint("give the offset from UTC, such as +01 or +02"));
        }
    }
    Ok(found)
}

/// The offset at which the machine's zone calls itself so: what PostgreSQL writes into its log.
fn in_force(text: &str, civil: Option<DateTime>, reading: &Reading<'_>) -> Option<Offset> {
    let (zone, civil) = (reading.zone?, civil?);
    offsets(zone, civil).into_iter().find(|offset| {
        offset.to_timestamp(civil).is_ok_and(|at| {
            let info = zone.to_offset_info(at);
            info.offset() == *offset && info.abbreviation() == text
        })
    })
}

fn offsets(zone: &TimeZone, civil: DateTime) -> Vec<Offset> {
    match zone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => vec![offset],
        AmbiguousOffset::Gap { before, after } | AmbiguousOffset::Fold { before, after } => {
            vec![before, after]
        }
    }
}

/// The moment at which clocks of a zone show a time.
pub(super) fn moment(civil: DateTime, zone: &TimeZone) -> Result<Micros, Unread> {
    let ambiguous = zone.to_ambiguous_timestamp(civil);
    let shown = civil.strftime("%Y-%m-%d %H:%M:%S%.f");
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => {}
        AmbiguousOffset::Gap { before, after } => {
            let message = format!(
                "the clock was put from {before} to {after} then, so this time did not exist: clocks showed an earlier \
                 one, then a later one"
            );
            return Err(Unread::new(message)
                .hint(format!("say what is meant: \"{shown}{before}\" or \"{shown}{after}\"")));
        }
        AmbiguousOffset::Fold { before, after } => {
            let message =
                format!("the clock was put from {before} to {after} then, so this time was there twice");
            return Err(Unread::new(message)
                .hint(format!("say which one: \"{shown}{before}\" or \"{shown}{after}\"")));
        }
    }
    let stamp = ambiguous.unambiguous().map_err(|_| Unread::new("it is out of range"))?;
    Ok(Micros(stamp.as_microsecond()))
}

/// `+01`, `-0530`, `+05:30`, `+05:30:15`.
pub(super) fn fixed(text: &str) -> Option<TimeZone> {
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
