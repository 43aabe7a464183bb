//! Lines of `check` about what is right today and lets one down on the day of need: the repository beside the database, a
//! promise that is not kept.

use std::path::{Path, PathBuf};

use everpoint_core::retention::promise::{Kept, keeps_none_between, kept};
use everpoint_core::{Micros, Present, RetentionPolicy, Schedule, Window, current_identity, production};
use everpoint_engine::{CheckLine, CheckState};

use crate::disks::{Machine, Shared, shared};
use crate::facts::Facts;
use crate::{ClusterContext, text};

/// What a cluster's repository promises.
#[derive(Debug, Clone)]
pub struct Promise {
    /// What is kept.
    pub policy: RetentionPolicy,
    /// When backups are taken; `None`: not by the daemon.
    pub schedule: Option<Schedule>,
}

fn line(name: &str, state: CheckState, message: String, hint: Option<String>) -> CheckLine {
    CheckLine { name: name.to_owned(), state, message, hint }
}

/// Whether the repository lies on the database's disk; `None` where one of them is not on this machine.
pub(crate) fn disk(context: &ClusterContext) -> Option<CheckLine> {
    let place = context.repository.store().describe();
    let repository =
        context.belongings.iter().map(|it| &it.path).find(|path| path.display().to_string() == place)?;
    disk_of(&Machine::this(), repository, &context.engine.directories())
}

fn disk_of(machine: &Machine, repository: &Path, servers: &[PathBuf]) -> Option<CheckLine> {
    let ours = machine.place(repository)?;
    let mut seen = false;
    for server in servers {
        let Some(theirs) = machine.place(server) else { continue };
        seen = true;
        let Some(common) = shared(&ours, &theirs) else { continue };
        let (what, full) = match common {
            Shared::FileSystem => ("one file system".to_owned(), ", and when it is full both stand still"),
            Shared::Disk(name) => (format!("one disk ({name})"), ""),
        };
        let message = format!(
            "the repository {} and {} lie on {what}: with it the database and its backups are lost together{full}",
            repository.display(),
            server.display()
        );
        let hint = "put the repository on another disk or machine, or send packages away: [offsite.NAME]";
        return Some(line("disk", CheckState::Warning, message, Some(hint.to_owned())));
    }
    let message = "the repository lies on another disk than the database, as far as can be seen";
    seen.then(|| line("disk", CheckState::Ok, message.to_owned(), None))
}

/// Whether as much can be brought back as the policy promises.
pub(crate) fn promise(context: &ClusterContext, facts: &Facts, promise: &Promise) -> Vec<CheckLine> {
    let now = text::now();
    let windows = everpoint_core::windows(&facts.log, &facts.backups);
    let mut lines = Vec::new();
    if !windows.is_empty() {
        lines.extend(window(context, facts, &windows, &promise.policy, now));
    }
    let schedule = promise.schedule.as_ref();
    if let Some(longest) = schedule.and_then(|schedule| keeps_none_between(&promise.policy, schedule, now)) {
        let days = |micros: i64| format!("{:.1}", micros as f64 / 86_400e6);
        let message = format!(
            "backups of the last {} days are to be kept (`within`), but up to {} days lie between two: then only the \
             newest is there",
            days(promise.policy.within.unwrap_or_default()),
            days(longest.0)
        );
        let hint = "take backups more often: [schedule] backup; or keep them longer: [retention] within";
        lines.push(line("retention", CheckState::Warning, message, Some(hint.to_owned())));
    }
    lines
}

fn window(
    context: &ClusterContext,
    facts: &Facts,
    windows: &[Window],
    policy: &RetentionPolicy,
    now: Micros,
) -> Option<CheckLine> {
    let identity =
        current_identity(&facts.log).or_else(|| windows.iter().map(|window| window.identity).max())?;
    let found = production::production(&facts.log, identity);
    let candidates = found.candidates();
    let of_production = |window: &&Window| {
        window.identity == identity
            && (candidates.is_empty() || candidates.iter().any(|branch| branch.id == window.branch))
    };
    let ours: Vec<&Window> = windows.iter().filter(of_production).collect();
    // Of the timeline that it is on nothing is stored yet, and what is stored leads to it.
    if ours.is_empty() && matches!(facts.present(), Present::From(_)) {
        return None;
    }
    let ended = facts.listings.iter().filter_map(|listing| listing.record.as_ref()).map(|it| it.stopped_at);
    let promised = format!("any second of the last {} days is promised", policy.window_days);
    Some(match kept(policy, &ours, ended.min().map(Micros), now) {
        Kept::NothingPromised => return None,
        Kept::All => line("retention", CheckState::Ok, format!("{promised}, and can be brought back"), None),
        Kept::Growing { since } => {
            let message = format!("{promised}; until now since {}, when protection began", text::time(since));
            line("retention", CheckState::Ok, message, None)
        }
        Kept::Less { since } => {
            let only = since.map_or_else(
                || "but the newest that can be brought back is older than a day".to_owned(),
                |since| format!("but only since {} it can be brought back", text::time(since)),
            );
            let hint = format!(
                "see gaps and backups: everpoint list {}; a backup after a gap begins anew",
                context.name
            );
            line("retention", CheckState::Warning, format!("{promised}, {only}"), Some(hint))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_beside_the_database_is_told() {
        let root = tempfile::tempdir().unwrap();
        let (repository, server) = (root.path().join("repo"), root.path().join("data"));
        let found = disk_of(&Machine::this(), &repository, std::slice::from_ref(&server)).unwrap();
        assert_eq!(found.state, CheckState::Warning);
        assert!(found.message.contains("one file system") && found.hint.is_some(), "{found:?}");
        assert!(disk_of(&Machine::this(), &repository, &[]).is_none(), "the server is elsewhere");
    }
}
