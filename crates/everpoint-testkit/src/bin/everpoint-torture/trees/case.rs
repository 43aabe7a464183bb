//! One case: a world, a command line, and what must come of it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use everpoint_testkit::Random;

use super::kind::{Kind, Proof};
use super::oracle::Zones;
use super::spaces::Spaces;
use super::stage::{MARKER, Moment, SPACES, Stage, is_root};
use super::world::Place;

/// How the program must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Exit 0, and exactly the rows of the target.
    Done,
    /// Exit 2, nothing touched.
    Usage,
    /// Any other exit than 0, nothing touched.
    Refused,
    /// Done or refused, but well.
    Either,
}

/// What the seed chooses beside the kind of directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choices {
    pub(crate) as_root: bool,
    pub(crate) delta: bool,
    pub(crate) replace: bool,
    pub(crate) dry_run_first: bool,
    pub(crate) again: bool,
    pub(crate) start: bool,
    /// Whether a server is started on what was restored.
    pub(crate) rows: bool,
    /// When the restore that comes first is killed after it has begun, in milliseconds.
    pub(crate) killed_after: u64,
    pub(crate) relative: bool,
    /// Of the shell from which it is run.
    pub(crate) umask: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) place: Place,
    pub(crate) spaces: Spaces,
    pub(crate) moment: Moment,
    pub(crate) choices: Choices,
}

impl Case {
    /// Makes the world of a case; the same seed makes the same one. The rows of so many of 100 are compared.
    pub(crate) fn make(stage: &Stage, kind: Kind, random: &mut Random, rows: u64) -> Result<Self> {
        let legitimate = Kind::is_legitimate(stage.number);
        let moments = u64::try_from(stage.moments.len())?;
        // The newest state is what most people want.
        let mut chosen = if random.chance(40) { moments - 1 } else { random.below(moments) };
        if matches!(kind, Kind::Production | Kind::WalLink) && random.chance(50) {
            // Soon after a tablespace was created that holds more now.
            chosen = 2;
        }
        let moment = stage.moments.get(usize::try_from(chosen)?).context("no moment")?.clone();
        let as_root = random.chance(50) && is_root();
        let place = Place::make(stage, kind, random, as_root)?;
        let delta = random.chance(match place.proof {
            Proof::Nothing | Proof::Unfinished => 40,
            _ if legitimate => 100,
            _ => 80,
        });
        let spaces = match kind {
            Kind::ProductionLost => Spaces::none(),
            _ => Spaces::make(stage, random, &place.directory, moment.gamma, legitimate)?,
        };
        let may_replace = !legitimate || place.production;
        let replace = random.chance(20) && may_replace || kind == Kind::ProductionLost;
        // There old files lie under the new ones: rows tell.
        let in_place = matches!(kind, Kind::Production | Kind::WalLink | Kind::ProductionLost);
        let choices = Choices {
            as_root,
            delta,
            replace,
            dry_run_first: random.chance(60),
            again: random.chance(50),
            start: false,
            rows: random.chance(rows) || in_place,
            killed_after: random.below(100),
            umask: if random.chance(30) { 0o077 } else { 0o022 },
            relative: random.chance(10) && place.directory.starts_with(stage.world()),
        };
        let mut case = Self { kind, place, spaces, moment, choices };
        let may = !case.place.production && !replace && !case.is_interrupted();
        let may = may && case.expected() == Expected::Done;
        case.choices.start = random.chance(12) && may;
        Ok(case)
    }

    /// Whether a restore has to be killed there first.
    pub(crate) fn is_interrupted(&self) -> bool {
        matches!(self.kind, Kind::Interrupted | Kind::InterruptedOver)
    }

    /// Looks at what a restore that was killed has left.
    pub(crate) fn after_kill(&mut self) {
        let directory = &self.place.directory;
        self.place.proof = if directory.join(MARKER).exists() {
            Proof::Unfinished
        } else if directory.join("PG_VERSION").exists() {
            Proof::Own
        } else {
            Proof::Nothing
        };
    }

    /// The arguments of `everpoint`.
    pub(crate) fn arguments(&self, stage: &Stage) -> Vec<String> {
        let mut arguments: Vec<String> = vec!["restore".into(), super::stage::CLUSTER.into()];
        let directory = &self.place.directory;
        let relative = directory.strip_prefix(stage.world()).ok().filter(|_| self.choices.relative);
        arguments.push(match relative.filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => format!("./{}/", path.display()),
            None => directory.display().to_string(),
        });
        arguments.extend(["--to".to_owned(), self.moment.target.clone()]);
        let flags = [
            (self.choices.delta, "--delta"),
            (self.choices.replace, "--replace-production"),
            (self.choices.start, "--start"),
        ];
        arguments.extend(flags.iter().filter(|(on, _)| *on).map(|(_, flag)| (*flag).to_owned()));
        arguments.extend(self.spaces.arguments.iter().cloned());
        arguments
    }

    /// How the program must end.
    pub(crate) fn expected(&self) -> Expected {
        let (delta, replace) = (self.choices.delta, self.choices.replace);
        let place = match self.place.proof {
            Proof::Impossible => return Expected::Refused,
            Proof::Foreign => return Expected::Usage,
            Proof::Own if !delta => return Expected::Usage,
            Proof::Odd => Expected::Either,
            Proof::Nothing | Proof::Own | Proof::Unfinished => Expected::Done,
        };
        if !self.spaces.right {
            return if place == Expected::Done { Expected::Usage } else { Expected::Refused };
        }
        // Their own paths are full, and only a link of this very directory says whose they are.
        let elsewhere = !self.place.production && self.kind != Kind::ProductionLost;
        if replace && elsewhere && !self.all_mapped() { Expected::Either } else { place }
    }

    /// How the same command must end when it is run again.
    pub(crate) fn expected_again(&self) -> Expected {
        match self.choices.delta {
            true => self.expected(),
            false => Expected::Usage,
        }
    }

    fn all_mapped(&self) -> bool {
        let needed = if self.moment.gamma { 3 } else { 2 };
        (0..needed).all(|number| self.spaces.numbers.contains(&number))
    }

    /// What may change if the program succeeds.
    pub(crate) fn zones(&self, stage: &Stage) -> Zones {
        let mut free = self.place.free.clone();
        free.push(self.place.directory.clone());
        let mut spaces: Vec<PathBuf> = self.spaces.places.clone();
        let mut left = Vec::new();
        let needed = if self.moment.gamma { 3 } else { 2 };
        let unmapped = |number: &usize| !self.spaces.numbers.contains(number) && *number < needed;
        if self.place.production || self.choices.replace {
            let links = self.place.links.iter().filter(|(number, _)| unmapped(number));
            spaces.extend(links.map(|(_, leads)| leads.clone()));
            left.extend(self.place.links.iter().map(|(_, leads)| leads.clone()));
        }
        if self.choices.replace {
            let own = SPACES.iter().enumerate().filter(|(number, _)| unmapped(number));
            spaces.extend(own.map(|(_, name)| stage.space(name)));
        }
        let mut kept = self.place.kept.clone();
        kept.extend(self.spaces.kept.iter().cloned());
        Zones { free, spaces, left, kept, repository: self.repository(stage), grows: true }
    }

    /// What may change if it does not.
    pub(crate) fn untouched(&self, stage: &Stage) -> Zones {
        let mut zones = Zones { repository: self.repository(stage), ..Zones::default() };
        if matches!(self.kind, Kind::Live | Kind::LiveWithoutPid) {
            // The server itself writes its log.
            zones.free.push(self.place.directory.join("pg_wal"));
        }
        zones
    }

    fn repository(&self, stage: &Stage) -> PathBuf {
        let directory = &self.place.directory;
        match self.kind {
            Kind::Repository => directory.clone(),
            Kind::HoldsRepository => directory.join("repository"),
            Kind::DataHoldsRepository => directory.join("backups"),
            Kind::DataHoldsKey => stage.world().join("backups"),
            _ => stage.repository(),
        }
    }

    /// The world in words.
    pub(crate) fn words(&self) -> String {
        let who = if self.choices.as_root { "as root" } else { "as the servers' user" };
        let killed = match self.is_interrupted() {
            true => format!(", killed {} ms after it had begun", self.choices.killed_after),
            false => String::new(),
        };
        let (umask, rows) = (self.choices.umask, if self.choices.rows { ", rows" } else { "" });
        format!(
            "{:?} ({:?}){killed}; {}; {who}, umask {umask:03o}; to {}{rows}",
            self.kind, self.place.proof, self.spaces.words, self.moment.name
        )
    }
}
