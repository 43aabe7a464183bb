//! What the source's own log says about the ends of transactions.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, bail, ensure};

use crate::{Account, PgInstall, Scratch, xact_log};

/// A commit or abort record, including those of prepared transactions and of rolled back savepoints: all of them count
/// where PostgreSQL looks for the end of a recovery to a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Where its record starts.
    pub lsn: u64,
    /// Transaction id.
    pub xid: u32,
    /// Time in the record: microseconds of the Unix epoch.
    pub time: i64,
    /// It committed.
    pub committed: bool,
}

/// The ends of transactions in the order of the log.
#[derive(Debug, Clone, Default)]
pub struct History {
    ends: Vec<Ended>,
}

impl History {
    /// Reads the log files of one timeline in `directory` (a `pg_wal`, or an archive) from position `from` to the end of
    /// what is there, with `pg_waldump`, or, for a version that comes without it, with a small reader of the testkit's
    /// own that is tested against `pg_waldump`.
    ///
    /// # Errors
    /// If the log does not reach `until`, or is not understood.
    pub fn read(install: &PgInstall, directory: &Path, timeline: u32, from: u64, until: u64) -> Result<Self> {
        let ends = if install.tool("pg_waldump").is_ok() {
            by_waldump(install, directory, timeline, from, until)?
        } else {
            xact_log::read(directory, timeline, from, until)?
        };
        Ok(Self { ends })
    }

    /// All of them, in the order of the log.
    #[must_use]
    pub fn ends(&self) -> &[Ended] {
        &self.ends
    }

    /// What PostgreSQL promises to a recovery to the moment `at` (microseconds of the Unix epoch): everything before the
    /// first commit or abort that is later than it.
    #[must_use]
    pub fn until_time(&self, at: i64) -> &[Ended] {
        let count = self.ends.iter().position(|end| end.time > at).unwrap_or(self.ends.len());
        self.ends.get(..count).unwrap_or_default()
    }

    /// Everything whose record starts before `lsn`.
    #[must_use]
    pub fn before_lsn(&self, lsn: u64) -> &[Ended] {
        let count = self.ends.iter().position(|end| end.lsn >= lsn).unwrap_or(self.ends.len());
        self.ends.get(..count).unwrap_or_default()
    }
}

fn by_waldump(
    install: &PgInstall,
    directory: &Path,
    timeline: u32,
    from: u64,
    until: u64,
) -> Result<Vec<Ended>> {
    let dump = |directory: &Path| -> Result<Output> {
        let mut command = Account::of_servers()?.command(install.tool("pg_waldump")?);
        command.env("TZ", "UTC").arg("-p").arg(directory).arg("-t").arg(timeline.to_string());
        // The end bound is not used: pg_waldump would stop there even if the log goes on, and where it does stop is checked.
        command.arg("-s").arg(print_lsn(from)).output().context("cannot run pg_waldump")
    };
    let mut done = dump(directory)?;
    if String::from_utf8_lossy(&done.stderr).contains("WAL segment size") {
        // It took the size from a file that was made in advance and is all zeros.
        done = dump(written_files(directory, timeline)?.path())?;
    }
    let complaint = String::from_utf8_lossy(&done.stderr);
    let text = String::from_utf8_lossy(&done.stdout);
    let segment_size = segment_size(directory, timeline)?;
    let mut ends = Vec::new();
    let mut last = 0;
    for line in text.lines() {
        let Some(lsn) = between(line, "lsn: ", ",").and_then(parse_lsn) else {
            continue;
        };
        // The rest of a segment after a switch is empty.
        last = if line.contains("desc: SWITCH") { lsn.next_multiple_of(segment_size) } else { lsn };
        if line.starts_with("rmgr: Transaction")
            && let Some(end) = parse_end(line, lsn)?
        {
            ends.push(end);
        }
    }
    // The log's end shows as a complaint about a record that is not there.
    ensure!(
        last > 0 && last.saturating_add(1 << 16) > until,
        "pg_waldump read to {} instead of {}: {complaint}",
        print_lsn(last),
        print_lsn(until)
    );
    Ok(ends)
}

/// An end of a transaction in a line of pg_waldump.
fn parse_end(line: &str, lsn: u64) -> Result<Option<Ended>> {
    let Some((_, description)) = line.split_once("desc: ") else { bail!("no description in {line:?}") };
    let (word, rest) = description.split_once(' ').unwrap_or((description, ""));
    let committed = word.starts_with("COMMIT");
    if !committed && !word.starts_with("ABORT") {
        return Ok(None);
    }
    // `COMMIT_PREPARED 731: 2026-...`: the record's own transaction id is that of no one.
    let (xid, when) = if word.ends_with("_PREPARED") {
        let (xid, when) = rest.split_once(": ").with_context(|| format!("no transaction in {line:?}"))?;
        (xid.trim().parse().ok(), when)
    } else {
        (between(line, "tx:", ",").and_then(|text| text.trim().parse().ok()), rest)
    };
    let time = parse_time(when).with_context(|| format!("no time in {line:?}"))?;
    let xid = xid.with_context(|| format!("no transaction in {line:?}"))?;
    Ok(Some(Ended { lsn, xid, time, committed }))
}

fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(before)?;
    rest.split_once(after).map(|(text, _)| text)
}

/// A time like `2026-01-29 14:30:00.123456 UTC`, as microseconds of the Unix epoch.
fn parse_time(text: &str) -> Option<i64> {
    let date = text.get(..10)?;
    let clock = text.get(11..26)?;
    let mut date = date.split('-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (seconds, micros) = clock.split_once('.')?;
    let mut seconds = seconds.split(':').map(str::parse::<i64>);
    let (hour, minute, second) = (seconds.next()?.ok()?, seconds.next()?.ok()?, seconds.next()?.ok()?);
    let day = days_of(year, month, day);
    Some((((day * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + micros.parse::<i64>().ok()?)
}

/// Days from 1970-01-01 to a day of the Gregorian calendar, for years from 1.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March put the leap day at their end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468
}

/// A moment (microseconds of the Unix epoch) as `2026-01-29 14:30:00.123456+00`.
#[must_use]
pub fn print_time(at: i64) -> String {
    let (day, of_day) = (at.div_euclid(86_400_000_000), at.rem_euclid(86_400_000_000));
    let mut year = 1970 + day / 366;
    while days_of(year + 1, 1, 1) <= day {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days_of(year, month + 1, 1) <= day {
        month += 1;
    }
    let date = day - days_of(year, month, 1) + 1;
    let (seconds, micros) = (of_day / 1_000_000, of_day % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{date:02} {hour:02}:{minute:02}:{second:02}.{micros:06}+00")
}

/// A position as PostgreSQL prints it.
#[must_use]
pub fn print_lsn(position: u64) -> String {
    format!("{:X}/{:X}", position >> 32, position & 0xFFFF_FFFF)
}

/// A position as PostgreSQL prints it, as a number.
#[must_use]
pub fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    Some(
        (u64::from(u32::from_str_radix(high, 16).ok()?) << 32)
            | u64::from(u32::from_str_radix(low, 16).ok()?),
    )
}

/// A directory with links to the log files of this timeline that anything was written to.
fn written_files(directory: &Path, timeline: u32) -> Result<Scratch> {
    let links = Scratch::new("written-log")?;
    for name in log_files(directory, timeline)? {
        let path = directory.join(&name);
        let mut head = [0; 2];
        let read = File::open(&path).and_then(|mut file| file.read_exact(&mut head));
        read.with_context(|| format!("cannot read {}", path.display()))?;
        if head != [0; 2] {
            symlink(&path, links.path().join(&name)).context("cannot make a link")?;
        }
    }
    Ok(links)
}

/// Size of the log files of this timeline.
pub(crate) fn segment_size(directory: &Path, timeline: u32) -> Result<u64> {
    let names = log_files(directory, timeline)?;
    let first = names.first().with_context(|| format!("no log in {}", directory.display()))?;
    let size = fs::metadata(directory.join(first))?.len();
    ensure!(size.is_power_of_two() && size >= 1 << 20, "{first} has an odd size, {size} bytes");
    Ok(size)
}

/// Names of the log files of this timeline, in order.
fn log_files(directory: &Path, timeline: u32) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_log = name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_log && name.starts_with(&format!("{timeline:08X}")) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_printed() {
        for (text, micros) in [
            ("1970-01-01 00:00:00.000000+00", 0),
            ("2000-02-29 23:59:59.999999+00", 951_868_799_999_999),
            ("2026-11-21 02:00:00.000001+00", 1_795_226_400_000_001),
            ("2027-12-31 12:00:00.500000+00", 1_830_254_400_500_000),
        ] {
            assert_eq!(print_time(micros), text);
            assert_eq!(parse_time(&text.replace("+00", " UTC")), Some(micros));
        }
    }

    #[test]
    fn positions_are_read_and_printed() {
        assert_eq!(parse_lsn("1/A0"), Some(0x1_0000_00A0));
        assert_eq!(print_lsn(0x1_0000_00A0), "1/A0");
        assert_eq!(parse_lsn("1-A0"), None);
    }

    #[test]
    fn a_moment_cuts_before_the_first_later_record_even_if_an_earlier_time_follows() {
        let end = |lsn, time, committed| Ended { lsn, xid: u32::try_from(lsn).unwrap(), time, committed };
        let history = History { ends: vec![end(1, 10, true), end(2, 30, false), end(3, 20, true)] };
        assert_eq!(history.until_time(25).len(), 1, "the abort at 30 stands before the commit at 20");
        assert_eq!(history.until_time(30).len(), 3);
        assert_eq!(history.until_time(9).len(), 0);
        assert_eq!(history.before_lsn(3).len(), 2);
    }
}
