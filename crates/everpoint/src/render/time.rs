//! Moments in the machine's zone.

use everpoint_core::Micros;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `2026-01-29 14:30:00 +01:00`: to the second.
pub(crate) fn local(rfc3339: &str) -> String {
    rfc3339.parse::<Timestamp>().map_or_else(|_| rfc3339.to_owned(), |at| show(at, "%Y-%m-%d %H:%M:%S %:z"))
}

/// `2026-01-29 14:30:00.500000 +01:00`: to the microsecond, in `zone`.
pub(crate) fn exact(moment: Micros, zone: &TimeZone) -> String {
    Timestamp::from_microsecond(moment.0).map_or_else(
        |_| format!("{} us", moment.0),
        |at| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S.%6f %:z").to_string(),
    )
}

fn show(at: Timestamp, format: &str) -> String {
    at.to_zoned(TimeZone::system()).strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zone_is_shown() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        assert_eq!(exact(Micros(1_769_693_400_500_000), &berlin), "2026-01-29 14:30:00.500000 +01:00");
        assert_eq!(local("no time"), "no time");
    }
}
