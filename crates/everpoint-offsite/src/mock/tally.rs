//! What the mock counts: every upload whose head arrived, by day and within any 24 hours.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// Microseconds of 24 hours.
const DAY: i64 = 86_400_000_000;
/// Where the calls are recorded, one JSON object a line.
const RECORD: &str = ".calls.jsonl";

/// Within what the calls of the mock are counted.
#[derive(Debug, Clone)]
pub enum MockPeriod {
    /// A calendar day of a zone.
    Day(TimeZone),
    /// Any 24 hours.
    Rolling,
}

/// One upload that reached the mock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// When, microseconds since 1970 UTC by the mock's clock.
    pub at: i64,
    /// Path of its address.
    pub path: String,
    /// It was one too many, and was refused.
    pub refused: bool,
}

/// What the mock has counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MockStats {
    /// The mock's time, RFC 3339.
    pub now: String,
    /// Uploads that it takes in a period.
    pub calls: u32,
    /// `day` or `24h`.
    pub period: String,
    /// Zone of the calendar day, where one has a name.
    pub zone: Option<String>,
    /// All requests of any kind that reached it since it was started.
    pub requests: u64,
    /// Uploads that reached it, refused and failed ones too, oldest first.
    pub uploads: Vec<Upload>,
    /// Of these, those that it refused as too many.
    pub refused: u64,
    /// Uploads by calendar day of the zone (of UTC, where it counts within any 24 hours).
    pub by_day: BTreeMap<String, u32>,
    /// Most uploads in one of these days.
    pub most_in_a_day: u32,
    /// Most uploads within any 24 hours.
    pub most_in_24h: u32,
    /// Bytes that it keeps.
    pub kept_bytes: u64,
}

/// The record of calls.
pub(super) struct Tally {
    file: File,
    calls: u32,
    period: MockPeriod,
    uploads: Vec<Upload>,
    pub(super) requests: u64,
}

impl Tally {
    /// Opens the record in `dir`, and reads what is there.
    pub(super) fn open(dir: &Path, calls: u32, period: MockPeriod) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(dir.join(RECORD))?;
        let mut uploads = Vec::new();
        for line in BufReader::new(&file).lines() {
            uploads.push(serde_json::from_str(&line?)?);
        }
        Ok(Self { file, calls, period, uploads, requests: 0 })
    }

    /// Counts an upload; whether it may go on.
    pub(super) fn upload(&mut self, at: i64, path: &str) -> io::Result<bool> {
        let taken = self.uploads.iter().filter(|upload| !upload.refused && self.together(upload.at, at));
        let refused = taken.count() >= usize::try_from(self.calls).unwrap_or(usize::MAX);
        let upload = Upload { at, path: path.to_owned(), refused };
        let mut line = serde_json::to_string(&upload)?;
        line.push('\n');
        self.file.write_all(line.as_bytes())?;
        self.uploads.push(upload);
        Ok(!refused)
    }

    /// Whether two moments count together.
    fn together(&self, earlier: i64, later: i64) -> bool {
        match &self.period {
            MockPeriod::Day(zone) => day(earlier, zone) == day(later, zone),
            MockPeriod::Rolling => earlier.abs_diff(later) < DAY.unsigned_abs(),
        }
    }

    pub(super) fn stats(&self, now: i64, kept_bytes: u64) -> MockStats {
        let (period, zone) = match &self.period {
            MockPeriod::Day(zone) => ("day", zone.clone()),
            MockPeriod::Rolling => ("24h", TimeZone::UTC),
        };
        let mut by_day = BTreeMap::new();
        for upload in &self.uploads {
            *by_day.entry(day(upload.at, &zone)).or_insert(0) += 1;
        }
        MockStats {
            now: moment(now).to_string(),
            calls: self.calls,
            period: period.to_owned(),
            zone: zone.iana_name().map(str::to_owned),
            requests: self.requests,
            refused: self.uploads.iter().filter(|upload| upload.refused).count() as u64,
            most_in_a_day: by_day.values().copied().max().unwrap_or_default(),
            most_in_24h: most_within(self.uploads.iter().map(|upload| upload.at).collect(), DAY),
            uploads: self.uploads.clone(),
            by_day,
            kept_bytes,
        }
    }
}

/// A moment that jiff can hold.
pub(super) fn moment(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX)
}

fn day(micros: i64, zone: &TimeZone) -> String {
    moment(micros).to_zoned(zone.clone()).date().to_string()
}

/// The most of these moments that lie within less than `width` of each other.
fn most_within(mut moments: Vec<i64>, width: i64) -> u32 {
    moments.sort_unstable();
    let mut most = 0;
    for (index, last) in moments.iter().enumerate() {
        let first = moments.partition_point(|moment| *moment <= last.saturating_sub(width));
        most = most.max(index + 1 - first);
    }
    u32::try_from(most).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_within_a_day_is_found_wherever_it_lies() {
        let hour = DAY / 24;
        assert_eq!(most_within(vec![], DAY), 0);
        assert_eq!(most_within(vec![0, DAY, 2 * DAY], DAY), 1);
        assert_eq!(most_within(vec![DAY - 1, 0, 3 * DAY], DAY), 2);
        assert_eq!(most_within(vec![0, 23 * hour, 46 * hour, 47 * hour, 46 * hour], DAY), 3);
    }

    #[test]
    fn a_restart_forgets_no_call() {
        let dir = tempfile::tempdir().unwrap();
        let zone = || MockPeriod::Day(TimeZone::get("Europe/Berlin").unwrap());
        let mut tally = Tally::open(dir.path(), 1, zone()).unwrap();
        assert!(tally.upload(0, "/a").unwrap());
        drop(tally);
        let mut again = Tally::open(dir.path(), 1, zone()).unwrap();
        assert!(!again.upload(1, "/b").unwrap());
        // 1970-01-01 23:00 UTC is the next day in Berlin.
        assert!(again.upload(23 * DAY / 24, "/c").unwrap());
        let stats = again.stats(0, 0);
        assert_eq!((stats.refused, stats.most_in_a_day, stats.most_in_24h), (1, 2, 3));
    }

    #[test]
    fn within_24_hours_midnight_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut tally = Tally::open(dir.path(), 2, MockPeriod::Rolling).unwrap();
        assert!(tally.upload(0, "/a").unwrap());
        assert!(tally.upload(DAY - 1, "/b").unwrap());
        assert!(!tally.upload(DAY - 1, "/c").unwrap());
        assert!(tally.upload(DAY, "/d").unwrap());
    }
}
