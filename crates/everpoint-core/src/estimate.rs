//! How long a restore will take.

use std::time::Duration;

/// Rates that were measured, in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Image bytes written.
    pub restore: u64,
    /// Log bytes replayed.
    pub replay: u64,
}

/// The time for this many bytes of an image and of the log; `None` if a rate that matters is 0.
#[must_use]
pub fn estimate(image_bytes: u64, log_bytes: u64, rates: Rates) -> Option<Duration> {
    let seconds = |bytes: u64, rate: u64| match (bytes, rate) {
        (0, _) => Some(0.0),
        (_, 0) => None,
        _ => Some(bytes as f64 / rate as f64),
    };
    let total = seconds(image_bytes, rates.restore)? + seconds(log_bytes, rates.replay)?;
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_and_log_take_their_time_one_after_the_other() {
        let rates = Rates { restore: 200, replay: 50 };
        assert_eq!(estimate(1000, 100, rates), Some(Duration::from_secs(7)));
        assert_eq!(estimate(0, 25, rates), Some(Duration::from_millis(500)));
        assert_eq!(estimate(1, 0, Rates { restore: 0, replay: 1 }), None);
        assert_eq!(estimate(0, 0, Rates { restore: 0, replay: 0 }), Some(Duration::ZERO));
        assert_eq!(estimate(u64::MAX, u64::MAX, Rates { restore: 1, replay: 1 }), None);
    }
}
