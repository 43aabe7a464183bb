//! A date, a time of day and a zone, in the orders in which people and programs write them.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

use super::offset::{moment, zone};
use super::{Reading, Unread, epoch, stamp, too_fine};
use crate::position::Micros;

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// What was found until now; each part once.
#[derive(Debug, Default)]
struct Parts {
    date: Option<Date>,
    /// Days from today.
    day_from_now: Option<(i8, String)>,
    /// Of a date with the name of a month.
    day: Option<i8>,
    month: Option<i8>,
    year: Option<i16>,
    weekday: Option<i8>,
    time: Option<Time>,
    /// `am` or `pm`: whether it is pm.
    afternoon: Option<bool>,
    zone: Option<String>,
    /// `[Europe/Berlin]`.
    annotation: Option<String>,
}

fn once<T>(place: &mut Option<T>, value: T, what: &str) -> Result<(), Unread> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Unread::new(format!("it has two {what}"))),
    }
}

pub(super) fn read(text: &str, reading: &Reading<'_>) -> Result<Micros, Unread> {
    let mut parts = Parts::default();
    let text = match text.strip_suffix(']').and_then(|text| text.rsplit_once('[')) {
        Some((text, name)) => {
            parts.annotation = Some(name.to_owned());
            text
        }
        None => text,
    };
    let spaced = spaced(text);
    for word in spaced.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
        parts.word(word)?;
    }
    parts.moment(reading)
}

/// The T between date and time of day is a space.
fn spaced(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let digit = |at: Option<usize>| at.and_then(|at| chars.get(at)).is_some_and(char::is_ascii_digit);
    let change = |(at, c): (usize, &char)| match c {
        'T' | 't' if digit(at.checked_sub(1)) && digit(Some(at + 1)) => ' ',
        other => *other,
    };
    chars.iter().enumerate().map(change).collect()
}

impl Parts {
    fn word(&mut self, word: &str) -> Result<(), Unread> {
        let lower = word.to_ascii_lowercase();
        let from_now = [("today", 0), ("yesterday", -1), ("tomorrow", 1)];
        if let Some((name, days)) = from_now.iter().find(|(name, _)| *name == lower) {
            return once(&mut self.day_from_now, (*days, (*name).to_owned()), "days");
        }
        if let Some(at) = named(&MONTHS, &lower) {
            return once(&mut self.month, at, "months");
        }
        if let Some(at) = named(&WEEKDAYS, &lower) {
            return once(&mut self.weekday, at, "days of the week");
        }
        if lower == "am" || lower == "pm" {
            return once(&mut self.afternoon, lower == "pm", "halves of a day");
        }
        if matches!(lower.as_str(), "at" | "on" | "uhr") {
            return Ok(());
        }
        if !word.starts_with(|c: char| c.is_ascii_digit()) {
            return once(&mut self.zone, word.to_owned(), "time zones");
        }
        self.number(word)
    }

    /// A word that begins with a digit.
    fn number(&mut self, word: &str) -> Result<(), Unread> {
        let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
        let (digits, rest) = word.split_at(end);
        if rest.starts_with(':') {
            return self.time_of_day(word);
        }
        if rest.starts_with(['-', '/', '.']) {
            let end = word.find(|c: char| !c.is_ascii_digit() && !"-/.".contains(c)).unwrap_or(word.len());
            // The fourth dash begins an offset.
            let end = word.match_indices('-').nth(2).map_or(end, |(at, _)| at.min(end));
            let (date, more) = word.split_at(end);
            once(&mut self.date, written_date(date)?, "dates")?;
            return self.behind(more);
        }
        match (digits.len(), rest) {
            (8, "") => once(&mut self.date, plain_date(digits)?, "dates"),
            (14, "") => {
                let (date, time) = digits.split_at(8);
                once(&mut self.date, plain_date(date)?, "dates")?;
                self.plain_time(time)
            }
            // 20261128T143000Z
            (4 | 6, _) if self.date.is_some() => {
                self.plain_time(digits)?;
                self.behind(rest)
            }
            (4, "") => once(&mut self.year, digits.parse().unwrap_or_default(), "years"),
            (1 | 2, "am" | "pm" | "AM" | "PM") => {
                let hour = digits.parse().unwrap_or(i8::MAX);
                let time = Time::new(hour, 0, 0, 0).map_err(|_| no_time_of_day(digits))?;
                once(&mut self.time, time, "times of day")?;
                self.behind(rest)
            }
            (1 | 2, "" | "st" | "nd" | "rd" | "th") => {
                once(&mut self.day, digits.parse().unwrap_or_default(), "days")
            }
            _ => Err(Unread::new(format!("\"{word}\" is neither a date nor a time of day"))),
        }
    }

    /// What stands directly behind a date or a time of day: am, pm, or a zone.
    fn behind(&mut self, text: &str) -> Result<(), Unread> {
        match text.to_ascii_lowercase().as_str() {
            "" => Ok(()),
            half @ ("am" | "pm") => once(&mut self.afternoon, half == "pm", "halves of a day"),
            _ => once(&mut self.zone, text.to_owned(), "time zones"),
        }
    }

    fn time_of_day(&mut self, word: &str) -> Result<(), Unread> {
        let end = word.find(|c: char| !c.is_ascii_digit() && !":.".contains(c)).unwrap_or(word.len());
        let (time, more) = word.split_at(end);
        let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
        if fraction.len() > 6 {
            return Err(too_fine());
        }
        let bad = || no_time_of_day(time);
        let mut units = clock.split(':').map(|unit| {
            let good = (1..=2).contains(&unit.len()) && unit.bytes().all(|b| b.is_ascii_digit());
            good.then(|| unit.parse::<i8>().ok()).flatten()
        });
        let mut unit = |needed: bool| match units.next() {
            Some(unit) => unit.ok_or_else(bad),
            None if needed => Err(bad()),
            None => Ok(0),
        };
        let (hour, minute, second) = (unit(true)?, unit(true)?, unit(false)?);
        if units.next().is_some()
            || (time.ends_with('.')
                || (!fraction.is_empty() && !fraction.bytes().all(|b| b.is_ascii_digit())))
        {
            return Err(bad());
        }
        let nanos = format!("{fraction:0<9}").parse().map_err(|_| bad())?;
        let time = Time::new(hour, minute, second, nanos).map_err(|_| bad())?;
        once(&mut self.time, time, "times of day")?;
        self.behind(more)
    }

    /// `1430` or `143000`.
    fn plain_time(&mut self, digits: &str) -> Result<(), Unread> {
        let part = |from: usize| {
            digits.get(from..from + 2).map_or(Ok(0), str::parse).map_err(|_| no_time_of_day(digits))
        };
        let time = Time::new(part(0)?, part(2)?, part(4)?, 0).map_err(|_| no_time_of_day(digits))?;
        once(&mut self.time, time, "times of day")
    }

    fn moment(mut self, reading: &Reading<'_>) -> Result<Micros, Unread> {
        self.spell_out_date()?;
        let time = match (self.time, self.afternoon) {
            (time, None) => time,
            (Some(time), Some(pm)) if (1..=12).contains(&time.hour()) => {
                let hour = time.hour() % 12 + if pm { 12 } else { 0 };
                Some(time.with().hour(hour).build().map_err(|_| Unread::new("it is no time of day"))?)
            }
            _ => return Err(Unread::new("am and pm stand behind an hour from 1 to 12")),
        };
        let nothing = self.date.is_none() && self.day_from_now.is_none() && time.is_none();
        if let Some(zone) = self.zone.as_deref().filter(|_| nothing) {
            return Err(Unread::new(format!("\"{zone}\" is no time")));
        }
        // A day alone begins at midnight; of "yesterday" nobody means that.
        if let (Some((_, name)), None) = (&self.day_from_now, time) {
            let message = format!("{name} is a whole day");
            return Err(Unread::new(message).hint(format!("add the time of day, such as: {name} 14:30")));
        }
        if self.weekday.is_some() && self.date.is_none() {
            let message = "a day of the week may be the last one or the next";
            return Err(Unread::new(message).hint("write the date, or: yesterday 14:30"));
        }
        let time = time.unwrap_or_default();
        // Abbreviations are looked for with the date that they belong to: of a relative one that is about today's.
        let about = self.date.unwrap_or(stamp(reading.now)?.to_zoned(TimeZone::UTC).date()).to_datetime(time);
        let zone = self.zone(about, reading)?;
        let date = match self.date {
            Some(date) => date,
            None => self.today(&zone, reading)?,
        };
        moment(date.to_datetime(time), &zone)
    }

    /// The date of a time of day alone, or of a day that is counted from today.
    fn today(&self, zone: &TimeZone, reading: &Reading<'_>) -> Result<Date, Unread> {
        let today = stamp(reading.now)?.to_zoned(zone.clone()).date();
        let far = |_| Unread::new("it is out of range");
        match self.day_from_now {
            Some((-1, _)) => today.yesterday().map_err(far),
            Some((1, _)) => today.tomorrow().map_err(far),
            _ => Ok(today),
        }
    }

    /// The zone; two must say the same.
    fn zone(&self, civil: DateTime, reading: &Reading<'_>) -> Result<TimeZone, Unread> {
        let written = self.zone.as_deref();
        let Some(name) = self.annotation.as_deref() else { return zone(written, Some(civil), reading) };
        let annotated = zone(Some(name), Some(civil), reading)?;
        let Some(written) = written else { return Ok(annotated) };
        let fixed = zone(Some(written), Some(civil), reading)?;
        let at = moment(civil, &fixed)?;
        if annotated.to_offset(stamp(at)?) != fixed.to_offset(stamp(at)?) {
            return Err(
                Unread::new(format!("{name} was not at {written} then")).hint("leave one of the two out")
            );
        }
        Ok(fixed)
    }

    /// `28 November 2026`.
    fn spell_out_date(&mut self) -> Result<(), Unread> {
        match (self.month, self.day, self.year) {
            (None, None, None) => {}
            (Some(month), Some(day), Some(year)) => {
                let date = Date::new(year, month, day).map_err(|_| Unread::new("there is no such day"))?;
                once(&mut self.date, date, "dates")?;
            }
            _ => return Err(Unread::new("the date lacks its day, month or year")),
        }
        if self.date.is_some() && self.day_from_now.is_some() {
            return Err(Unread::new("it has two dates"));
        }
        if let (Some(weekday), Some(date)) = (self.weekday, self.date)
            && date.weekday().to_monday_one_offset() != weekday
        {
            let is = usize::try_from(date.weekday().to_monday_zero_offset()).ok();
            let is = is.and_then(|at| WEEKDAYS.get(at)).copied().unwrap_or_default();
            return Err(Unread::new(format!("{date} is a {is}")).hint("leave the day of the week out"));
        }
        Ok(())
    }
}

/// The place, from 1, of a name or its first three letters.
fn named(names: &[&str], word: &str) -> Option<i8> {
    let word = word.strip_suffix('.').unwrap_or(word);
    let at = names.iter().position(|name| *name == word || (word.len() == 3 && name.starts_with(word)))?;
    i8::try_from(at + 1).ok()
}

fn no_time_of_day(text: &str) -> Unread {
    Unread::new(format!("\"{text}\" is no time of day")).hint("hours go from 0 to 23: 14:30 or 14:30:00.5")
}

/// `20261128`.
fn plain_date(digits: &str) -> Result<Date, Unread> {
    let part =
        |from: usize, to: usize| digits.get(from..to).and_then(|part| part.parse::<i16>().ok()).unwrap_or(-1);
    date(part(0, 4), part(4, 6), part(6, 8)).ok_or_else(|| no_day(digits))
}

fn date(year: i16, month: i16, day: i16) -> Option<Date> {
    Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

fn no_day(text: &str) -> Unread {
    Unread::new(format!("there is no day {text}"))
}

/// Three numbers with dots, dashes or slashes.
fn written_date(text: &str) -> Result<Date, Unread> {
    let one_kind = ["-", "/", "."].iter().filter(|mark| text.contains(**mark)).count() == 1;
    let numbers: Vec<&str> = text.split(['-', '/', '.']).collect();
    let &[first, second, third] = numbers.as_slice() else { return Err(no_date(text)) };
    let number = |text: &str| text.parse::<i16>().ok().filter(|_| (1..=4).contains(&text.len()));
    let (Some(a), Some(b), Some(c), true) = (number(first), number(second), number(third), one_kind) else {
        return Err(no_date(text));
    };
    if first.len() == 4 {
        return date(a, b, c).ok_or_else(|| no_day(text));
    }
    if third.len() != 4 {
        return Err(Unread::new(format!("the year of {text} needs four digits")));
    }
    // With dots the day comes first everywhere. With slashes or dashes it depends on who writes.
    let (day_first, month_first) = (date(c, b, a), date(c, a, b).filter(|_| !text.contains('.')));
    match (day_first, month_first) {
        (Some(day_first), Some(month_first)) if day_first != month_first => {
            let message = format!("{text} may be {day_first} or {month_first}");
            Err(Unread::new(message)
                .hint(format!("write the one that is meant: {day_first} or {month_first}")))
        }
        (found, other) => found.or(other).ok_or_else(|| no_day(text)),
    }
}

/// What three numbers are not.
fn no_date(text: &str) -> Unread {
    if epoch(text).is_some() || !text.contains('/') {
        return Unread::new(format!("\"{text}\" is no date"));
    }
    Unread::new(format!("\"{text}\" is no date")).hint(format!("a position in the log is lsn:{text}"))
}
