//! A moment as a person writes it. What can mean one thing only is understood, and shown back by whoever asked; what can
//! mean two is refused, with both.
//!
//! Nothing here knows the machine: its clock, its zone and the time zone database are given.

mod absolute;
mod offset;
mod relative;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::position::Micros;

/// What a text is read with.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// The machine's clock.
    pub now: Micros,
    /// The machine's zone: that of a time without one. Absent: it is not known, and such a time is refused.
    pub zone: Option<&'a TimeZone>,
    /// Finds a zone by its name.
    pub zones: &'a dyn Fn(&str) -> Option<TimeZone>,
}

/// Why a text is no moment, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Why.
    pub message: String,
    /// What to write.
    pub hint: String,
}

/// Forms that everybody knows how to change.
const FORMS: &str = "write it like 2026-01-29 14:30:00+01; also understood: 14:30, yesterday 14:30, -2h, 2 hours ago, \
                     29.01.2026 14:30, 2026-01-29T13:30Z";

impl Unread {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: FORMS.to_owned() }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// Reads a moment.
///
/// # Errors
/// It is none, or not only one.
pub fn read(text: &str, reading: &Reading<'_>) -> Result<Micros, Unread> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Unread::new("it is empty"));
    }
    if matches!(text.to_ascii_lowercase().as_str(), "now" | "latest") {
        return Err(Unread::new("the newest is no time, as the last moments may not be stored yet")
            .hint("write latest: all that is stored"));
    }
    if let Some(found) = relative::read(text, reading) {
        return found;
    }
    if let Some(found) = epoch(text) {
        return found;
    }
    absolute::read(text, reading)
}

/// Seconds, milliseconds or microseconds since 1970: told apart by their number of digits, which no date shares.
fn epoch(text: &str) -> Option<Result<Micros, Unread>> {
    let digits = text.strip_prefix('@').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number = whole.parse::<i64>().ok()?;
    let factor = match whole.len() {
        9 | 10 => 1_000_000,
        13 if fraction.is_empty() => 1_000,
        16 if fraction.is_empty() => 1,
        19 if fraction.is_empty() => {
            let seconds = number / 1_000_000_000;
            let message = "it looks like nanoseconds since 1970, and PostgreSQL counts microseconds";
            return Some(Err(Unread::new(message).hint(format!("write the seconds: {seconds}"))));
        }
        // Dates without anything between their parts.
        8 | 14 if fraction.is_empty() && !text.starts_with('@') => return None,
        _ if text.starts_with('@') => return Some(Err(Unread::new("it is no number of seconds since 1970"))),
        _ => {
            let hint = format!("a transaction is xid:{digits}; {FORMS}");
            return Some(Err(Unread::new("a number alone is no time").hint(hint)));
        }
    };
    if fraction.len() > 6 {
        return Some(Err(too_fine()));
    }
    let fraction = format!("{fraction:0<6}").parse::<i64>().unwrap_or_default();
    let micros = number.checked_mul(factor).and_then(|micros| micros.checked_add(fraction));
    Some(micros.map(Micros).ok_or_else(|| Unread::new("it is out of range")))
}

fn too_fine() -> Unread {
    Unread::new("a time has at most six digits after the point: PostgreSQL counts microseconds")
}

fn stamp(at: Micros) -> Result<Timestamp, Unread> {
    Timestamp::from_microsecond(at.0).map_err(|_| Unread::new("it is out of range"))
}

/// The machine's zone where a text needs it.
fn local<'a>(reading: &Reading<'a>) -> Result<&'a TimeZone, Unread> {
    reading.zone.ok_or_else(|| {
        Unread::new("this machine's time zone is not known, so a time without a zone could mean any of them")
            .hint(
                "give the offset from UTC, such as 2026-01-29 14:30:00+01, or Z for UTC; or set TZ, such as \
             TZ=Europe/Berlin, or with its rule where it has summer time: TZ=CET-1CEST,M3.5.0,M10.5.0/3",
            )
    })
}
