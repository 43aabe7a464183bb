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

/// Limits that the log needs and that the configuration (`says`) does not grant: it may be an older or a newer one than that with
/// which the log was written.
pub(super) fn lacking(
    facts: &[(String, String)],
    says: &BTreeMap<String, String>,
) -> BTreeMap<&'static str, i64> {
    let mut lacking = BTreeMap::new();
    for (setting, in_log, default) in LIMITS {
        let values: Vec<i64> = facts
            .iter()
            .filter(|(name, _)| name == setting || name == in_log)
            .filter_map(|(_, value)| value.trim().parse().ok())
            .collect();
        let (Some(first), Some(largest)) = (values.first(), values.iter().max()) else { continue };
        // A number that can't be read may be larger than any: then what was raised later counts.
        let granted = says.get(setting).map_or(default, |value| value.trim().parse().unwrap_or(*first));
        if *largest > granted {
            lacking.insert(setting, *largest);
        }
    }
    lacking
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
    }

    #[test]
    fn what_the_configuration_of_now_lacks_is_lent_to_the_recovery() {
        let facts =
            facts(&[("max_connections", "200"), ("max_wal_senders", "10"), ("max_prepared_xacts", "7")]);
        let lacks = |says: &[(&str, &str)]| {
            let says = says.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            lacking(&facts, &says.collect())
        };
        let prepared = ("max_prepared_transactions", 7);
        assert_eq!(lacks(&[]), BTreeMap::from([("max_connections", 200), prepared]));
        assert_eq!(lacks(&[("max_connections", "50")]), BTreeMap::from([("max_connections", 200), prepared]));
        let enough = [("max_connections", "500"), ("max_prepared_transactions", "0x10")];
        assert_eq!(lacks(&enough), BTreeMap::new(), "nothing is lowered");
    }
}
