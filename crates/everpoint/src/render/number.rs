//! Sizes and durations for people.

use std::time::Duration;

pub(crate) use everpoint_core::words::size;

/// `0.3 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `5 d 3 h`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// The same for a number of seconds; negative ones count as none.
pub(crate) fn seconds(seconds: f64) -> String {
    duration(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (wanted, time) in
            [("0.3 s", 0.3), ("9.9 s", 9.94), ("12 s", 12.9), ("3 min 5 s", 185.0), ("2 h 10 min", 7800.0)]
        {
            assert_eq!(seconds(time), wanted);
        }
        assert_eq!(seconds(-4.0), "0.0 s");
        assert_eq!(duration(Duration::from_secs(5 * 86_400 + 3 * 3600)), "5 d 3 h");
    }
}
