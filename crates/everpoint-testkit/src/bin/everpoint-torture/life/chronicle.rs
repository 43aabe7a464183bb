//! What production did on each of its branches, and what must be there at a point of one of them. Told by the writers and by
//! PostgreSQL's own log, never by Everpoint.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use everpoint_testkit::{
    ACCOUNTS, Effect, Ended, Expected, History, PgInstall, Random, Record, Told, Transaction,
};

/// What a committed transaction did.
#[derive(Debug, Clone)]
pub(super) enum Deed {
    /// Rows of the writers' tables.
    Work(Transaction),
    /// A table in a tablespace, by the number of both.
    Spot(u32, Change),
}

/// What became of a table in a tablespace of its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    /// Made, with so many rows.
    Create(u64),
    /// So many rows added.
    Fill(u64),
    Drop,
}

/// What a server must hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Holding {
    pub(super) rows: Expected,
    /// Rows of each table in a tablespace.
    pub(super) spots: BTreeMap<u32, u64>,
}

/// A place in the past: an era, and how many of its ends of transactions are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) era: usize,
    pub(super) ends: usize,
}

/// Production between two forks.
#[derive(Debug)]
pub(super) struct Era {
    pub(super) timeline: u32,
    /// Grows with each pg_upgrade: nothing is restored across it.
    pub(super) generation: u32,
    parent: Option<Point>,
    /// Its log begins here, at the start of a record.
    start: u64,
    ends: Vec<Ended>,
    deeds: BTreeMap<u32, Deed>,
    /// The repository was seen to hold its log to here.
    pub(super) stored: u64,
    /// Moments before this can't be restored to: there was no backup.
    pub(super) since: i64,
}

/// All eras; each knows its parent.
#[derive(Debug, Default)]
pub(super) struct Chronicle {
    eras: Vec<Era>,
}

impl Chronicle {
    /// Begins an era; `parent` is `None` only for the first.
    pub(super) fn begin(
        &mut self,
        timeline: u32,
        generation: u32,
        parent: Option<Point>,
        start: u64,
    ) -> usize {
        let since = i64::MIN;
        let (ends, deeds) = (Vec::new(), BTreeMap::new());
        self.eras.push(Era { timeline, generation, parent, start, ends, deeds, stored: start, since });
        self.eras.len() - 1
    }

    pub(super) fn era(&self, era: usize) -> Result<&Era> {
        self.eras.get(era).context("no such era")
    }

    pub(super) fn era_mut(&mut self, era: usize) -> Result<&mut Era> {
        self.eras.get_mut(era).context("no such era")
    }

    /// The newest era of a timeline.
    pub(super) fn of_timeline(&self, generation: u32, timeline: u32) -> Option<usize> {
        self.eras.iter().rposition(|era| era.generation == generation && era.timeline == timeline)
    }

    /// Adds what writers did.
    pub(super) fn add(&mut self, era: usize, record: Record) -> Result<()> {
        ensure!(record.refusals.is_empty(), "production refused its writers: {:?}", record.refusals);
        let era = self.era_mut(era)?;
        for done in record.transactions {
            era.deeds.insert(done.xid, Deed::Work(done));
        }
        Ok(())
    }

    pub(super) fn add_deed(&mut self, era: usize, xid: u32, deed: Deed) -> Result<()> {
        self.era_mut(era)?.deeds.insert(xid, deed);
        Ok(())
    }

    /// Reads the log of an era from its server's files. Nobody may be writing: what has not committed now never will, and
    /// after a crash its id belongs to somebody else.
    pub(super) fn read(&mut self, era: usize, install: &PgInstall, data: &Path, until: u64) -> Result<()> {
        let era = self.era_mut(era)?;
        let log = data.join("pg_wal");
        let history = History::read(install, &log, era.timeline, era.start, until)?;
        era.ends = history.ends().to_vec();
        let committed: BTreeMap<u32, ()> =
            era.ends.iter().filter(|end| end.committed).map(|end| (end.xid, ())).collect();
        for (xid, deed) in &era.deeds {
            let lost = matches!(deed, Deed::Work(done) if matches!(done.told, Told::Committed(_)));
            ensure!(!lost || committed.contains_key(xid), "production lost transaction {xid} by itself");
        }
        era.deeds.retain(|xid, _| committed.contains_key(xid));
        Ok(())
    }

    /// A number that no table had on any branch.
    pub(super) fn next_spot(&self) -> u32 {
        let deeds = self.eras.iter().flat_map(|era| era.deeds.values());
        let spots =
            deeds.filter_map(|deed| if let Deed::Spot(number, _) = deed { Some(*number) } else { None });
        spots.max().unwrap_or(0) + 1
    }

    /// The end of an era as far as it is known.
    pub(super) fn end(&self, era: usize) -> Result<Point> {
        Ok(Point { era, ends: self.era(era)?.ends.len() })
    }

    /// The point at a position of an era.
    pub(super) fn before(&self, era: usize, lsn: u64) -> Result<Point> {
        let ends = &self.era(era)?.ends;
        Ok(Point { era, ends: ends.iter().position(|end| end.lsn >= lsn).unwrap_or(ends.len()) })
    }

    /// The way to a point: from the first era on, how far each was followed.
    fn way(&self, point: Point) -> Vec<Point> {
        let mut way = vec![point];
        let mut at = point;
        while let Some(parent) = self.eras.get(at.era).and_then(|era| era.parent) {
            way.push(parent);
            at = parent;
        }
        way.reverse();
        way
    }

    fn ends_to(&self, point: Point) -> &[Ended] {
        self.eras.get(point.era).and_then(|era| era.ends.get(..point.ends)).unwrap_or_default()
    }

    /// Where a recovery to a moment stops that follows the way to `leaf`: before the first end that is later.
    pub(super) fn at_time(&self, leaf: Point, at: i64) -> Point {
        for part in self.way(leaf) {
            if let Some(ends) = self.ends_to(part).iter().position(|end| end.time > at) {
                return Point { era: part.era, ends };
            }
        }
        leaf
    }

    fn deeds(&self, point: Point) -> impl Iterator<Item = (usize, u32, &Deed)> {
        self.way(point).into_iter().flat_map(move |part| {
            let era = self.eras.get(part.era);
            let committed = self.ends_to(part).iter().filter(|end| end.committed);
            committed.filter_map(move |end| Some((part.era, end.xid, era?.deeds.get(&end.xid)?)))
        })
    }

    /// Whether the same work is in at both points.
    pub(super) fn same(&self, one: Point, other: Point) -> bool {
        let names = |point| self.deeds(point).map(|(era, xid, _)| (era, xid)).collect::<Vec<_>>();
        names(one) == names(other)
    }

    /// What a server must hold at a point.
    pub(super) fn holding(&self, point: Point) -> Holding {
        let mut holding = Holding::default();
        let mut deleted = Vec::new();
        for account in 0..ACCOUNTS {
            holding.rows.balances.insert(account, 0);
        }
        for (_, _, deed) in self.deeds(point) {
            match deed {
                Deed::Work(done) => work(&mut holding.rows, done, &mut deleted),
                Deed::Spot(number, Change::Create(rows)) => {
                    holding.spots.insert(*number, *rows);
                }
                Deed::Spot(number, Change::Fill(rows)) => *holding.spots.entry(*number).or_insert(0) += rows,
                Deed::Spot(number, Change::Drop) => {
                    holding.spots.remove(number);
                }
            }
        }
        for id in deleted {
            holding.rows.rows.remove(&id);
        }
        holding
    }

    /// A random moment that can be restored to on the way to `leaf`: anywhere between two ends of one era, at the very
    /// microsecond of an end, or just before it.
    pub(super) fn moment(
        &self,
        random: &mut Random,
        leaf: Point,
        keep: impl Fn(&Era, usize) -> bool,
    ) -> Option<i64> {
        let mut found = Vec::new();
        let generation = self.eras.get(leaf.era)?.generation;
        for part in self.way(leaf) {
            let Some(era) = self.eras.get(part.era).filter(|era| era.generation == generation) else {
                continue;
            };
            let ends = self.ends_to(part);
            for (number, end) in ends.iter().enumerate() {
                if end.time > era.since && end.lsn < era.stored && keep(era, part.era) {
                    found.push((end.time, ends.get(number + 1).map_or(end.time, |next| next.time)));
                }
            }
        }
        let (at, next) = *found.get(usize::try_from(random.below(found.len() as u64)).ok()?)?;
        Some(match random.below(3) {
            0 => at,
            1 => at - 1,
            _ => random.between(at, next.max(at + 1) - 1),
        })
    }

    /// A moment before a tablespace was made on the way to `leaf`, as late as can be; or, if `table` is given, before the first
    /// table in it.
    pub(super) fn before_tablespace(&self, leaf: Point, table: bool) -> Option<i64> {
        let generation = self.eras.get(leaf.era)?.generation;
        let mut times = Vec::new();
        for part in self.way(leaf) {
            let era = self.eras.get(part.era).filter(|era| era.generation == generation);
            let Some(era) = era else { continue };
            let ends = self.ends_to(part);
            // CREATE TABLESPACE commits by itself, just before its table does.
            for (own, made) in ends.iter().zip(ends.iter().skip(1)) {
                let is_table = matches!(era.deeds.get(&made.xid), Some(Deed::Spot(_, Change::Create(_))));
                if is_table && own.time > era.since && made.lsn < era.stored {
                    times.push(if table { made.time - 1 } else { own.time - 1 });
                }
            }
        }
        times.last().copied()
    }

    /// A moment on a branch that production has left behind, with its timeline: an end of a transaction there that the
    /// repository holds.
    pub(super) fn left_behind(&self, random: &mut Random, leaf: Point) -> Option<(Point, i64)> {
        let way = self.way(leaf);
        let generation = self.eras.get(leaf.era)?.generation;
        let mut found = Vec::new();
        for (number, era) in self.eras.iter().enumerate().filter(|(_, era)| era.generation == generation) {
            let left = way.iter().find(|part| part.era == number).map_or(0, |part| part.ends);
            for (place, end) in era.ends.iter().enumerate().skip(left) {
                if number != leaf.era && end.lsn < era.stored && end.time > era.since {
                    found.push((Point { era: number, ends: place + 1 }, end.time));
                }
            }
        }
        let (point, at) = *found.get(usize::try_from(random.below(found.len() as u64)).ok()?)?;
        let whole = Point { era: point.era, ends: self.eras.get(point.era)?.ends.len() };
        Some((self.at_time(whole, at), at))
    }
}

fn work(expected: &mut Expected, done: &Transaction, deleted: &mut Vec<i64>) {
    expected.transactions += 1;
    for effect in &done.effects {
        match *effect {
            Effect::Insert { id, account, delta, pieces } => {
                expected.rows.insert(id, (done.xid, account, delta, pieces));
                *expected.balances.entry(account).or_insert(0) += delta;
            }
            Effect::Delete { id } => deleted.push(id),
        }
    }
}
