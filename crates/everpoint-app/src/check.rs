//! `check`: everything that must be right before one needs it, server and repository.

mod watch;

use std::path::PathBuf;

use everpoint_core::{BackupStatus, Micros, Present, shell};
use everpoint_engine::{CheckLine, CheckState, ServerIdentity};
use everpoint_repo::{ClusterRepo, code};
use serde::Serialize;

use crate::advice::{self, Promise};
use crate::facts::{self, Facts};
use crate::restore::mark::MARKER;
use crate::{AppError, ClusterContext, health, other_system, text, writable};

/// A backup older than this is pointed out: a day and some slack.
const OLD_BACKUP: Micros = Micros(26 * 3600 * 1_000_000);

/// Where the key of the repository lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlace {
    /// The repository is not encrypted.
    None,
    /// A command or the environment gives it: keeping it is somebody else's business.
    Managed,
    /// In a file; somebody has confirmed that a second copy exists.
    Confirmed,
    /// In a file, for all we know only there.
    OnlyHere(PathBuf),
}

/// What to look at.
pub struct CheckRequest {
    /// Name of the slot that capture uses.
    pub slot: String,
    /// Where the key lies.
    pub key: KeyPlace,
    /// What is to be kept.
    pub promise: Promise,
    /// What the caller looked at.
    pub more: Vec<CheckLine>,
    /// What is stored of the other names that may have the same server.
    pub others: Vec<ClusterRepo>,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct CheckReport {
    /// Name of the cluster.
    pub name: String,
    /// No line is an error.
    pub ok: bool,
    /// One line for each thing looked at.
    pub lines: Vec<CheckLine>,
}

/// Looks at a cluster and its repository. Never fails: what is wrong is a line.
#[must_use]
pub fn run(context: &ClusterContext, request: &CheckRequest) -> CheckReport {
    let mut lines = context.engine.check(Some(&request.slot));
    let server = context.engine.identify().ok();
    let keeping = server.as_ref().and_then(|_| context.engine.log_keeping());
    lines.extend(keeping.iter().flat_map(|keeping| watch::slots(&keeping.slots, &request.slot)));
    let same = server.as_ref().and_then(|server| watch::same_server(context, server, &request.others));
    // Looked at before this look is noted: an old primary would make itself production.
    let before = context.cluster.sightings().unwrap_or_default();
    if same.is_none() {
        lines.extend(production(context, server.as_ref()));
    }
    lines.extend(same);
    lines.extend(unfinished(context, server.as_ref()));
    let wrong = writable::wrong(context);
    let is_full = wrong.as_ref().is_some_and(|wrong| wrong.code == code::FULL);
    lines.push(repository(context, wrong));
    lines.push(key(&request.key));
    lines.extend(crate::belongings::line(context));
    lines.extend(advice::disk(context));
    match facts::load(context) {
        Ok(facts) => {
            let other = server.as_ref().and_then(|server| other_system::told(context, &facts, server));
            lines.extend(identity(&facts, server.as_ref(), other.as_ref()));
            lines.extend(health::space(context, &facts.listings));
            lines.push(last_backup(context, &facts));
            let own = server.as_ref().filter(|_| other.is_none());
            match other {
                None => {
                    let slot = request.slot.as_str();
                    let found = watch::capture(context, &facts.log, before, own, keeping, slot);
                    // That it is in use is right only of one that we use.
                    if found.iter().any(|line| line.name == watch::SLOT) {
                        lines.retain(|line| line.name != watch::SLOT);
                    }
                    lines.extend(found);
                }
                Some((_, hint)) => lines.push(watch::another(&facts.log, hint)),
            }
            lines.extend(gaps(context, &facts));
            lines.extend(advice::promise(context, &facts, &request.promise));
        }
        Err(error) => {
            let hint = error.hint.clone();
            lines.push(line("repository_contents", CheckState::Error, error.to_string(), hint));
        }
    }
    lines.extend(request.more.iter().cloned());
    if is_full {
        full(&mut lines);
    }
    let ok = lines.iter().all(|line| line.state != CheckState::Error);
    CheckReport { name: context.name.clone(), ok, lines }
}

fn line(name: &str, state: CheckState, message: impl Into<String>, hint: Option<String>) -> CheckLine {
    CheckLine { name: name.to_owned(), state, message: message.into(), hint }
}

/// Notes where production is; a marked copy at its address is none, also where it lets in nobody who replicates.
fn production(context: &ClusterContext, server: Option<&ServerIdentity>) -> Option<CheckLine> {
    let copy = |told: String| {
        let hint = format!("if it is production now: everpoint adopt {} DIRECTORY", context.name);
        line("production", CheckState::Error, told, Some(hint))
    };
    let Some(server) = server else {
        let is_copy = crate::production::is_copy(context, None).unwrap_or(false);
        return is_copy.then(|| copy(crate::production::marked(context, None)));
    };
    let known = context.cluster.identities().ok()?;
    let ours = known.iter().rev().find(|(_, known)| known.system_identifier == server.system.to_string());
    Some(match crate::production::seen(context, server, ours?.0) {
        Ok(None) => line("production", CheckState::Ok, format!("on timeline {}", server.timeline), None),
        Ok(Some(told)) => copy(told),
        Err(error) => line("production", CheckState::Warning, error.to_string(), error.hint.clone()),
    })
}

/// The mark of a restore that was not finished, where a server has lived since: a restore would go on there unasked. While a
/// restore has its server replay, the mark is right.
fn unfinished(context: &ClusterContext, server: Option<&ServerIdentity>) -> Option<CheckLine> {
    let lives = server.is_some_and(|server| !server.in_recovery);
    if !lives || context.engine.has_file(MARKER) != Some(true) {
        return None;
    }
    let command = context.engine.data_directory().map_or_else(
        || format!("remove {MARKER} from its data directory"),
        |directory| format!("rm {}", shell::path(&directory.join(MARKER))),
    );
    let message = format!(
        "the mark of a restore that did not finish lies in the data directory of a server that runs ({MARKER}): a restore into it \
         would not ask for --delta"
    );
    let hint = format!("if this server is whole, and no restore is at work there: {command}");
    Some(line("unfinished_restore", CheckState::Warning, message, Some(hint)))
}

fn repository(context: &ClusterContext, wrong: Option<AppError>) -> CheckLine {
    let place = context.repository.store().describe();
    if let Some(wrong) = wrong {
        return line("repository", CheckState::Error, wrong.to_string(), wrong.hint);
    }
    if context.repository.is_encrypted() {
        return line("repository", CheckState::Ok, format!("{place} opens, encrypted"), None);
    }
    let hint =
        "encryption is chosen when a repository is made: give a new one a key_file, and protect into that";
    let message = format!("{place} opens; it is not encrypted, so whoever reads it reads your data");
    line("repository", CheckState::Warning, message, Some(hint.to_owned()))
}

fn key(place: &KeyPlace) -> CheckLine {
    match place {
        KeyPlace::None => line("key_escrow", CheckState::Ok, "no key to lose", None),
        KeyPlace::Managed => line("key_escrow", CheckState::Ok, "the key is kept outside of Everpoint", None),
        KeyPlace::Confirmed => {
            line("key_escrow", CheckState::Ok, "a second copy of the key was confirmed", None)
        }
        KeyPlace::OnlyHere(path) => {
            let message = format!("for all we know the key exists only in {}", path.display());
            let hint =
                "store it in a second place (password manager, paper), then run: everpoint key confirm";
            line("key_escrow", CheckState::Warning, message, Some(hint.to_owned()))
        }
    }
}

fn identity(
    facts: &Facts,
    server: Option<&ServerIdentity>,
    other: Option<&(String, String)>,
) -> Option<CheckLine> {
    facts.identity.as_ref()?;
    Some(match other {
        Some((message, hint)) => line("identity", CheckState::Error, message, Some(hint.clone())),
        None => line("identity", CheckState::Ok, format!("system identifier {}", server?.system), None),
    })
}

/// What nothing can be written to stores nothing that happens now, whatever was stored a moment ago.
fn full(lines: &mut [CheckLine]) {
    for line in lines.iter_mut().filter(|line| line.name == "capture" && line.state != CheckState::Error) {
        line.state = CheckState::Error;
        line.message.push_str("; the repository is full: what comes next can't be stored");
        line.hint = Some("make room in the repository first".to_owned());
    }
}

fn last_backup(context: &ClusterContext, facts: &Facts) -> CheckLine {
    let take = Some(format!("take one: everpoint backup {}", context.name));
    let good = facts.listings.iter().filter(|listing| facts::status(listing) == BackupStatus::Ok);
    let Some(newest) =
        good.filter_map(|listing| listing.record.as_ref()).max_by_key(|record| record.stopped_at)
    else {
        return no_good_backup(facts, take);
    };
    if let Present::Lost(why) = facts.present() {
        let message = format!("{} is the newest, and the present can't be brought back: {why}", newest.label);
        return line("last_backup", CheckState::Error, message, take);
    }
    let age = text::now().0.saturating_sub(newest.stopped_at);
    let message = format!("{} of {}", newest.label, text::time(Micros(newest.stopped_at)));
    if age > OLD_BACKUP.0 {
        return line(
            "last_backup",
            CheckState::Warning,
            format!("{message}, {} hours old", age / 3_600_000_000),
            take,
        );
    }
    let lacking = context.engine.image_warnings(&newest.facts);
    if lacking.is_empty() {
        return line("last_backup", CheckState::Ok, message, None);
    }
    let message = format!("{message} is less than whole: {}", lacking.join("; "));
    let mend = format!("mend that, then: everpoint backup {}", context.name);
    line("last_backup", CheckState::Warning, message, Some(mend))
}

/// Of a backup whose pages were damaged on the server already, all the rest can be restored.
fn no_good_backup(facts: &Facts, take: Option<String>) -> CheckLine {
    let usable = facts.listings.iter().filter(|listing| facts::planning_status(listing) == BackupStatus::Ok);
    let newest = usable.filter_map(|listing| listing.record.as_ref()).max_by_key(|record| record.stopped_at);
    let Some(newest) = newest else {
        let message = "there is no good backup yet: nothing can be restored";
        return line("last_backup", CheckState::Warning, message, take);
    };
    let message = format!(
        "{} of {} holds {} pages that were damaged on the server; all else of it can be restored, and there is no backup \
         without",
        newest.label,
        text::time(Micros(newest.stopped_at)),
        newest.damaged_count
    );
    let hint = "everpoint list names the files; rebuild an index or restore the table, then take a backup";
    line("last_backup", CheckState::Warning, message, Some(hint.to_owned()))
}

fn gaps(context: &ClusterContext, facts: &Facts) -> Option<CheckLine> {
    let gaps = everpoint_core::gaps(&facts.log);
    let last = gaps.last()?;
    let message = format!(
        "{} in the stored log, the last from {} to {}: {}",
        if gaps.len() == 1 { "one gap".to_owned() } else { format!("{} gaps", gaps.len()) },
        text::lsn(last.span.from),
        text::lsn(last.span.to),
        last.reason
    );
    let hint = format!(
        "moments in a gap can't be restored; a backup after it begins a new window: everpoint list {}",
        context.name
    );
    Some(line("gaps", CheckState::Warning, message, Some(hint)))
}
