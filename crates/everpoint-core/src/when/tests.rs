//! What is understood, as what; and what is refused, with which words.

use jiff::tz::TimeZone;

use super::*;

/// 2026-11-29 01:15:00 in Berlin.
const NOW: Micros = Micros(1_795_911_300_000_000);

fn zones(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).ok()
}

fn berlin() -> TimeZone {
    zones("Europe/Berlin").unwrap()
}

fn at(text: &str) -> Result<String, Unread> {
    let zone = berlin();
    let found = read(text, &Reading { now: NOW, zone: Some(&zone), zones: &zones })?;
    Ok(stamp(found).unwrap().to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S%.f%:z").to_string())
}

#[test]
fn what_can_mean_one_thing_only_is_understood() {
    for (text, wanted) in [
        ("2026-01-29 14:30:00.5+01", "2026-01-29 14:30:00.5+01:00"),
        ("28.11.2026 14:30", "2026-11-28 14:30:00+01:00"),
        ("28.11.2026, 14:30 Uhr", "2026-11-28 14:30:00+01:00"),
        ("1.7.2026 9:05", "2026-07-01 09:05:00+02:00"),
        ("28/11/2026 14:30", "2026-11-28 14:30:00+01:00"),
        ("11/28/2026 2:30 PM", "2026-11-28 14:30:00+01:00"),
        ("28-11-2026 14:30", "2026-11-28 14:30:00+01:00"),
        ("11/11/2026", "2026-11-11 00:00:00+01:00"),
        ("2026/11/28 14:30", "2026-11-28 14:30:00+01:00"),
        ("2026-11-28T14:30Z", "2026-11-28 15:30:00+01:00"),
        ("2026-11-28t14:30z", "2026-11-28 15:30:00+01:00"),
        ("20261128T143000Z", "2026-11-28 15:30:00+01:00"),
        ("20261128 1430", "2026-11-28 14:30:00+01:00"),
        ("20261128", "2026-11-28 00:00:00+01:00"),
        ("20261128143000", "2026-11-28 14:30:00+01:00"),
        ("28 Nov 2026 14:30", "2026-11-28 14:30:00+01:00"),
        ("November 28th, 2026 at 14:30", "2026-11-28 14:30:00+01:00"),
        ("Sat Nov 28 14:30:00 CET 2026", "2026-11-28 14:30:00+01:00"),
        ("Sat, 28 Nov 2026 14:30:00 +0100", "2026-11-28 14:30:00+01:00"),
        ("14:30", "2026-11-29 14:30:00+01:00"),
        ("00:30:15.25", "2026-11-29 00:30:15.25+01:00"),
        ("2pm", "2026-11-29 14:00:00+01:00"),
        ("12am", "2026-11-29 00:00:00+01:00"),
        ("today 00:30", "2026-11-29 00:30:00+01:00"),
        ("yesterday 14:30", "2026-11-28 14:30:00+01:00"),
        ("14:30 yesterday", "2026-11-28 14:30:00+01:00"),
        ("Yesterday at 2:30 pm", "2026-11-28 14:30:00+01:00"),
        ("tomorrow 14:30", "2026-11-30 14:30:00+01:00"),
        // There it is still the day before.
        ("14:30Z", "2026-11-29 15:30:00+01:00"),
        ("14:30 America/New_York", "2026-11-28 20:30:00+01:00"),
        ("-2h", "2026-11-28 23:15:00+01:00"),
        ("- 90 min", "2026-11-28 23:45:00+01:00"),
        ("2 hours ago", "2026-11-28 23:15:00+01:00"),
        ("an hour ago", "2026-11-29 00:15:00+01:00"),
        ("1h30m ago", "2026-11-28 23:45:00+01:00"),
        ("1 day, 2 hours and 15 minutes ago", "2026-11-27 23:00:00+01:00"),
        ("in 2 days", "2026-12-01 01:15:00+01:00"),
        ("+1w", "2026-12-06 01:15:00+01:00"),
        // The days since then had 23, 24 and 25 hours: the time of day stays.
        ("60d ago", "2026-09-30 01:15:00+02:00"),
        ("1795911300", "2026-11-29 01:15:00+01:00"),
        ("@1795911300.5", "2026-11-29 01:15:00.5+01:00"),
        ("1795911300250", "2026-11-29 01:15:00.25+01:00"),
        ("1795911300000001", "2026-11-29 01:15:00.000001+01:00"),
        ("2026-07-01 14:30 CEST", "2026-07-01 14:30:00+02:00"),
        ("2026-10-25 02:30 CEST", "2026-10-25 02:30:00+02:00"),
        ("2026-10-25 02:30 CET", "2026-10-25 02:30:00+01:00"),
        ("2026-11-28T14:30:00+01:00[Europe/Berlin]", "2026-11-28 14:30:00+01:00"),
        ("2026-01-29-05", "2026-01-29 06:00:00+01:00"),
    ] {
        assert_eq!(at(text).as_deref(), Ok(wanted), "{text}");
    }
}

#[test]
fn what_may_mean_two_things_is_refused_with_both() {
    for (text, words) in [
        ("05/11/2026", &["2026-11-05", "2026-05-11"][..]),
        ("2026-10-25 02:30:00", &["twice", "2026-10-25 02:30:00+02", "2026-10-25 02:30:00+01"]),
        ("25.10.2026 02:30", &["2026-10-25 02:30:00+02", "2026-10-25 02:30:00+01"]),
        ("2026-03-29 02:30", &["did not exist", "2026-03-29 02:30:00+01", "2026-03-29 02:30:00+02"]),
        ("yesterday", &["whole day", "yesterday 14:30"]),
        ("tomorrow", &["whole day"]),
        ("monday 14:30", &["last one or the next"]),
        ("Sun Nov 28 14:30:00 2026", &["is a saturday"]),
        ("2 months ago", &["no one length"]),
        ("now", &["latest"]),
        ("731", &["xid:731"]),
        ("0/3000148", &["lsn:0/3000148"]),
        ("28.11.26 14:30", &["four digits"]),
        ("1795911300000000000", &["nanoseconds", "1795911300"]),
        ("2026-07-01 14:30 CET", &["did not show CET"]),
        ("2026-07-01 14:30 PST", &["PST is no time zone known here", "+01 always works"]),
        ("2026-11-28T14:30:00+02:00[Europe/Berlin]", &["was not at +02:00"]),
        ("2026-01-29 14:30:00.1234567", &["six digits"]),
        ("gestern", &["no time"]),
    ] {
        let error = at(text).expect_err(text);
        let said = format!("{}; {}", error.message, error.hint);
        for word in words.iter() {
            assert!(said.contains(word), "{text}: {said} lacks {word}");
        }
    }
}

#[test]
fn what_is_no_moment_is_refused() {
    for bad in [
        "",
        " ",
        "2026-13-01",
        "2026-02-30",
        "2026-01-29 25:00",
        "24:00",
        "14:60",
        "14:30:61",
        "2026-01-29 14:30+99",
        "2026-01-29 14:30+1",
        "2026-01-29 14:30 Mars/Olympus",
        "2026-01-29 14:30+01:0",
        "2026-11",
        "1.2",
        "1/2/3/4",
        "14:30 14:31",
        "2026-11-28 yesterday 14:30",
        "13 pm",
        "0am",
        "-",
        "+",
        "ago",
        "2 fortnights ago",
        "-99999999999999999999h",
        "2026-01-29 14:30 +01 +02",
        "14:",
        ":30",
        "2026-11-28x",
        "2026-11-28 14:30:00.",
        "99999999",
        "é",
        "[",
        "]",
        "28 Nov 14:30",
        "2026-11.28",
        "@",
        "@x",
        "0000-00-00",
    ] {
        assert!(at(bad).is_err(), "{bad}: {:?}", at(bad));
    }
}

#[test]
fn without_a_known_zone_only_what_needs_none_is_understood() {
    let unknown = Reading { now: NOW, zone: None, zones: &zones };
    for good in
        ["2026-01-29 14:30+01", "2026-01-29T14:30Z", "-2h", "1795911300", "2026-01-29 14:30 Europe/Berlin"]
    {
        assert!(read(good, &unknown).is_ok(), "{good}");
    }
    for bad in ["2026-01-29 14:30", "2026-01-29", "14:30", "yesterday 14:30", "29.01.2026 14:30"] {
        let error = read(bad, &unknown).expect_err(bad);
        assert!(error.message.contains("not known") && error.hint.contains("TZ"), "{bad}: {error:?}");
    }
}

proptest::proptest! {
    /// What is shown back is understood as the same moment; and nothing that anybody types makes it fall over.
    #[test]
    fn what_is_shown_is_read_again(micros in 0_i64..4_102_444_800_000_000, odd in ".{0,40}") {
        let shown = stamp(Micros(micros)).unwrap().to_zoned(berlin()).strftime("%Y-%m-%d %H:%M:%S.%6f %:z").to_string();
        let zone = berlin();
        let reading = Reading { now: NOW, zone: Some(&zone), zones: &zones };
        proptest::prop_assert_eq!(read(&shown, &reading), Ok(Micros(micros)));
        let _ = read(&odd, &reading);
    }
}
