//! The clocks of this machine.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use everpoint_core::{BootClock, ClockReading, Micros};
use rustix::time::{ClockId, clock_gettime};

/// Reads the clocks; a test gives its own.
pub trait Clock: Send + Sync {
    /// The clocks now.
    fn read(&self) -> ClockReading;
}

/// The clocks of this machine. The time since boot goes on while it sleeps.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn read(&self) -> ClockReading {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let id = boot.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty());
        let elapsed = clock_gettime(ClockId::Boottime);
        let elapsed = Micros(elapsed.tv_sec.saturating_mul(1_000_000).saturating_add(elapsed.tv_nsec / 1000));
        ClockReading { wall, boot: id.map(|id| BootClock { id, elapsed }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_since_boot_goes_on_as_the_wall_clock_does() {
        let first = SystemClock.read();
        std::thread::sleep(std::time::Duration::from_millis(30));
        let second = SystemClock.read();
        let passed = second.since_boot_of(&first).unwrap();
        assert!((30_000..5_000_000).contains(&passed), "{passed}");
        assert!((second.wall.0 - first.wall.0 - passed).abs() < 1_000_000);
    }
}
