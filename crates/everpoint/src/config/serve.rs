//! `[schedule]` and `[serve]`: what the daemon does by itself, and when.

use std::path::{Path, PathBuf};

use everpoint_core::Schedule;
use jiff::tz::TimeZone;

use super::Variables;
use super::container::enabled;
use super::mistake::Mistake;
use super::section::Section;

/// When each kind of job runs; `None`: never.
#[derive(Debug, Clone)]
pub(crate) struct Schedules {
    /// Zone of the expressions and of the names of bundles.
    pub(crate) zone: TimeZone,
    /// `BACKUP_ENABLED`: whether anything but checks runs by itself.
    pub(crate) enabled: bool,
    pub(crate) backup: Option<Schedule>,
    pub(crate) package: Option<Schedule>,
    pub(crate) bundle: Option<Schedule>,
    pub(crate) check: Option<Schedule>,
}

/// `[serve]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServeConfig {
    /// Directory of what the daemon remembers; nothing in it is a source of truth.
    pub(crate) state_dir: Option<PathBuf>,
    /// A slot that holds back more bytes than this, because nothing can be stored, is given up.
    pub(crate) max_retained: Option<u64>,
}

/// What runs when, unless the file or the environment says otherwise.
const BACKUP: &str = "0 2 * * *";
const PACKAGE: &str = "0 3 * * *";
const BUNDLE: &str = "5 * * * *";
const CHECK: &str = "30 * * * *";

impl Default for Schedules {
    fn default() -> Self {
        let parse = |text| Schedule::parse(text, &TimeZone::UTC).ok();
        Self {
            zone: TimeZone::UTC,
            enabled: true,
            backup: parse(BACKUP),
            package: parse(PACKAGE),
            bundle: parse(BUNDLE),
            check: parse(CHECK),
        }
    }
}

impl Schedules {
    /// When backups are taken; `None`: never by themselves.
    pub(crate) fn of_backups(&self) -> Option<Schedule> {
        self.backup.clone().filter(|_| self.enabled)
    }

    /// Reads `[schedule]`, or takes the defaults; the variables of containers come after the file.
    pub(super) fn read(section: Option<&mut Section<'_>>, variables: Variables<'_>) -> Result<Self, Mistake> {
        let (base, package) = container(variables)?;
        let enabled = enabled(variables)?;
        let Some(section) = section else {
            let parse = |text: &str| {
                Schedule::parse(text, &TimeZone::UTC).map(Some).map_err(|why| Mistake::new(0..0, why))
            };
            return Ok(Self { backup: parse(&base)?, package: parse(&package)?, enabled, ..Self::default() });
        };
        let zone = zone(section).unwrap_or(TimeZone::UTC);
        let mut read = |key: &'static str, default: &str| -> Option<Schedule> {
            let Some(text) = section.text(key) else { return Schedule::parse(default, &zone).ok() };
            if text.value == "off" {
                return None;
            }
            match Schedule::parse(&text.value, &zone) {
                Ok(schedule) => Some(schedule),
                Err(why) => {
                    let mistake = Mistake::new(text.at, format!("`{key}` is no cron expression: {why}"));
                    section.mistake(mistake.hint(
                        "write minute, hour, day, month, day of the week, e.g. \"0 2 * * *\"; or \"off\"",
                    ));
                    None
                }
            }
        };
        Ok(Self {
            backup: read("backup", &base),
            package: read("package", &package),
            bundle: read("bundle", BUNDLE),
            check: read("check", CHECK),
            enabled,
            zone,
        })
    }
}

fn zone(section: &mut Section<'_>) -> Option<TimeZone> {
    let text = section.text("zone")?;
    let found = crate::zone::named(&text.value);
    if found.is_none() {
        let mistake = Mistake::new(text.at, format!("there is no time zone \"{}\"", text.value));
        section.mistake(mistake.hint("write it like \"Europe/Berlin\" or \"UTC\""));
    }
    found
}

/// `BACKUP_HOUR` of the container world is the hour of the package; the base backup runs an hour before.
fn container(variables: Variables<'_>) -> Result<(String, String), Mistake> {
    let Some(text) = variables("BACKUP_HOUR").filter(|text| !text.trim().is_empty()) else {
        return Ok((BACKUP.to_owned(), PACKAGE.to_owned()));
    };
    match text.trim().parse::<u32>() {
        Ok(hour) if hour < 24 => Ok((format!("0 {} * * *", (hour + 23) % 24), format!("0 {hour} * * *"))),
        _ => Err(Mistake::new(0..0, "the variable BACKUP_HOUR is no hour of a day")
            .hint("set it to a number from 0 to 23")),
    }
}

impl ServeConfig {
    pub(super) fn read(section: &mut Section<'_>, base: &Path) -> Self {
        Self { state_dir: section.path("state_dir", base), max_retained: section.bytes("max_retained") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hour_of_containers_is_that_of_the_package_and_the_backup_comes_before() {
        let at = |hour: &'static str| {
            let read = Schedules::read(None, &move |name| (name == "BACKUP_HOUR").then(|| hour.to_owned()));
            read.map(|schedules| {
                [schedules.backup, schedules.package].map(|schedule| schedule.unwrap().text().to_owned())
            })
        };
        assert_eq!(at("3").unwrap(), ["0 2 * * *", "0 3 * * *"]);
        assert_eq!(at("0").unwrap(), ["0 23 * * *", "0 0 * * *"]);
        assert!(at("24").is_err() && at("noon").is_err());
    }
}
