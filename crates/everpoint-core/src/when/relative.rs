//! `-2h`, `90 minutes ago`, `in 2 days`: counted from now.

use jiff::Span;
use jiff::tz::TimeZone;

use super::{FORMS, Reading, Unread, stamp};
use crate::position::Micros;

/// `None`: it is none of these forms.
pub(super) fn read(text: &str, reading: &Reading<'_>) -> Option<Result<Micros, Unread>> {
    let lower = text.to_ascii_lowercase();
    let digit = |text: &str| text.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let (span, back) = if let Some(span) = lower.strip_suffix("ago") {
        (span, true)
    } else if let Some(span) = lower.strip_prefix("in ") {
        (span, false)
    } else if let Some(span) = lower.strip_prefix(['-', '\u{2212}']).filter(|rest| digit(rest)) {
        (span, true)
    } else {
        (lower.strip_prefix('+').filter(|rest| digit(rest))?, false)
    };
    Some(amount(span.trim()).and_then(|amount| from_now(&amount, back, reading)))
}

/// Days by the calendar, and seconds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Amount {
    days: i64,
    seconds: i64,
}

fn amount(text: &str) -> Result<Amount, Unread> {
    let odd = || Unread::new(format!("\"{text}\" is no length of time")).hint(FORMS);
    let text = text.replace(" and ", " ").replace(',', " ");
    let text = text.strip_prefix("an ").or_else(|| text.strip_prefix("a ")).map_or(text.clone(), one);
    let mut rest = text.trim();
    let (mut sum, mut any) = (Amount::default(), false);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(odd)?;
        let (number, behind) = rest.split_at(end);
        let number: i64 = number.parse().map_err(|_| odd())?;
        let behind = behind.trim_start();
        let end = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, more) = behind.split_at(end);
        let add = |to: &mut i64, factor: i64| -> Option<()> {
            *to = to.checked_add(number.checked_mul(factor)?)?;
            Some(())
        };
        match unit {
            "s" | "sec" | "secs" | "second" | "seconds" => add(&mut sum.seconds, 1),
            "m" | "min" | "mins" | "minute" | "minutes" => add(&mut sum.seconds, 60),
            "h" | "hr" | "hrs" | "hour" | "hours" => add(&mut sum.seconds, 3600),
            "d" | "day" | "days" => add(&mut sum.days, 1),
            "w" | "week" | "weeks" => add(&mut sum.days, 7),
            "mon" | "month" | "months" | "y" | "year" | "years" => {
                let message = "months and years have no one length";
                return Err(Unread::new(message).hint("count in days or weeks, or write the date"));
            }
            _ => return Err(odd()),
        }
        .ok_or_else(odd)?;
        (rest, any) = (more.trim_start(), true);
    }
    if any { Ok(sum) } else { Err(odd()) }
}

fn one(unit: &str) -> String {
    format!("1 {unit}")
}

/// Days keep the time of day where the machine's zone is known; else they have 24 hours.
fn from_now(amount: &Amount, back: bool, reading: &Reading<'_>) -> Result<Micros, Unread> {
    let far = || Unread::new("it is out of range");
    let sign = if back { -1 } else { 1 };
    let mut at = reading.now;
    if amount.days > 0 {
        let zone = reading.zone.cloned().unwrap_or(TimeZone::UTC);
        let days = Span::new().try_days(sign * amount.days).map_err(|_| far())?;
        let then = stamp(at)?.to_zoned(zone).checked_add(days).map_err(|_| far())?;
        at = Micros(then.timestamp().as_microsecond());
    }
    let micros = amount.seconds.checked_mul(sign * 1_000_000).ok_or_else(far)?;
    let at = Micros(at.0.checked_add(micros).ok_or_else(far)?);
    stamp(at).map(|_| at)
}
