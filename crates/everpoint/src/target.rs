//! Reads the TARGET of a restore: a moment, a position, a transaction, a name.

use everpoint_app::AppError;
use everpoint_core::when::{self, Unread};
use everpoint_core::{FailureClass, LogOffset, Micros, Target};

use crate::render::time::exact;
use crate::zone::Clock;

/// A target and how it was understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parsed {
    pub(crate) target: Target,
    /// In words, times with their zone.
    pub(crate) shown: String,
    /// It is a time to come: then what there is to say about that.
    pub(crate) future: Option<String>,
}

const FORMS: &str = "one of: latest, 2026-01-29 14:30:00+01, yesterday 14:30, -2h, lsn:0/3000148, xid:731, \
                     before-xid:731, name:LABEL, backup:LABEL";

/// Reads `text`; a time without zone is in the zone of `clock`.
///
/// # Errors
/// Class `Usage`: it is none of the forms, or a time that the zone has twice or never.
pub(crate) fn parse(text: &str, clock: &Clock) -> Result<Parsed, AppError> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("latest") {
        let shown = "the latest moment that is stored".to_owned();
        return Ok(Parsed { target: Target::Latest, shown, future: None });
    }
    if let Some((word, value)) = text.split_once(':')
        && word.starts_with(|c: char| c.is_ascii_alphabetic())
        && !word.contains([' ', ','])
    {
        return keyword(text, word, value);
    }
    let moment = when::read(text, &clock.reading()).map_err(|unread| no_target(text, unread))?;
    let shown = exact(moment, &clock.shown());
    let future = (moment > clock.now).then(|| {
        format!(
            "{shown} is in the future: by this machine's clock it is {}",
            exact(clock.now, &clock.shown())
        )
    });
    Ok(Parsed { target: Target::Time(moment), shown, future })
}

fn wrong(text: &str, message: impl Into<String>) -> AppError {
    AppError::new("restore.target", FailureClass::Usage, "understand the target", text, message).hint(FORMS)
}

/// What was read as a moment may have been meant as something else.
fn no_target(text: &str, unread: Unread) -> AppError {
    let error = wrong(text, unread.message);
    let word = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let label = text.split_once('-').is_some_and(|(day, more)| {
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        day.len() == 8 && digits(day) && more.get(..6).is_some_and(digits)
    });
    if label {
        return error.hint(format!("the end of a backup is --to backup:{text}"));
    }
    if word && text.starts_with(|c: char| c.is_ascii_alphabetic()) && unread.hint.contains("also understood")
    {
        return error.hint(format!("a restore point is --to name:{text}; else {FORMS}"));
    }
    error.hint(unread.hint)
}

fn keyword(text: &str, word: &str, value: &str) -> Result<Parsed, AppError> {
    let value = value.trim();
    if value.is_empty() {
        return Err(wrong(text, format!("nothing follows `{word}:`")));
    }
    let (target, shown) = match word {
        "lsn" => {
            let at = lsn(value).ok_or_else(|| wrong(text, "an LSN looks like 0/3000148"))?;
            (Target::Position(at), format!("position {value}"))
        }
        "xid" | "before-xid" => {
            let (xid, before) = (xid(text, value)?, word == "before-xid");
            let side = if before { "just before " } else { "" };
            (Target::Xid { xid, before }, format!("{side}{}", transaction(xid)))
        }
        "name" => (Target::Name(value.to_owned()), format!("restore point {value}")),
        "backup" => (Target::Backup(value.to_owned()), format!("the end of backup {value}")),
        _ => {
            let kinds = ["lsn", "xid", "before-xid", "name", "backup"];
            let meant = everpoint_core::words::nearest(word, kinds);
            let meant = meant.map_or(String::new(), |kind| format!("; did you mean `{kind}:`?"));
            return Err(wrong(text, format!("`{word}:` is no kind of target{meant}")));
        }
    };
    Ok(Parsed { target, shown, future: None })
}

/// The server counts on behind 2^32 and prints that; its log has the lower half.
fn transaction(xid: u64) -> String {
    match (xid >> 32, xid & u64::from(u32::MAX)) {
        (0, xid) => format!("transaction {xid}"),
        (epoch, low) => format!("transaction {xid} (epoch {epoch}, in the log {low})"),
    }
}

fn xid(text: &str, value: &str) -> Result<u64, AppError> {
    let message = "a transaction id is a number above 2, as txid_current() or pg_current_xact_id() prints it";
    value
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| value.parse().ok())
        .flatten()
        .filter(|xid: &u64| xid & u64::from(u32::MAX) > 2)
        .ok_or_else(|| wrong(text, message))
}

fn lsn(value: &str) -> Option<LogOffset> {
    let (high, low) = value.split_once('/')?;
    let half = |text: &str| {
        let hex = !text.is_empty() && text.len() <= 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| u64::from_str_radix(text, 16).ok()).flatten()
    };
    Some(LogOffset(half(high)? << 32 | half(low)?))
}

/// A moment; without a zone it is in that of `clock`.
///
/// # Errors
/// Class `Usage`: it is none, or one that the zone has twice or never.
pub(crate) fn moment(text: &str, clock: &Clock) -> Result<Micros, AppError> {
    when::read(text, &clock.reading()).map_err(|unread| {
        AppError::new("hold.until", FailureClass::Usage, "understand the time", text.trim(), unread.message)
            .hint(unread.hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-29 01:15:00 in Berlin.
    fn berlin() -> Clock {
        Clock { now: Micros(1_795_911_300_000_000), zone: crate::zone::named("Europe/Berlin") }
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
        assert_eq!(target("LATEST"), Target::Latest);
        assert_eq!(target("lsn:1/3000148"), Target::Position(LogOffset(0x1_0300_0148)));
        assert_eq!(target("xid:731"), Target::Xid { xid: 731, before: false });
        assert_eq!(target("before-xid:731"), Target::Xid { xid: 731, before: true });
        // As txid_current() and pg_current_xact_id() print it behind 2^32.
        assert_eq!(target("xid:4294968027"), Target::Xid { xid: 4_294_968_027, before: false });
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
            "xid:4294967296",
            "xid:+5",
            "frob:1",
            "2026-13-01",
            "2026-01-29 25:00",
            "2026-01-29 14:30+99",
            "2026-01-29 14:30+1",
            "2026-01-29 14:30:00.1234567",
            "2026-01-29 14:30 Mars/Olympus",
            "2026-01-29 14:30+01:0",
        ] {
            let error = parse(bad, &berlin()).expect_err(bad);
            assert_eq!(error.class, FailureClass::Usage, "{bad}");
            assert!(error.hint.is_some(), "{bad}");
        }
    }

    #[test]
    fn a_time_to_come_is_told_and_one_that_is_over_is_not() {
        for text in ["tomorrow 14:30", "14:30", "2030-01-01"] {
            let told = parse(text, &berlin()).unwrap().future.unwrap_or_default();
            assert!(
                told.contains("in the future") && told.contains("it is 2026-11-29 01:15:00"),
                "{text}: {told}"
            );
        }
        for text in ["00:30", "yesterday 14:30", "-2h", "latest", "xid:731"] {
            assert_eq!(parse(text, &berlin()).unwrap().future, None, "{text}");
        }
    }

    #[test]
    fn what_was_meant_otherwise_is_suggested() {
        for (text, hint) in [
            ("before-upgrade", "name:before-upgrade"),
            ("20260129-143000F", "backup:20260129-143000F"),
            ("0/3000148", "lsn:0/3000148"),
            ("731", "xid:731"),
            ("now", "latest"),
        ] {
            let error = parse(text, &berlin()).expect_err(text);
            let said = error.hint.clone().unwrap_or_default();
            assert!(said.contains(hint), "{text}: {said}");
        }
        let error = parse("names:x", &berlin()).unwrap_err();
        assert!(error.message.contains("did you mean `name:`?"), "{error}");
    }

    #[test]
    fn a_transaction_with_its_epoch_is_shown_with_both() {
        let shown = parse("before-xid:4294968027", &berlin()).unwrap().shown;
        assert_eq!(shown, "just before transaction 4294968027 (epoch 1, in the log 731)");
    }

    #[test]
    fn without_a_known_zone_a_time_without_one_is_refused() {
        let unknown = Clock { zone: None, ..berlin() };
        let error = parse("2026-01-29 14:30", &unknown).unwrap_err();
        assert_eq!(error.class, FailureClass::Usage);
        assert!(error.message.contains("not known") && error.hint.unwrap().contains("TZ"));
        assert!(super::moment("2026-01-29", &unknown).is_err());
        assert_eq!(
            parse("2026-01-29 14:30+01", &unknown).unwrap().shown,
            "2026-01-29 13:30:00.000000 +00:00"
        );
    }
}
