//! Sizes and durations for people.

use std::time::Duration;

/// `512 B`, `1.5 KiB`, `20.0 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

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
    fn sizes() {
        for (bytes, wanted) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (20 << 30, "20.0 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(size(bytes), wanted);
        }
    }

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
