//! From what was measured to what is wrong.

use super::{AlertKey, AlertKind, Observation};
use crate::words::size;

/// When a measure becomes an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Log that is behind for longer is late: seconds.
    pub lag_seconds: u64,
    /// Log that is further behind is late, however short the time: bytes.
    pub lag_bytes: u64,
    /// Less free space than this share of the whole is little: percent.
    pub free_percent: u8,
    /// So many failed backups in a row are more than bad luck.
    pub failures_in_a_row: u32,
    /// A newest good backup that is older is too old: seconds.
    pub backup_age_seconds: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            lag_seconds: 60,
            lag_bytes: 1 << 30,
            free_percent: 20,
            failures_in_a_row: 3,
            backup_age_seconds: 26 * 3600,
        }
    }
}

/// Space that has become little counts as enough again only above the threshold by so much: percent.
const SPACE_SLACK: u8 = 1;

/// How storing the log stands.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CaptureHealth {
    /// Nothing stores the log now: neither a stream nor archive_command.
    pub nobody: bool,
    /// Bytes that only the server has; `None` if the server can't be asked.
    pub lag_bytes: Option<u64>,
    /// At most so much would be lost now: seconds.
    pub lag_seconds: Option<f64>,
}

/// What was measured of a cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClusterHealth {
    /// Protection has just been started: what it has not had the time for is not wrong yet, and not right either.
    pub settling: bool,
    /// Why the server does not answer.
    pub server_error: Option<String>,
    /// `None`: no log was ever stored.
    pub capture: Option<CaptureHealth>,
    /// Why storing the log fails, if it said so.
    pub capture_error: Option<String>,
    /// Failed backups since the last good one.
    pub failures: u32,
    /// Why the last of them failed.
    pub last_failure: Option<String>,
    /// Seconds since the newest good backup ended; `None`: there is none.
    pub backup_age_seconds: Option<f64>,
    /// Log is missing after the newest good backup, in words.
    pub gap: Option<String>,
    /// The slot was given up and no backup was taken since, in words.
    pub slot_given_up: Option<String>,
    /// A slot of ours that nobody uses, in words.
    pub orphaned_slot: Option<String>,
    /// What the image of the newest good backup lacks, in words.
    pub incomplete: Option<String>,
    /// Everpoint's own files inside of the server's directories, in words.
    pub misplaced: Option<String>,
    /// Another server that stores log as this cluster's, in words.
    pub two_servers: Option<String>,
}

/// Space of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceHealth {
    /// Free bytes.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// The last delivery to a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadHealth {
    /// It arrived.
    Arrived,
    /// It did not, in words.
    Failed(String),
}

/// The call budget of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BudgetState {
    /// Spent as planned, or not due yet.
    Fine,
    /// A call is overdue, in words.
    Unspent(String),
    /// A call was refused, in words.
    Refused(String),
}

fn judge(kind: AlertKind, subject: &str, wrong: Option<String>) -> Observation {
    let key = AlertKey::new(kind, subject);
    match wrong {
        Some(message) => Observation::Wrong(key, message),
        None => Observation::Right(key),
    }
}

/// What is wrong with a cluster, and what is not.
#[must_use]
pub fn cluster(name: &str, health: &ClusterHealth, thresholds: &Thresholds) -> Vec<Observation> {
    let failure = health.last_failure.clone().unwrap_or_else(|| "it does not say why".to_owned());
    let failed = (health.failures > 0).then(|| failure.clone());
    let failing = (health.failures >= thresholds.failures_in_a_row)
        .then(|| format!("{} backups failed in a row, the last: {failure}", health.failures));
    let mut seen = vec![
        judge(AlertKind::ServerDown, name, health.server_error.clone()),
        judge(AlertKind::BackupFailed, name, failed),
        judge(AlertKind::BackupFailing, name, failing),
        judge(AlertKind::Gap, name, health.gap.clone()),
        judge(AlertKind::SlotGivenUp, name, health.slot_given_up.clone()),
        judge(AlertKind::SlotOrphaned, name, health.orphaned_slot.clone()),
        judge(AlertKind::BackupIncomplete, name, health.incomplete.clone()),
        judge(AlertKind::Misplaced, name, health.misplaced.clone()),
        judge(AlertKind::TwoServers, name, health.two_servers.clone()),
    ];
    if !health.settling {
        seen.push(judge(AlertKind::BackupOld, name, old(health.backup_age_seconds, thresholds)));
    }
    // A server that is down has no log to store: one alert is enough for one cause. What was said before stays said.
    if health.server_error.is_none() && !health.settling {
        seen.push(judge(AlertKind::ArchivingFailed, name, not_stored(health)));
        seen.push(judge(AlertKind::ArchivingLag, name, late(health, thresholds)));
    }
    seen
}

fn old(age: Option<f64>, thresholds: &Thresholds) -> Option<String> {
    match age {
        None => Some("there is no good backup: nothing can be restored".to_owned()),
        Some(age) if age > thresholds.backup_age_seconds as f64 => {
            Some(format!("the newest good backup is {:.0} hours old", age / 3600.0))
        }
        Some(_) => None,
    }
}

fn not_stored(health: &ClusterHealth) -> Option<String> {
    if let Some(error) = &health.capture_error {
        return Some(error.clone());
    }
    match &health.capture {
        None => Some("no log is stored".to_owned()),
        Some(capture) if capture.nobody => {
            Some("no capture runs: the next commit would be lost with the server".to_owned())
        }
        Some(_) => None,
    }
}

fn late(health: &ClusterHealth, thresholds: &Thresholds) -> Option<String> {
    let capture = health.capture.as_ref()?;
    let bytes = capture.lag_bytes?;
    let seconds = capture.lag_seconds.filter(|seconds| bytes > 0 && *seconds > thresholds.lag_seconds as f64);
    if let Some(seconds) = seconds {
        return Some(format!("{} of log are not stored, for {seconds:.0} s", size(bytes)));
    }
    (bytes > thresholds.lag_bytes).then(|| format!("{} of log are not stored", size(bytes)))
}

/// Whether little space is left. `was_low`: it was so already.
#[must_use]
pub fn space(repository: &str, health: SpaceHealth, thresholds: &Thresholds, was_low: bool) -> Observation {
    let percent = u128::from(health.free) * 100 / u128::from(health.total.max(1));
    let slack = if was_low { SPACE_SLACK } else { 0 };
    let low = percent < u128::from(thresholds.free_percent.saturating_add(slack));
    let message = low.then(|| format!("{percent} % free ({})", size(health.free)));
    judge(AlertKind::SpaceLow, repository, message)
}

/// Whether the last package arrived.
#[must_use]
pub fn upload(provider: &str, health: &UploadHealth) -> Observation {
    let failed = match health {
        UploadHealth::Arrived => None,
        UploadHealth::Failed(message) => Some(message.clone()),
    };
    judge(AlertKind::UploadFailed, provider, failed)
}

/// Whether the budget is used as it should be.
#[must_use]
pub fn budget(provider: &str, state: &BudgetState) -> [Observation; 2] {
    let (unspent, refused) = match state {
        BudgetState::Fine => (None, None),
        BudgetState::Unspent(message) => (Some(message.clone()), None),
        BudgetState::Refused(message) => (None, Some(message.clone())),
    };
    [judge(AlertKind::BudgetUnspent, provider, unspent), judge(AlertKind::BudgetRefused, provider, refused)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> ClusterHealth {
        let capture = CaptureHealth { nobody: false, lag_bytes: Some(0), lag_seconds: Some(0.4) };
        ClusterHealth { capture: Some(capture), backup_age_seconds: Some(60.0), ..ClusterHealth::default() }
    }

    fn wrong(health: &ClusterHealth) -> Vec<AlertKind> {
        let seen = cluster("shop", health, &Thresholds::default());
        seen.into_iter()
            .filter_map(|seen| match seen {
                Observation::Wrong(key, _) => Some(key.kind),
                _ => None,
            })
            .collect()
    }

    fn with_capture(running: bool, lag_bytes: u64, lag_seconds: Option<f64>) -> ClusterHealth {
        let capture = CaptureHealth { nobody: !running, lag_bytes: Some(lag_bytes), lag_seconds };
        ClusterHealth { capture: Some(capture), ..healthy() }
    }

    #[test]
    fn own_files_inside_the_database_are_critical() {
        let health = ClusterHealth { misplaced: Some("the repository".to_owned()), ..healthy() };
        let key = AlertKey::new(AlertKind::Misplaced, "shop");
        let found = |health: &ClusterHealth| cluster("shop", health, &Thresholds::default());
        assert!(found(&health).contains(&Observation::Wrong(key.clone(), "the repository".to_owned())));
        assert!(found(&healthy()).contains(&Observation::Right(key)));
        assert_eq!(AlertKind::Misplaced.severity(), crate::alert::Severity::Critical);
    }

    #[test]
    fn a_healthy_cluster_alerts_nobody() {
        assert_eq!(wrong(&healthy()), []);
        assert_eq!(wrong(&with_capture(true, 0, Some(9999.0))), [], "an idle server is not behind");
        assert_eq!(wrong(&with_capture(true, 999, Some(2.0))), []);
        assert_eq!(wrong(&with_capture(true, 20 << 20, None)), [], "archive_command comes by whole segments");
    }

    #[test]
    fn each_condition_has_its_alert() {
        assert_eq!(wrong(&with_capture(true, 1, Some(61.0))), [AlertKind::ArchivingLag]);
        assert_eq!(wrong(&with_capture(true, 2 << 30, Some(1.0))), [AlertKind::ArchivingLag]);
        assert_eq!(wrong(&with_capture(false, 0, Some(1.0))), [AlertKind::ArchivingFailed]);
        let failed = ClusterHealth { failures: 1, ..healthy() };
        assert_eq!(wrong(&failed), [AlertKind::BackupFailed]);
        let failing = ClusterHealth { failures: 3, ..healthy() };
        assert_eq!(wrong(&failing), [AlertKind::BackupFailed, AlertKind::BackupFailing]);
        let old = ClusterHealth { backup_age_seconds: Some(27.0 * 3600.0), ..healthy() };
        assert_eq!(wrong(&old), [AlertKind::BackupOld]);
        let none = ClusterHealth { backup_age_seconds: None, ..healthy() };
        assert_eq!(wrong(&none), [AlertKind::BackupOld]);
        let gap = ClusterHealth { gap: Some("0/1 to 0/2".to_owned()), ..healthy() };
        assert_eq!(wrong(&gap), [AlertKind::Gap]);
        let incomplete = ClusterHealth { incomplete: Some("lacks /etc/x".to_owned()), ..healthy() };
        assert_eq!(wrong(&incomplete), [AlertKind::BackupIncomplete]);
        let slot = ClusterHealth { slot_given_up: Some("it kept 8 GiB".to_owned()), ..healthy() };
        assert_eq!(wrong(&slot), [AlertKind::SlotGivenUp]);
        let orphan = ClusterHealth { orphaned_slot: Some("everpoint_old".to_owned()), ..healthy() };
        assert_eq!(wrong(&orphan), [AlertKind::SlotOrphaned]);
    }

    #[test]
    fn a_server_that_is_down_is_one_alert() {
        let down = ClusterHealth {
            server_error: Some("refused".to_owned()),
            capture_error: Some("refused".to_owned()),
            ..with_capture(false, 1, Some(999.0))
        };
        assert_eq!(wrong(&down), [AlertKind::ServerDown]);
    }

    #[test]
    fn what_was_just_started_is_given_time() {
        let fresh = ClusterHealth { settling: true, ..ClusterHealth::default() };
        assert_eq!(wrong(&fresh), []);
        assert_eq!(
            wrong(&ClusterHealth { settling: false, ..fresh }),
            [AlertKind::BackupOld, AlertKind::ArchivingFailed]
        );
    }

    #[test]
    fn space_at_the_threshold_does_not_flap() {
        let low = |free, was_low| {
            let seen = space("local", SpaceHealth { free, total: 100 }, &Thresholds::default(), was_low);
            matches!(seen, Observation::Wrong(..))
        };
        assert!(!low(20, false));
        assert!(low(19, false));
        assert!(low(20, true), "a little more is not yet enough");
        assert!(!low(21, true));
    }

    #[test]
    fn deliveries_and_budgets() {
        assert!(matches!(upload("vault", &UploadHealth::Arrived), Observation::Right(_)));
        assert!(matches!(upload("vault", &UploadHealth::Failed(String::new())), Observation::Wrong(..)));
        let [unspent, refused] = budget("vault", &BudgetState::Unspent("due at 03:00".to_owned()));
        assert!(matches!(unspent, Observation::Wrong(..)));
        assert!(matches!(refused, Observation::Right(_)));
        let [unspent, refused] = budget("vault", &BudgetState::Refused("spent".to_owned()));
        assert!(matches!(unspent, Observation::Right(_)));
        assert!(matches!(refused, Observation::Wrong(..)));
    }
}
