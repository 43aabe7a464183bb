//! Runs the program in a world, and judges what came of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use everpoint_testkit::Scratch;

use super::case::{Case, Expected};
use super::kind::{Kind, Proof};
use super::oracle::Zones;
use super::rows;
use super::snapshot::{Eye, Snapshot};
use super::stage::{MARKER, Stage, await_marker};

/// How long a restore of so little may take: beyond that it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a run ended.
#[derive(Debug)]
struct Ran {
    /// `None`: it did not end.
    code: Option<i32>,
    said: String,
}

/// Runs one case.
pub(crate) struct Trial<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) case: &'a mut Case,
    pub(crate) eye: &'a mut Eye,
    pub(crate) logs: &'a Scratch,
    /// What is wrong, in words.
    pub(crate) problems: Vec<String>,
}

impl Trial<'_> {
    /// Runs it; what is wrong stands in `problems`. Returns how the program ended.
    pub(crate) fn run(&mut self) -> Result<Option<i32>> {
        if self.case.is_interrupted() {
            self.interrupt()?;
            self.case.after_kill();
        }
        let before = self.look()?;
        let dry = self.dry_run(&before)?;
        let ran = self.execute(&[])?;
        let after = self.look()?;
        self.judge("the restore", self.case.expected(), &ran, &before, &after);
        if dry.is_some_and(|dry| dry != ran.code) {
            self.problem(format!("--dry-run ended with {dry:?}, the restore with {:?}", ran.code), &ran);
        }
        if ran.code == Some(0) {
            self.succeeded(&ran, &before, &after)?;
        }
        Ok(ran.code)
    }

    /// A restore that is killed after it has begun.
    fn interrupt(&self) -> Result<()> {
        let mut child = self.spawn(&[])?;
        let directory = self.case.place.directory.clone();
        await_marker(&directory, || Ok(child.try_wait()?.is_none()))?;
        sleep(Duration::from_millis(self.case.choices.killed_after));
        // It may have ended by itself.
        let _ = child.kill();
        child.wait().context("cannot wait for a restore")?;
        Ok(())
    }

    fn dry_run(&mut self, before: &Snapshot) -> Result<Option<Option<i32>>> {
        if !self.case.choices.dry_run_first {
            return Ok(None);
        }
        let ran = self.execute(&["--dry-run"])?;
        let changes = before.differences(&self.look()?);
        for bad in self.case.untouched(self.stage).violated(&changes) {
            self.problems.push(format!("--dry-run changed {bad}"));
        }
        Ok(Some(ran.code))
    }

    fn judge(&mut self, what: &str, expected: Expected, ran: &Ran, before: &Snapshot, after: &Snapshot) {
        let changes = before.differences(after);
        let done = ran.code == Some(0);
        let zones = if done { self.case.zones(self.stage) } else { self.case.untouched(self.stage) };
        let right = match expected {
            Expected::Done => done,
            Expected::Usage => ran.code == Some(2),
            Expected::Refused => ran.code.is_some_and(|code| code != 0),
            Expected::Either => ran.code.is_some(),
        };
        if !right {
            let ended = ran.code.map_or("did not end".to_owned(), |code| format!("ended with {code}"));
            self.problem(format!("{what} {ended}, expected: {expected:?}"), ran);
        }
        let ours = matches!(self.case.kind, Kind::Live | Kind::LiveWithoutPid);
        let foreign = self.case.place.proof == Proof::Foreign && !ours;
        if !done && foreign && ran.said.contains("add --delta") {
            self.problem(format!("{what} was refused with the advice to write over what is not ours"), ran);
        }
        let violated = violated(&zones, &changes);
        if !violated.is_empty() {
            let how = if done { "changed what it may not" } else { "was refused, but changed" };
            self.problem(format!("{what} {how}:\n      {}", violated.join("\n      ")), ran);
        }
    }

    /// What has to hold after a success.
    fn succeeded(&mut self, ran: &Ran, before: &Snapshot, after: &Snapshot) -> Result<()> {
        let directory = self.case.place.directory.clone();
        if directory.join(MARKER).exists() {
            self.problem("the restore succeeded, and its marker is still there".to_owned(), ran);
        }
        let strange = self.strange_links(&directory);
        if !strange.is_empty() {
            self.problems.push(format!("links lead out of the directory: {}", strange.join(", ")));
        }
        if matches!(self.case.kind, Kind::Live | Kind::LiveWithoutPid) {
            // What is written below a running server can't be judged any further.
            return Ok(());
        }
        for space in self.missing_spaces() {
            self.problems.push(format!("nothing came to {space}, where it has to be in production"));
        }
        if self.case.choices.start {
            let checked = rows::check_started(self.stage, &directory, &self.case.moment);
            checked.unwrap_or_else(|why| self.problems.push(format!("{why:#}")));
            return self.still(before, "the server that was started");
        }
        if self.case.choices.again && self.case.expected() != Expected::Either {
            let expected = self.case.expected_again();
            let ran = self.execute(&[])?;
            let base = if expected == Expected::Done { before } else { after };
            let now = self.look()?;
            self.judge("the same again", expected, &ran, base, &now);
        }
        if self.case.choices.rows {
            // Root leaves objects in the repository that only root may read; the server is not root.
            self.stage.account.own(&self.stage.repository())?;
            let base = self.look()?;
            let checked = rows::check(self.stage, &directory, &self.case.moment);
            checked.unwrap_or_else(|why| self.problems.push(format!("{why:#}")));
            return self.still(&base, "the server");
        }
        Ok(())
    }

    /// Whatever happened since, only what may change has.
    fn still(&mut self, before: &Snapshot, who: &str) -> Result<()> {
        let changes = before.differences(&self.look()?);
        let violated = violated(&self.case.zones(self.stage), &changes);
        if !violated.is_empty() {
            self.problems
                .push(format!("{who} changed what it may not:\n      {}", violated.join("\n      ")));
        }
        Ok(())
    }

    /// Tablespaces of the image that are not at their own path, though production is replaced.
    fn missing_spaces(&self) -> Vec<String> {
        if self.case.kind != Kind::ProductionLost {
            return Vec::new();
        }
        let places = ["alpha", "beta"].map(|name| self.stage.space(name));
        let holds = |place: &PathBuf| {
            let entries = fs::read_dir(place).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().starts_with("PG_15_"))
        };
        places.iter().filter(|place| !holds(place)).map(|place| place.display().to_string()).collect()
    }

    /// Links below pg_tblspc that lead where nothing may be written.
    fn strange_links(&self, directory: &Path) -> Vec<String> {
        let places = self.case.zones(self.stage).spaces;
        let real = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        let Ok(entries) = fs::read_dir(directory.join("pg_tblspc")) else {
            return Vec::new();
        };
        let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let led = paths.filter_map(|path| {
            fs::read_link(&path).ok().map(|leads| directory.join("pg_tblspc").join(leads))
        });
        let strange = led.filter(|leads| {
            !places.contains(leads) && !leads.starts_with(&real) && !leads.starts_with(directory)
        });
        strange.map(|leads| leads.display().to_string()).collect()
    }

    fn problem(&mut self, words: String, ran: &Ran) {
        let said: Vec<&str> = ran.said.lines().rev().take(6).collect();
        let said: Vec<&str> = said.into_iter().rev().collect();
        let said = format!("it said: {}", said.join("\n               "));
        self.problems.push(words);
        if !self.problems.contains(&said) {
            self.problems.push(said);
        }
    }

    fn look(&mut self) -> Result<Snapshot> {
        self.eye.look(&self.stage.roots())
    }

    /// The command line.
    pub(crate) fn line(&self) -> String {
        let words = self.case.arguments(self.stage);
        let quoted =
            words.iter().map(|word| if word.contains(' ') { format!("'{word}'") } else { word.clone() });
        format!("everpoint {}", quoted.collect::<Vec<_>>().join(" "))
    }

    fn spawn(&self, more: &[&str]) -> Result<Child> {
        let (stage, case) = (self.stage, &self.case);
        let program = stage.everpoint.program();
        // The program takes the place of the shell, so that its process id stays.
        let shell = Path::new("/bin/sh");
        let mut command = if case.choices.as_root {
            let mut command = Command::new(shell);
            everpoint_testkit::clean(&mut command).env("EVERPOINT_PG_USER", stage.account.name());
            command
        } else {
            stage.account.command(shell)
        };
        let config = case.place.config.clone();
        let config = config.unwrap_or_else(|| stage.everpoint.home().path().join("everpoint.toml"));
        let mut arguments = case.arguments(stage);
        if more.contains(&"--dry-run") {
            arguments.retain(|argument| argument != "--start");
        }
        command.arg("-c").arg(format!("umask {:03o}; exec \"$0\" \"$@\"", case.choices.umask)).arg(program);
        command.arg("--config").arg(config).arg("--no-progress").args(arguments).args(more);
        let file =
            |path: PathBuf| File::create(&path).with_context(|| format!("cannot make {}", path.display()));
        command.stdin(Stdio::null());
        command.stdout(file(self.logs.path().join("out"))?).stderr(file(self.logs.path().join("err"))?);
        command.current_dir(stage.world());
        command.spawn().context("cannot run everpoint")
    }

    fn execute(&self, more: &[&str]) -> Result<Ran> {
        let (mut child, since) = (self.spawn(more)?, Instant::now());
        let code = loop {
            if let Some(status) = child.try_wait().context("cannot look after everpoint")? {
                break status.code();
            }
            if since.elapsed() > PATIENCE {
                let _ = child.kill();
                child.wait().context("cannot wait for everpoint")?;
                break None;
            }
            sleep(Duration::from_millis(2));
        };
        let read = |name: &str| fs::read_to_string(self.logs.path().join(name)).unwrap_or_default();
        Ok(Ran { code, said: read("out") + &read("err") })
    }
}

/// The first of the changes that may not be, and how many more there are.
fn violated(zones: &Zones, changes: &[super::snapshot::Change]) -> Vec<String> {
    let mut all = zones.violated(changes);
    let more = all.len().saturating_sub(8);
    all.truncate(8);
    if more > 0 {
        all.push(format!("and {more} more"));
    }
    all
}
