//! `[retention]`: what is kept. For all, for a repository, for a cluster; what stands nearer to a cluster counts.

use std::time::Duration;

use everpoint_app::expire::GRACE;
use everpoint_core::RetentionPolicy;
use jiff::tz::TimeZone;

use super::mistake::Mistake;
use super::section::Section;

/// What one table says; what it does not say is taken from the next wider one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Retention {
    last: Option<u32>,
    within: Option<Duration>,
    daily: Option<u32>,
    weekly: Option<u32>,
    monthly: Option<u32>,
    yearly: Option<u32>,
    window_days: Option<u32>,
    failed_days: Option<u32>,
    grace: Option<Duration>,
    zone: Option<TimeZone>,
}

impl Retention {
    /// Reads the table `retention` of a section, if it has one.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let Some(mut table) = section.table("retention") else {
            return Self::default();
        };
        let mut count = |key| table.number(key, 0..=100_000).and_then(|number| u32::try_from(number).ok());
        let found = Self {
            last: count("last"),
            daily: count("daily"),
            weekly: count("weekly"),
            monthly: count("monthly"),
            yearly: count("yearly"),
            window_days: count("window_days"),
            failed_days: count("failed_days"),
            within: table.seconds("within").map(Duration::from_secs),
            grace: table.seconds("grace").map(Duration::from_secs),
            zone: read_zone(&mut table),
        };
        table.finish().into_iter().for_each(|mistake| section.mistake(mistake));
        found
    }

    /// What this says, and `wider` where this says nothing.
    pub(crate) fn within_wider(self, wider: &Self) -> Self {
        let wider = wider.clone();
        Self {
            last: self.last.or(wider.last),
            within: self.within.or(wider.within),
            daily: self.daily.or(wider.daily),
            weekly: self.weekly.or(wider.weekly),
            monthly: self.monthly.or(wider.monthly),
            yearly: self.yearly.or(wider.yearly),
            window_days: self.window_days.or(wider.window_days),
            failed_days: self.failed_days.or(wider.failed_days),
            grace: self.grace.or(wider.grace),
            zone: self.zone.or(wider.zone),
        }
    }

    /// As a policy, with the defaults for what is said nowhere.
    pub(crate) fn policy(&self) -> RetentionPolicy {
        let usual = RetentionPolicy::default();
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        RetentionPolicy {
            last: self.last.unwrap_or(usual.last),
            within: self.within.map(micros).or(usual.within),
            daily: self.daily.unwrap_or(usual.daily),
            weekly: self.weekly.unwrap_or(usual.weekly),
            monthly: self.monthly.unwrap_or(usual.monthly),
            yearly: self.yearly.unwrap_or(usual.yearly),
            window_days: self.window_days.unwrap_or(usual.window_days),
            failed_days: self.failed_days.unwrap_or(usual.failed_days),
            zone: self.zone(),
        }
    }

    /// How long packs lie behind a tombstone.
    pub(crate) fn grace(&self) -> Duration {
        self.grace.unwrap_or(GRACE)
    }

    /// Where days begin, and the hours by which bundles are named.
    pub(crate) fn zone(&self) -> TimeZone {
        self.zone.clone().unwrap_or(TimeZone::UTC)
    }
}

fn read_zone(table: &mut Section<'_>) -> Option<TimeZone> {
    let name = table.text("zone")?;
    match TimeZone::get(&name.value) {
        Ok(zone) => Some(zone),
        Err(_) => {
            let message = format!("no time zone `{}` is known here", name.value);
            table.mistake(Mistake::new(name.at, message).hint("write it like Europe/Berlin or UTC"));
            None
        }
    }
}
