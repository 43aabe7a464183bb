//! `status`: health now. Works when the server is dead: then it says what the repository knows.

use everpoint_core::{Micros, Present, ServerSlot, StoredBy, orphan_told, orphans};
use everpoint_engine::{CheckState, EngineError};
use everpoint_repo::code;
use serde::Serialize;

use crate::captured::{self, CaptureState, Captured};
use crate::list::{self, BackupLine, GapLine, WindowLine};
use crate::log_writer::same;
use crate::{AppError, ClusterContext, facts, held, other_system, production, text, timelines, writable};

/// A backup older than this is a problem.
const OLD_BACKUP_SECONDS: f64 = 26.0 * 3600.0;

/// How well it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Everything works.
    Ok,
    /// Something needs attention.
    Warning,
    /// What happens now would be lost, or nothing can be restored.
    Error,
}

/// The server, as it answered.
#[derive(Debug, Clone, Serialize)]
pub struct ServerState {
    /// Version in words.
    pub version: String,
    /// Current end of the log.
    pub lsn: String,
    /// Timeline.
    pub timeline: u32,
    /// It is a standby.
    pub in_recovery: bool,
}

/// One cluster.
#[derive(Debug, Clone, Serialize)]
pub struct StatusReport {
    /// Its name.
    pub name: String,
    /// `postgresql` or `mongodb`.
    pub engine: String,
    /// The worst of what was found.
    pub health: Health,
    /// The server; absent if it does not answer.
    pub server: Option<ServerState>,
    /// Why the server does not answer.
    pub server_error: Option<String>,
    /// How capture stands; absent if no log is stored.
    pub capture: Option<CaptureState>,
    /// The newest good backup.
    pub last_backup: Option<BackupLine>,
    /// Seconds since it ended.
    pub last_backup_age_seconds: Option<f64>,
    /// Every second that can be brought back; those of the branch that production is on come last.
    pub windows: Vec<WindowLine>,
    /// Log that is known to be missing.
    pub gaps: Vec<GapLine>,
    /// What needs attention, in words.
    pub problems: Vec<String>,
    /// Slots of ours that nobody uses, in words; they are among the problems, too.
    #[serde(skip)]
    pub orphans: Vec<String>,
    /// That two servers write as this cluster, in words; it is among the problems, too.
    #[serde(skip)]
    pub two_servers: Option<String>,
}

/// Asks server and repository. `slot`: the name of the slot that capture uses.
///
/// # Errors
/// If the repository can't be read.
pub fn run(context: &ClusterContext, slot: &str) -> Result<StatusReport, AppError> {
    let mut report = look(context, &facts::load(context)?, slot, true);
    if let Some(wrong) = writable::wrong(context) {
        if wrong.code == code::FULL {
            report.without_capture();
        }
        let hint = wrong.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        report.problem(Health::Error, format!("{wrong}{hint}"));
    }
    Ok(report)
}

/// Asks the server, and judges with it what is known of the repository.
#[must_use]
pub fn of(context: &ClusterContext, facts: &facts::Facts, slot: &str) -> StatusReport {
    look(context, facts, slot, false)
}

/// `compares`: what is stored last is compared with what the server has there, unless a stream has done so.
fn look(context: &ClusterContext, facts: &facts::Facts, slot: &str, compares: bool) -> StatusReport {
    let answer = context.engine.identify();
    let listing = list::listing(context, facts, &[]);
    let now = text::now();
    let place = answer.as_ref().ok().map(|server| production::Place::of(server, 0));
    let copy = place.map_or(Ok(false), |place| production::is_copy(context, Some(&place)));
    let branch = place.map(|place| place.branch());
    let other = answer.as_ref().ok().and_then(|server| other_system::told(context, facts, server));
    // Positions of another system are not compared.
    let server = answer.as_ref().ok().filter(|_| other.is_none());
    let captured = Captured::of(&facts.log, server);
    let keeping = answer.is_ok().then(|| context.engine.log_keeping()).flatten();
    let orphans = keeping.as_ref().map(|keeping| orphaned(&keeping.slots, slot)).unwrap_or_default();
    let failing = keeping.as_ref().and_then(|keeping| keeping.archiver.failing.clone());
    let capture = captured.as_ref().map(|captured| {
        let archiver = keeping.as_ref().filter(|_| other.is_none()).map(|keeping| keeping.archiver.clone());
        let running = captured::is_running(context);
        CaptureState::new(captured, server, now, running, archiver)
    });
    let timeline = server.zip(captured.as_ref()).and_then(|(server, captured)| {
        let running = capture.as_ref().is_some_and(|capture| capture.wrong(&context.name).is_none());
        timelines::wrong(&facts.log, server, captured, running)
    });
    let shorter = captured.as_ref().zip(server);
    let shorter = shorter.and_then(|(captured, server)| same::ends_before(captured, server));
    let streams = capture.as_ref().is_some_and(|it| it.running && it.stored_by == StoredBy::Stream);
    let beside = || same::beside(context, &facts.log, keeping.as_ref());
    let reads = compares && !streams && other.is_none();
    let beside = shorter.or_else(|| if reads { beside() } else { None });
    let elsewhere = keeping.as_ref().filter(|_| compares).zip(server).zip(captured.as_ref());
    let elsewhere = elsewhere.and_then(|((keeping, server), captured)| {
        held::elsewhere(context, &facts.log, server, captured, slot, keeping)
    });
    let last_backup = listing.backups.iter().rev().find(|backup| backup.status == "ok").cloned();
    let age = last_backup.as_ref().and_then(|backup| seconds_since(backup.stopped_at.as_deref()?, now));
    let mut report = StatusReport {
        name: context.name.clone(),
        engine: context.engine.kind().to_owned(),
        health: Health::Ok,
        server_error: answer.as_ref().err().map(with_cause),
        server: answer.ok().map(|server| ServerState {
            version: server.version_text,
            lsn: text::lsn(server.position),
            timeline: server.timeline,
            in_recovery: server.in_recovery,
        }),
        capture,
        last_backup,
        last_backup_age_seconds: age,
        windows: list::windows(facts),
        gaps: listing.gaps,
        problems: Vec::new(),
        orphans,
        two_servers: None,
    };
    if let (Present::Lost(why), true) = (facts.present(), facts.has_usable_backup()) {
        let name = &context.name;
        let text =
            format!("the present can't be brought back: {why}; take a backup: everpoint backup {name}");
        report.problem(Health::Error, text);
    }
    if let Some(file) = failing {
        let text = format!(
            "the server's archive_command fails, on {file} last: its log stays until the disk is full; its log says why, and \
             everpoint check {} what to do",
            context.name
        );
        report.problem(Health::Warning, text);
    }
    report.judge(other, beside.as_ref());
    if let Some((message, hint)) = elsewhere {
        report.without_capture();
        report.problem(Health::Error, format!("{message}; {hint}"));
    }
    if let Some(wrong) = timeline {
        report.two_servers = wrong.two_servers.then(|| wrong.message.clone());
        let health = if wrong.state == CheckState::Error { Health::Error } else { Health::Warning };
        report.problem(health, wrong.message);
    }
    match copy {
        Ok(false) => {}
        Ok(true) => report.problem(Health::Error, production::marked(context, branch.as_ref())),
        Err(error) => {
            let text = format!("whether the server is production or a copy can't be told: {error}");
            report.problem(Health::Warning, text);
        }
    }
    report
}

fn orphaned(slots: &[ServerSlot], own: &str) -> Vec<String> {
    let told = |slot| {
        let (message, hint) = orphan_told(slot);
        format!("{message}; {hint}")
    };
    orphans(slots, own).into_iter().map(told).collect()
}

fn with_cause(error: &EngineError) -> String {
    match &error.cause {
        Some(cause) => format!("{error} ({cause})"),
        None => error.to_string(),
    }
}

fn seconds_since(rfc3339: &str, now: Micros) -> Option<f64> {
    let then = rfc3339.parse::<jiff::Timestamp>().ok()?.as_microsecond();
    Some((now.0 - then) as f64 / 1e6)
}

impl StatusReport {
    /// Nothing of it is an error.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.health < Health::Error
    }

    fn problem(&mut self, health: Health, text: impl Into<String>) {
        self.health = self.health.max(health);
        self.problems.push(text.into());
    }

    /// That capture does not move has its cause in something else that is told.
    fn without_capture(&mut self) {
        let follows = self.capture.as_ref().and_then(|capture| capture.wrong(&self.name));
        self.problems.retain(|problem| Some(problem) != follows.as_ref());
    }

    /// What the image of the newest good backup lacks, in words; `None` if it is whole.
    #[must_use]
    pub fn lacks(&self) -> Option<String> {
        let backup = self.last_backup.as_ref().filter(|backup| backup.incomplete)?;
        Some(format!(
            "the newest backup, {}, is less than whole: {}",
            backup.label,
            backup.warnings.join("; ")
        ))
    }

    /// `other`: the server is another system than the stored one, in words. `beside`: it goes on beside the stored log.
    fn judge(&mut self, other: Option<(String, String)>, beside: Option<&EngineError>) {
        let name = self.name.clone();
        if let Some(error) = self.server_error.clone() {
            self.problem(Health::Error, format!("the server does not answer: {error}"));
        }
        match (other, beside, &self.capture) {
            (Some((message, hint)), _, _) => self.problem(Health::Error, format!("{message}; {hint}")),
            (None, Some(beside), _) => {
                let way_out = beside.hint.as_ref().map_or_else(String::new, |hint| format!("; {hint}"));
                self.problem(Health::Error, format!("{beside}{way_out}"));
            }
            (None, None, None) => self.problem(
                Health::Error,
                format!("no log is stored; keep this running: everpoint capture {name}, or everpoint serve"),
            ),
            (None, None, Some(capture)) => {
                if let Some(wrong) = capture.wrong(&name) {
                    self.problem(Health::Error, wrong);
                }
            }
        }
        match self.last_backup_age_seconds {
            None => {
                let text = format!("there is no good backup; take one: everpoint backup {name}");
                self.problem(Health::Error, text);
            }
            Some(age) if age > OLD_BACKUP_SECONDS => {
                let text = format!(
                    "the last backup is {} hours old; take one: everpoint backup {name}",
                    (age / 3600.0) as u64
                );
                self.problem(Health::Warning, text);
            }
            Some(_) => {}
        }
        for orphan in self.orphans.clone() {
            self.problem(Health::Warning, orphan);
        }
        if let Some(text) = self.lacks() {
            self.problem(Health::Warning, text);
        }
        if !self.gaps.is_empty() {
            let text = format!(
                "{} in the stored log: moments in a gap can't be restored",
                count(self.gaps.len(), "gap")
            );
            self.problem(Health::Warning, text);
        }
    }
}

fn count(number: usize, word: &str) -> String {
    if number == 1 { format!("one {word}") } else { format!("{number} {word}s") }
}

#[cfg(test)]
mod tests;
