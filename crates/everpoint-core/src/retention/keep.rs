//! Which backups stay.

use std::collections::{BTreeMap, HashMap};

use super::period::Period;
use super::{Attempted, DAY, DroppedBackup, ExpireFacts, KeptBackup, RetentionPolicy};
use crate::facts::{BackupFacts, BackupStatus};
use crate::path::{is_on_path, path};
use crate::position::Micros;
use crate::production::{current_identity, production};
use crate::window::Window;

/// What stays and what goes.
#[derive(Default)]
pub(super) struct Chosen {
    pub(super) kept: Vec<KeptBackup>,
    pub(super) dropped: Vec<DroppedBackup>,
}

impl Chosen {
    pub(super) fn keeps(&self, label: &str) -> bool {
        self.kept.iter().any(|kept| kept.label == label)
    }
}

/// Reasons by label.
#[derive(Default)]
struct Reasons<'a>(HashMap<&'a str, Vec<String>>);

impl<'a> Reasons<'a> {
    fn add(&mut self, backup: &'a BackupFacts, reason: impl Into<String>) {
        let (reasons, reason) = (self.0.entry(&backup.label).or_default(), reason.into());
        // One backup may be the base of several windows.
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
}

/// `good` are sorted by when they ended.
pub(super) fn choose(
    facts: &ExpireFacts<'_>,
    policy: &RetentionPolicy,
    good: &[&BackupFacts],
    windows: &[Window],
    now: Micros,
    window_from: Micros,
) -> Chosen {
    let mut reasons = Reasons::default();
    newest(good, policy, &mut reasons);
    for backup in newest_of_production(facts, good) {
        reasons.add(backup, "the newest good one of production's branch");
    }
    if let Some(within) = policy.within {
        let since = Micros(now.0.saturating_sub(within));
        good.iter().filter(|it| it.stopped_at >= since).for_each(|it| reasons.add(it, "recent"));
    }
    let periods = [
        (policy.daily, Period::Day),
        (policy.weekly, Period::Week),
        (policy.monthly, Period::Month),
        (policy.yearly, Period::Year),
    ];
    for (count, period) in periods {
        for backup in firsts(good, count, period, policy) {
            reasons.add(backup, format!("the first of its {}", period.name()));
        }
    }
    for backup in bases(good, windows, window_from) {
        reasons.add(backup, "every second since is kept");
    }
    let mut chosen = Chosen::default();
    let mut all: Vec<&BackupFacts> = facts.backups.iter().collect();
    all.sort_by_key(|backup| (backup.stopped_at, &backup.label));
    for backup in all {
        let mut why = reasons.0.remove(backup.label.as_str()).unwrap_or_default();
        why.extend(hold(facts, &backup.label, now));
        let since = backup.stopped_at;
        let verdict = match backup.status {
            BackupStatus::Ok => Err("not one that the policy keeps".to_owned()),
            _ => spoiled("damaged", Some(since), good, policy, now),
        };
        settle(&mut chosen, &backup.label, why, verdict);
    }
    facts.attempts.iter().for_each(|attempt| attempted(&mut chosen, facts, attempt, good, policy, now));
    chosen
}

fn hold(facts: &ExpireFacts<'_>, label: &str, now: Micros) -> Option<String> {
    let in_force = |until: Option<Micros>| until.is_none_or(|until| until > now);
    let held = facts.holds.iter().find(|held| held.label == label && in_force(held.until))?;
    Some(held.until.map_or_else(|| "on hold".to_owned(), |until| format!("on hold until {until}")))
}

/// `verdict`: why it stays, or why it goes, if nothing else keeps it.
fn settle(chosen: &mut Chosen, label: &str, mut why: Vec<String>, verdict: Result<String, String>) {
    match verdict {
        Err(reason) if why.is_empty() => {
            chosen.dropped.push(DroppedBackup { label: label.to_owned(), reason });
        }
        verdict => {
            why.extend(verdict.ok());
            chosen.kept.push(KeptBackup { label: label.to_owned(), reasons: why });
        }
    }
}

/// The newest good ones, the very newest in any case; if that holds pages that were damaged on the server, also the newest
/// without any.
fn newest<'a>(good: &[&'a BackupFacts], policy: &RetentionPolicy, reasons: &mut Reasons<'a>) {
    let count = usize::try_from(policy.last.max(1)).unwrap_or(usize::MAX);
    for (at, backup) in good.iter().rev().take(count).enumerate() {
        reasons.add(backup, if at == 0 { "the newest good one" } else { "one of the newest" });
    }
    if good.last().is_some_and(|newest| newest.damaged_pages > 0)
        && let Some(whole) = good.iter().rev().find(|backup| backup.damaged_pages == 0)
    {
        reasons.add(whole, "the newest without damaged pages");
    }
}

/// The newest good one on the way to where production is, or may be: a newer one may lie on a branch that it has left.
fn newest_of_production<'a>(facts: &ExpireFacts<'_>, good: &[&'a BackupFacts]) -> Vec<&'a BackupFacts> {
    let Some(identity) = current_identity(facts.log) else {
        return Vec::new();
    };
    let leaves = production(facts.log, identity).candidates();
    let newest = leaves.into_iter().filter_map(|leaf| {
        let way = path(facts.log, leaf);
        good.iter().rev().find(|backup| is_on_path(&way, backup)).copied()
    });
    newest.collect()
}

/// The first backup of each of the last `count` periods that have one; where there is a choice, one without damaged pages.
fn firsts<'a>(
    good: &[&'a BackupFacts],
    count: u32,
    period: Period,
    policy: &RetentionPolicy,
) -> Vec<&'a BackupFacts> {
    let mut first: BTreeMap<i64, &BackupFacts> = BTreeMap::new();
    for backup in good {
        let known = first.entry(period.of(backup.stopped_at, &policy.zone)).or_insert(backup);
        if known.damaged_pages > 0 && backup.damaged_pages == 0 {
            *known = backup;
        }
    }
    first.into_values().rev().take(usize::try_from(count).unwrap_or(usize::MAX)).collect()
}

/// For each stretch of log that reaches into the window: the backup from which its seconds are brought back.
fn bases<'a>(good: &[&'a BackupFacts], windows: &[Window], window_from: Micros) -> Vec<&'a BackupFacts> {
    let newest = good.last().map(|backup| backup.label.as_str());
    windows
        .iter()
        .filter(|window| is_wanted(window, newest, window_from))
        .filter_map(|window| base(window, good, window_from))
        .collect()
}

/// Whether seconds of it lie in the window, or it holds the newest good backup.
pub(super) fn is_wanted(window: &Window, newest: Option<&str>, window_from: Micros) -> bool {
    window.to >= window_from || window.backups.iter().any(|label| Some(label.as_str()) == newest)
}

/// The newest backup of a window that had ended when the days to keep began, or its first one.
pub(super) fn base<'a>(
    window: &Window,
    good: &[&'a BackupFacts],
    window_from: Micros,
) -> Option<&'a BackupFacts> {
    let find = |label: &String| good.iter().find(|backup| backup.label == *label).copied();
    let inside: Vec<&BackupFacts> = window.backups.iter().filter_map(find).collect();
    let early = || inside.iter().rev().filter(|backup| backup.stopped_at <= window_from);
    let whole = early().find(|backup| backup.damaged_pages == 0);
    whole.or_else(|| early().next()).or(inside.first()).copied()
}

/// Of a backup that is no good: it goes when it is old and a newer good one exists.
fn spoiled(
    what: &str,
    at: Option<Micros>,
    good: &[&BackupFacts],
    policy: &RetentionPolicy,
    now: Micros,
) -> Result<String, String> {
    let newest = good.last().map(|backup| backup.stopped_at);
    let until = Micros(now.0.saturating_sub(i64::from(policy.failed_days).saturating_mul(DAY)));
    if newest.is_none() || at.is_some_and(|at| newest.is_some_and(|newest| at > newest)) {
        return Ok(format!("{what}, and no newer one is good"));
    }
    if at.is_none_or(|at| at <= until) {
        return Err(format!("{what}, and a newer one is good"));
    }
    Ok(format!("{what}, for {} days", policy.failed_days))
}

fn attempted(
    chosen: &mut Chosen,
    facts: &ExpireFacts<'_>,
    attempt: &Attempted,
    good: &[&BackupFacts],
    policy: &RetentionPolicy,
    now: Micros,
) {
    let why = hold(facts, &attempt.label, now).into_iter().collect();
    let verdict = if attempt.running {
        Ok("running".to_owned())
    } else {
        spoiled("failed", attempt.at, good, policy, now)
    };
    settle(chosen, &attempt.label, why, verdict);
}
