//! `[retention]`: what is kept. For all, for a repository, for a cluster; what stands nearer to a cluster counts.

use std::time::Duration;

use everpoint_app::expire::GRACE;
use everpoint_core::RetentionPolicy;
use jiff::tz::TimeZone;

use super::Variables;
use super::mistake::Mistake;
use super::section::Section;

/// Most days, and most backups of a kind.
const LONGEST: u32 = 100_000;
/// Seconds of a day.
const DAY: u64 = 86_400;

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
        let mut count =
            |key| table.number(key, 0..=u64::from(LONGEST)).and_then(|number| u32::try_from(number).ok());
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

    /// What this says, and where it says nothing, what the variables of the container world say, and the zone of schedules.
    pub(super) fn for_all(
        mut self,
        variables: Variables<'_>,
        zone: &TimeZone,
        mistakes: &mut Vec<Mistake>,
    ) -> Self {
        let mut days = |name: &str| -> Option<u32> {
            let text = variables(name).filter(|text| !text.trim().is_empty())?;
            let days = text.trim().parse().ok().filter(|days| *days <= LONGEST);
            if days.is_none() {
                let message = format!("{name} is not a number of days");
                mistakes.push(Mistake::new(0..0, message).hint("write it like 14"));
            }
            days
        };
        let (log, snapshots) = (days("WAL_RETENTION_DAYS"), days("SNAPSHOT_RETENTION_DAYS"));
        self.window_days = self.window_days.or(log);
        self.within = self.within.or(snapshots.map(|days| Duration::from_secs(u64::from(days) * DAY)));
        self.zone.get_or_insert_with(|| zone.clone());
        self
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

    /// Where days begin.
    fn zone(&self) -> TimeZone {
        self.zone.clone().unwrap_or(TimeZone::UTC)
    }
}

fn read_zone(table: &mut Section<'_>) -> Option<TimeZone> {
    let name = table.text("zone")?;
    match crate::zone::named(&name.value) {
        Some(zone) => Some(zone),
        None => {
            let message = format!("no time zone `{}` is known here", name.value);
            table.mistake(Mistake::new(name.at, message).hint("write it like Europe/Berlin or UTC"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    const FILE: &str = r#"
[repository.local]
url = "/x"
[repository.local.retention]
weekly = 12
[cluster.shop]
postgres = "postgres://db1/postgres"
[cluster.shop.retention]
monthly = 84
within = "2d"
[retention]
weekly = 1
window_days = 30
[schedule]
zone = "Europe/Berlin"
"#;

    fn parse(file: &str, variable: (&str, &str)) -> Result<Config, Vec<Mistake>> {
        let variables = |name: &str| (name == variable.0).then(|| variable.1.to_owned());
        Config::parse(file, Path::new("/etc/everpoint.toml"), &variables)
    }

    #[test]
    fn what_stands_nearer_to_a_cluster_counts() {
        let config = parse(FILE, ("", "")).unwrap();
        let of_repository = config.repositories["local"].retention.clone().within_wider(&config.retention);
        let policy = config.clusters["shop"].retention.clone().within_wider(&of_repository).policy();
        let expected = RetentionPolicy {
            within: Some(2 * 86_400 * 1_000_000),
            weekly: 12,
            monthly: 84,
            window_days: 30,
            zone: TimeZone::get("Europe/Berlin").unwrap(),
            ..RetentionPolicy::default()
        };
        assert_eq!(policy, expected);
    }

    #[test]
    fn variables_of_containers_come_after_the_file() {
        let days = |file, value| {
            parse(file, ("WAL_RETENTION_DAYS", value)).map(|config| config.retention.policy().window_days)
        };
        assert_eq!(days(FILE, "3").unwrap(), 30);
        assert_eq!(days("", "3").unwrap(), 3);
        assert!(days("", "many").is_err());
        let snapshots = parse("", ("SNAPSHOT_RETENTION_DAYS", "2")).unwrap();
        assert_eq!(snapshots.retention.policy().within, Some(2 * 86_400 * 1_000_000));
    }

    #[test]
    fn mistakes_are_told() {
        for bad in ["weekly = -1", "within = \"2\"", "zone = \"Atlantis\"", "hourly = 3"] {
            assert!(parse(&format!("[retention]\n{bad}\n"), ("", "")).is_err(), "{bad}");
        }
    }
}
