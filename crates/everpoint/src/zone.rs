//! The machine's time zone, and zones by name: from the machine's database, or where that lacks them from the one in this
//! program.

use everpoint_app::text::now;
use everpoint_core::Micros;
use everpoint_core::when::Reading;
use jiff::tz::{TimeZone, TimeZoneDatabase};

/// What every Unix says about its own zone.
const LOCALTIME: &str = "/etc/localtime";
/// Behind this the name of a zone follows.
const DATABASE: &str = "zoneinfo/";

/// The zone of this name.
pub(crate) fn named(name: &str) -> Option<TimeZone> {
    let found = TimeZone::get(name).or_else(|_| TimeZoneDatabase::bundled().get(name)).ok();
    found.filter(|zone| !zone.is_unknown())
}

/// The machine's zone; `None` if nothing says it, or what says it names none. That is not UTC.
pub(crate) fn machine() -> Option<TimeZone> {
    let named_in = |text: &str| {
        let text = text.strip_prefix(':').unwrap_or(text);
        named(text.rsplit_once(DATABASE).map_or(text, |(_, name)| name))
    };
    let found = TimeZone::try_system().ok().or_else(|| match std::env::var("TZ") {
        Ok(name) => named_in(&name),
        Err(std::env::VarError::NotPresent) => {
            std::fs::read_link(LOCALTIME).ok()?.to_str().and_then(named_in)
        }
        Err(_) => None,
    });
    found.filter(|zone| !zone.is_unknown())
}

/// The zone in which moments are shown: the machine's, or UTC where that is not known. Either is shown with its offset.
pub(crate) fn shown() -> TimeZone {
    machine().unwrap_or(TimeZone::UTC)
}

/// What moments are read with.
pub(crate) struct Clock {
    pub(crate) now: Micros,
    pub(crate) zone: Option<TimeZone>,
}

impl Clock {
    /// The machine's.
    pub(crate) fn machine() -> Self {
        Self { now: now(), zone: machine() }
    }

    /// The machine's clock, in UTC.
    pub(crate) fn utc() -> Self {
        Self { now: now(), zone: Some(TimeZone::UTC) }
    }

    pub(crate) fn reading(&self) -> Reading<'_> {
        Reading { now: self.now, zone: self.zone.as_ref(), zones: &named }
    }

    /// In what moments are shown back.
    pub(crate) fn shown(&self) -> TimeZone {
        self.zone.clone().unwrap_or(TimeZone::UTC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_has_a_database_of_its_own() {
        let bundled = TimeZoneDatabase::bundled();
        for name in ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "US/Pacific", "UTC"] {
            assert!(bundled.get(name).is_ok(), "{name}");
        }
        assert!(named("Mars/Olympus").is_none() && named("Etc/Unknown").is_none() && named("").is_none());
    }
}
