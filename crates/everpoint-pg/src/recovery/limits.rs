//! Settings that a replaying server must have at least as large as the one that wrote the log.

use std::collections::BTreeMap;

/// Names as PostgreSQL's configuration has them, names as its log has them, PostgreSQL's defaults.
const LIMITS: [(&str, &str, i64); 7] = [
    ("max_connections", "max_connections", 100),
    ("max_worker_processes", "max_worker_processes", 8),
    ("max_wal_senders", "max_wal_senders", 10),
    ("max_prepared_transactions", "max_prepared_xacts", 0),
    ("max_locks_per_transaction", "max_locks_per_xact", 64),
    ("max_replication_slots", "max_replication_slots", 10),
    ("max_active_replication_origins", "max_active_replication_origins", 10),
];

/// First version that knows the last of them.
const ORIGINS_SINCE: u32 = 18;

/// The largest value of each limit among PostgreSQL's defaults, the facts and the control file (in the order of
/// [`crate::control::Control::limits`]).
pub(super) fn largest(
    major: u32,
    facts: &[(String, String)],
    control: Option<[i32; 5]>,
) -> BTreeMap<&'static str, i64> {
    let mut limits = BTreeMap::new();
    for (index, (setting, in_log, default)) in LIMITS.iter().enumerate() {
        if *setting == "max_active_replication_origins" && major < ORIGINS_SINCE {
            continue;
        }
        let stated = facts
            .iter()
            .filter(|(name, _)| name == setting || name == in_log)
            .filter_map(|(_, value)| value.trim().parse::<i64>().ok());
        let controlled = control.and_then(|limits| limits.get(index).copied()).map(i64::from);
        let largest = stated.chain(controlled).chain([*default]).max().unwrap_or(*default);
        limits.insert(*setting, largest);
    }
    limits
}

/// Limits that were raised after the configuration was backed up: named more than once in the facts, later larger.
pub(super) fn raised(facts: &[(String, String)]) -> BTreeMap<&'static str, i64> {
    let mut raised = BTreeMap::new();
    for (setting, in_log, _) in LIMITS {
        let values: Vec<i64> = facts
            .iter()
            .filter(|(name, _)| name == setting || name == in_log)
            .filter_map(|(_, value)| value.trim().parse().ok())
            .collect();
        if let (Some(first), Some(largest)) = (values.first(), values.iter().max())
            && largest > first
        {
            raised.insert(setting, *largest);
        }
    }
    raised
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_largest_of_all_sources_counts() {
        let facts =
            facts(&[("max_connections", "50"), ("max_prepared_xacts", "7"), ("max_connections", "300")]);
        let limits = largest(15, &facts, Some([20, 30, 2, 3, 64]));
        assert_eq!(limits["max_connections"], 300);
        assert_eq!(limits["max_worker_processes"], 30);
        assert_eq!(limits["max_wal_senders"], 10);
        assert_eq!(limits["max_prepared_transactions"], 7);
        assert!(!limits.contains_key("max_active_replication_origins"));
        assert_eq!(raised(&facts), BTreeMap::from([("max_connections", 300)]));
    }
}
