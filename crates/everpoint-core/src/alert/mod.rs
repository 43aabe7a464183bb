//! Alerts: what is wrong is told once, again after a while, and once more when it is over.

mod conditions;
mod delivery;
mod kind;

use std::collections::{BTreeMap, BTreeSet};

use crate::Micros;

pub use conditions::{
    BudgetState, CaptureHealth, ClusterHealth, SpaceHealth, Thresholds, UploadHealth, budget, cluster, space,
    upload,
};
pub use delivery::{LastCall, LastRun, budget_state, delivery};
pub use kind::{AlertKind, Severity};

/// What an alert is about. Two alerts with the same key are one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlertKey {
    /// What is wrong.
    pub kind: AlertKind,
    /// With whom: name of a cluster, repository or provider.
    pub subject: String,
}

impl AlertKey {
    /// A key.
    #[must_use]
    pub fn new(kind: AlertKind, subject: impl Into<String>) -> Self {
        Self { kind, subject: subject.into() }
    }
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// The condition holds, in words.
    Wrong(AlertKey, String),
    /// It does not hold (any more).
    Right(AlertKey),
    /// Something happened that has no end and is told each time, such as a success.
    Happened(AlertKey, String),
}

/// A condition that holds and was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing {
    /// Since when.
    pub since: Micros,
    /// When it was told last.
    pub told: Micros,
    /// As it was seen last, in words.
    pub message: String,
}

/// What there is to tell about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It began.
    Firing,
    /// It still holds.
    Reminder,
    /// It is over.
    Resolved,
    /// It happened.
    Happened,
}

impl Change {
    /// A stable word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Reminder => "reminder",
            Self::Resolved => "resolved",
            Self::Happened => "happened",
        }
    }

    /// The change of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Firing, Self::Reminder, Self::Resolved, Self::Happened].into_iter().find(|c| c.word() == word)
    }
}

/// A message that is to go out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// About what.
    pub key: AlertKey,
    /// What changed.
    pub change: Change,
    /// When it was seen.
    pub at: Micros,
    /// Since when it holds, or held.
    pub since: Micros,
    /// In words.
    pub message: String,
}

/// What fires now. Survives a restart when [`Alerts::firing`] is kept and given to [`Alerts::new`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alerts {
    firing: BTreeMap<AlertKey, Firing>,
    /// Seen once, and since when: told if they are seen again, see [`AlertKind::may_pass`].
    pending: BTreeMap<AlertKey, Micros>,
}

impl Alerts {
    /// Begins with what fired before.
    #[must_use]
    pub fn new(firing: BTreeMap<AlertKey, Firing>) -> Self {
        Self { firing, pending: BTreeMap::new() }
    }

    /// What fires now.
    #[must_use]
    pub const fn firing(&self) -> &BTreeMap<AlertKey, Firing> {
        &self.firing
    }

    /// Whether the condition was told and is not over.
    #[must_use]
    pub fn is_firing(&self, key: &AlertKey) -> bool {
        self.firing.contains_key(key)
    }

    /// What fires of subjects that there are no more, so that nobody would ever say that it is over. `known`: names of
    /// clusters, repositories and providers; a subject may also end with one ("check of shop").
    #[must_use]
    pub fn orphans(&self, known: &BTreeSet<&str>) -> Vec<AlertKey> {
        let named = |key: &&AlertKey| {
            let name = key.subject.rsplit_once(" of ").map_or(key.subject.as_str(), |(_, name)| name);
            known.contains(name)
        };
        self.firing.keys().filter(|key| !named(key)).cloned().collect()
    }

    /// Takes what was seen at `now`; returns what there is to tell. A condition that holds on is told again when
    /// `repeat_after` microseconds have passed since it was told; never with `None`.
    pub fn observe(
        &mut self,
        observation: Observation,
        now: Micros,
        repeat_after: Option<i64>,
    ) -> Option<Notice> {
        match observation {
            Observation::Happened(key, message) => {
                Some(Notice { key, change: Change::Happened, at: now, since: now, message })
            }
            Observation::Right(key) => {
                self.pending.remove(&key);
                let over = self.firing.remove(&key)?;
                let change = Change::Resolved;
                Some(Notice { key, change, at: now, since: over.since, message: over.message })
            }
            Observation::Wrong(key, message) => self.wrong(key, message, now, repeat_after),
        }
    }

    fn wrong(
        &mut self,
        key: AlertKey,
        message: String,
        now: Micros,
        repeat_after: Option<i64>,
    ) -> Option<Notice> {
        let Some(known) = self.firing.get_mut(&key) else {
            let seen = self.pending.remove(&key);
            if seen.is_none() && key.kind.may_pass() {
                self.pending.insert(key, now);
                return None;
            }
            let since = seen.unwrap_or(now);
            let firing = Firing { since, told: now, message: message.clone() };
            self.firing.insert(key.clone(), firing);
            return Some(Notice { key, change: Change::Firing, at: now, since, message });
        };
        known.message.clone_from(&message);
        // A clock that was set back must not silence the reminders until it has caught up.
        known.told = known.told.min(now);
        let due = repeat_after.is_some_and(|after| now.0.saturating_sub(known.told.0) >= after);
        due.then(|| {
            known.told = now;
            Notice { key, change: Change::Reminder, at: now, since: known.since, message }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn key() -> AlertKey {
        AlertKey::new(AlertKind::BackupFailed, "shop")
    }

    fn wrong(alerts: &mut Alerts, minute: i64) -> Option<Change> {
        let observation = Observation::Wrong(key(), "no disk".to_owned());
        alerts.observe(observation, Micros(minute * MINUTE), Some(60 * MINUTE)).map(|notice| notice.change)
    }

    fn right(alerts: &mut Alerts, minute: i64) -> Option<Notice> {
        alerts.observe(Observation::Right(key()), Micros(minute * MINUTE), Some(60 * MINUTE))
    }

    #[test]
    fn a_condition_is_told_once_again_after_a_while_and_when_it_is_over() {
        let mut alerts = Alerts::default();
        assert_eq!(right(&mut alerts, 0), None, "nothing was wrong");
        assert_eq!(wrong(&mut alerts, 1), Some(Change::Firing));
        assert_eq!(wrong(&mut alerts, 2), None);
        assert_eq!(wrong(&mut alerts, 60), None);
        assert_eq!(wrong(&mut alerts, 61), Some(Change::Reminder));
        assert_eq!(wrong(&mut alerts, 62), None);
        let over = right(&mut alerts, 63).unwrap();
        assert_eq!((over.change, over.since), (Change::Resolved, Micros(MINUTE)));
        assert_eq!(right(&mut alerts, 64), None);
        assert_eq!(wrong(&mut alerts, 65), Some(Change::Firing));
    }

    #[test]
    fn a_restart_neither_repeats_nor_forgets() {
        let mut alerts = Alerts::default();
        wrong(&mut alerts, 1);
        let mut restarted = Alerts::new(alerts.firing().clone());
        assert_eq!(wrong(&mut restarted, 2), None);
        assert_eq!(right(&mut restarted, 3).unwrap().change, Change::Resolved);
    }

    #[test]
    fn a_clock_set_back_does_not_silence_reminders() {
        let mut alerts = Alerts::default();
        wrong(&mut alerts, 100_000);
        assert_eq!(wrong(&mut alerts, 10), None);
        assert_eq!(wrong(&mut alerts, 70), Some(Change::Reminder));
    }

    #[test]
    fn what_may_pass_is_told_when_it_is_seen_twice_in_a_row() {
        let mut alerts = Alerts::default();
        let key = AlertKey::new(AlertKind::RepositoryFailed, "shop");
        let mut see = |wrong: bool, minute: i64| {
            let seen = match wrong {
                true => Observation::Wrong(key.clone(), "wrong key".to_owned()),
                false => Observation::Right(key.clone()),
            };
            alerts.observe(seen, Micros(minute * MINUTE), None).map(|notice| (notice.change, notice.since))
        };
        for minute in 0..10 {
            assert_eq!(see(minute % 2 == 0, minute), None, "a key is replaced again and again");
        }
        assert_eq!(see(true, 10), None);
        assert_eq!(see(true, 11), Some((Change::Firing, Micros(10 * MINUTE))));
        assert_eq!(see(true, 12), None);
        assert_eq!(see(false, 13), Some((Change::Resolved, Micros(10 * MINUTE))));
    }

    #[test]
    fn what_fires_of_something_that_is_gone_is_found() {
        let mut alerts = Alerts::default();
        wrong(&mut alerts, 1);
        let job = AlertKey::new(AlertKind::JobFailed, "check of shop");
        alerts.observe(Observation::Wrong(job.clone(), String::new()), Micros(5), None);
        assert_eq!(alerts.orphans(&BTreeSet::from(["shop", "local"])), []);
        assert_eq!(alerts.orphans(&BTreeSet::from(["local"])), [key(), job]);
    }

    #[test]
    fn keys_do_not_disturb_each_other() {
        let mut alerts = Alerts::default();
        wrong(&mut alerts, 1);
        let other = AlertKey::new(AlertKind::BackupFailed, "orders");
        let seen = Observation::Wrong(other.clone(), String::new());
        assert!(alerts.observe(seen, Micros(2 * MINUTE), None).is_some());
        assert!(alerts.observe(Observation::Right(other), Micros(3 * MINUTE), None).is_some());
        assert!(alerts.is_firing(&key()));
    }

    #[test]
    fn words_of_changes_and_kinds_are_read_back() {
        for change in [Change::Firing, Change::Reminder, Change::Resolved, Change::Happened] {
            assert_eq!(Change::from_word(change.word()), Some(change));
        }
        for kind in AlertKind::ALL {
            assert_eq!(AlertKind::from_word(kind.word()), Some(kind));
        }
    }

    proptest! {
        /// Whatever is seen, beginnings and ends alternate, and reminders come only between them.
        #[test]
        fn beginnings_and_ends_alternate(seen in prop::collection::vec((any::<bool>(), 0..300_i64), 0..60)) {
            let mut alerts = Alerts::default();
            let mut open = false;
            for (is_wrong, minute) in seen {
                let change = if is_wrong { wrong(&mut alerts, minute) } else { right(&mut alerts, minute).map(|n| n.change) };
                match change {
                    Some(Change::Firing) => { prop_assert!(!open); open = true; }
                    Some(Change::Reminder) => prop_assert!(open),
                    Some(Change::Resolved) => { prop_assert!(open); open = false; }
                    Some(Change::Happened) => prop_assert!(false),
                    None => {}
                }
                prop_assert_eq!(open, alerts.is_firing(&key()));
            }
        }
    }
}
