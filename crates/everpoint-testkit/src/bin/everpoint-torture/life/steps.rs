//! The steps that restore: in place and elsewhere.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use everpoint_testkit::{Address, Writers, print_time};

use super::checks::{check_pages, text};
use super::plan::Step;
use super::server::{Server, copy_tree};
use super::world::{CLUSTER, Life};

/// Where a restore leads.
#[derive(Debug, Clone, Copy)]
enum Target {
    Latest,
    Moment(i64),
    /// A moment on a timeline that production has left.
    Left(u32, i64),
}

impl Target {
    fn to(self) -> String {
        match self {
            Self::Latest => "latest".to_owned(),
            Self::Moment(at) | Self::Left(_, at) => print_time(at),
        }
    }
}

impl Life {
    /// Does a step.
    pub(super) fn step(&mut self, step: Step, upgrade: u32) -> Result<()> {
        match step {
            Step::Backup => {
                let writers = self.writers()?;
                let done = self.backup(&[]);
                self.note(writers)?;
                done
            }
            Step::InPlaceLatest => self.in_place(Target::Latest),
            Step::InPlaceMoment => self.in_place_moment(),
            Step::InPlaceBeforeFork => self.in_place_before_fork(),
            Step::InPlaceBeforeTablespace => self.in_place_before_tablespace(),
            Step::InPlaceForward => self.in_place_forward(),
            Step::InPlaceTwice => {
                self.in_place_moment()?;
                let pause = self.random.below(3);
                if pause > 0 {
                    self.write(pause * 100)?;
                }
                if self.random.chance(40) { self.in_place_forward() } else { self.in_place_moment() }
            }
            Step::Copy => self.copy(),
            Step::CopyRefreshed => self.copy_refreshed(),
            Step::SeededCopy => self.seeded_copy(),
            Step::Failover => self.failover(false),
            Step::FailoverAfterCrash => self.failover(true),
            Step::NewStandby => self.new_standby(),
            Step::Adopt => self.adopt(),
            Step::TablespaceCreated => self.tablespace_created(),
            Step::TablespaceFilled => self.tablespace_filled(),
            Step::TablespaceDropped => self.tablespace_dropped(),
            Step::Upgrade => self.upgrade(upgrade),
            Step::SwitchLog => self.production.psql("SELECT pg_switch_wal()").map(drop),
            Step::Checkpoint => self.production.psql("CHECKPOINT").map(drop),
            Step::Crash => self.crash(),
        }
    }

    fn moment(&mut self) -> Result<i64> {
        let here = self.here()?;
        self.chronicle.moment(&mut self.random, here, |_, _| true).context("there is no moment to restore to")
    }

    fn in_place_moment(&mut self) -> Result<()> {
        let at = self.moment()?;
        self.in_place(Target::Moment(at))
    }

    fn in_place_before_fork(&mut self) -> Result<()> {
        let (here, era) = (self.here()?, self.era);
        match self.chronicle.moment(&mut self.random, here, |_, number| number != era) {
            Some(at) => self.in_place(Target::Moment(at)),
            None => self.in_place_moment(),
        }
    }

    fn in_place_before_tablespace(&mut self) -> Result<()> {
        let (here, table) = (self.here()?, self.random.chance(30));
        match self.chronicle.before_tablespace(here, table) {
            Some(at) => self.in_place(Target::Moment(at)),
            None => self.in_place_moment(),
        }
    }

    fn in_place_forward(&mut self) -> Result<()> {
        let here = self.here()?;
        match self.chronicle.left_behind(&mut self.random, here) {
            Some((point, at)) => {
                let timeline = self.chronicle.era(point.era)?.timeline;
                self.in_place(Target::Left(timeline, at))
            }
            None => self.in_place_moment(),
        }
    }

    /// Restores production in place, after a clean stop or a crash; the restore or the operator starts it.
    fn in_place(&mut self, target: Target) -> Result<()> {
        let places = self.production.tablespaces()?;
        let crashed = self.random.chance(25);
        if crashed {
            self.crash_under_writers()?;
        } else {
            self.production.stop()?;
        }
        let here = self.here()?;
        let wanted = match target {
            Target::Latest => here,
            Target::Moment(at) => self.chronicle.at_time(here, at),
            Target::Left(timeline, at) => {
                let left =
                    self.chronicle.of_timeline(self.generation, timeline).context("no such timeline")?;
                self.chronicle.at_time(self.chronicle.end(left)?, at)
            }
        };
        let starts = self.random.chance(50);
        let stopped = if crashed { "after a crash" } else { "after a clean stop" };
        self.say(&format!("in place to {target:?}, {stopped}"));
        self.restore_in_place(target, starts)?;
        if !starts {
            self.production.start(&[])?;
        }
        self.production.wait_writable()?;
        self.new_era(wanted)?;
        self.verify(&self.production, wanted).context("production, restored in place")?;
        for (name, oid, place) in self.production.tablespaces()? {
            let same = |(known, old, _): &&(String, String, PathBuf)| *known == name && *old == oid;
            let moved = places.iter().find(same).filter(|(_, _, was)| *was != place);
            ensure!(moved.is_none(), "tablespace {name} lies in {} now, before: {moved:?}", place.display());
        }
        self.write(300)
    }

    fn restore_in_place(&mut self, target: Target, starts: bool) -> Result<()> {
        let (data, to) = (self.production.data.clone(), target.to());
        let mut arguments =
            vec!["--json", "restore", CLUSTER, text(&data)?, "--delta", "--replace-production", "--to", &to];
        let timeline =
            if let Target::Left(timeline, _) = target { timeline.to_string() } else { String::new() };
        if !timeline.is_empty() {
            arguments.extend(["--timeline", &timeline]);
        }
        if starts {
            arguments.push("--start");
        }
        let ran = self.everpoint.try_run(&arguments)?;
        if ran.status.success() {
            return Ok(());
        }
        let told = ran.told(&arguments);
        // Where not every process can be seen, a crashed server's file proves nothing, and the way out is named.
        if ran.status.code() == Some(2) && told.contains("--server-is-stopped") {
            arguments.push("--server-is-stopped");
            return self.run(&arguments).map(drop);
        }
        bail!("{told}")
    }

    fn copy(&mut self) -> Result<()> {
        let place = self.place("copy");
        self.copy_to(place, &[])
    }

    /// Restores a copy to a random moment, judges it, and leaves it stopped.
    fn copy_to(&mut self, place: PathBuf, more: &[&str]) -> Result<()> {
        let at = self.moment()?;
        let point = self.chronicle.at_time(self.here()?, at);
        if let Some(old) = self.copy.take().filter(|old| old.data != place) {
            let data = old.data.clone();
            drop(old);
            self.remove(&data)?;
        }
        let copy = self.apart(|life| {
            let copy = life.restore_copy(place, &print_time(at), more)?;
            life.verify(&copy, point).context("the copy")?;
            Ok(copy)
        })?;
        copy.stop()?;
        check_pages(&copy)?;
        self.copy = Some(copy);
        Ok(())
    }

    /// The copy is written to, stopped, and brought to another moment.
    fn copy_refreshed(&mut self) -> Result<()> {
        if self.copy.is_none() {
            self.copy()?;
        }
        let copy = self.copy.take().context("no copy")?;
        self.write_on(&copy)?;
        let place = copy.data.clone();
        self.copy = Some(copy);
        self.copy_to(place, &["--delta"])
    }

    /// Somebody works on a copy: none of that may ever be seen again.
    fn write_on(&mut self, copy: &Server) -> Result<()> {
        copy.start(&[])?;
        copy.wait_writable()?;
        let options = self.writing();
        let writers = Writers::start(Address::Loopback(copy.port.number()), &options)?;
        sleep(Duration::from_millis(400));
        let record = writers.stop();
        if record.acknowledged().count() == 0 {
            bail!("nothing could be written on the copy: {:?}", record.refusals);
        }
        copy.psql("CREATE TABLE of_the_copy AS SELECT 1 AS one")?;
        copy.psql("SELECT pg_switch_wal()")?;
        copy.stop()
    }

    /// A copy of production's files, links included, is what a restore begins with.
    fn seeded_copy(&mut self) -> Result<()> {
        self.production.stop()?;
        let place = self.place("seed");
        copy_tree(&self.production.data, &place)?;
        self.production.start(&[])?;
        self.write(200)?;
        self.settle()?;
        self.copy_to(place, &["--delta"])
    }

    fn crash(&mut self) -> Result<()> {
        self.crash_under_writers()?;
        self.production.start(&[])?;
        self.production.wait_writable()?;
        self.write(200)
    }

    /// Kills production while writers write.
    pub(super) fn crash_under_writers(&mut self) -> Result<()> {
        let writers = self.writers()?;
        sleep(Duration::from_millis(300));
        let flushed = self.production.flushed()?;
        self.production.kill9()?;
        self.note(writers)?;
        self.read_dead_log(flushed)
    }
}
