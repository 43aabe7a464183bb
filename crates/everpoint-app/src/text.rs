//! How positions and moments are written in reports: one way for every command.

use everpoint_core::{LogOffset, Micros};

/// A position as PostgreSQL prints it: two hex numbers, high and low 32 bits.
#[must_use]
pub fn lsn(position: LogOffset) -> String {
    format!("{:X}/{:X}", position.0 >> 32, position.0 & 0xFFFF_FFFF)
}

/// A moment in RFC 3339 with microseconds, in UTC. A moment that no calendar holds is given as its number.
#[must_use]
pub fn time(moment: Micros) -> String {
    jiff::Timestamp::from_microsecond(moment.0).map_or_else(
        |_| format!("{} us", moment.0),
        |stamp| stamp.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
    )
}

/// The machine's clock.
#[must_use]
pub fn now() -> Micros {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_moments_print_as_documented() {
        assert_eq!(lsn(LogOffset(0x1_0300_0148)), "1/3000148");
        assert_eq!(lsn(LogOffset(0)), "0/0");
        assert_eq!(time(Micros(1_769_697_000_500_000)), "2026-01-29T14:30:00.500000Z");
        assert_eq!(time(Micros(0)), "1970-01-01T00:00:00.000000Z");
    }
}
