//! What expiry knows besides what planning knows: bundles, and attempts that came to nothing.

use everpoint_core::Micros;
use everpoint_core::retention::{Attempted, LogUnit};
use everpoint_repo::BackupListing;

use crate::facts::Facts;
use crate::{AppError, ClusterContext, upkeep};

/// The bundles of all branches.
pub(super) fn bundles(context: &ClusterContext) -> Result<Vec<LogUnit>, AppError> {
    let mut found = Vec::new();
    for branch in upkeep::branches(context)? {
        let (identity, id) = (branch.identity, &branch.id);
        let unit = |span| LogUnit { identity, branch: id.clone(), span };
        found.extend(branch.log.bundles()?.into_iter().map(|bundle| unit(bundle.span)));
    }
    Ok(found)
}

/// The listings that are no backups which planning knows.
pub(crate) fn attempts(facts: &Facts) -> Vec<Attempted> {
    let known = |label: &str| facts.backups.iter().any(|backup| backup.label == label);
    // A backup that planning can't place holds an image all the same: it is no attempt that came to nothing.
    let others = facts.listings.iter().filter(|listing| !known(&listing.label) && listing.record.is_none());
    others
        .map(|listing| Attempted {
            label: listing.label.clone(),
            at: begun(listing),
            running: listing.running,
        })
        .collect()
}

fn begun(listing: &BackupListing) -> Option<Micros> {
    let record = listing.record.as_ref().map(|record| record.started_at);
    let attempt = listing.attempt.as_ref().map(|attempt| attempt.started_at);
    let failure = listing.failure.as_ref().map(|failure| failure.at);
    record.or(attempt).or(failure).map(Micros).or_else(|| of_label(&listing.label))
}

/// Labels begin with the moment when the backup began, in UTC.
fn of_label(label: &str) -> Option<Micros> {
    let civil = jiff::civil::DateTime::strptime("%Y%m%d-%H%M%S", label.get(..15)?).ok()?;
    let stamp = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    Some(Micros(stamp.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_tells_when_it_was_given() {
        assert_eq!(of_label("20260129-143000F"), Some(Micros(1_769_697_000_000_000)));
        assert_eq!(of_label("20260129-143000"), Some(Micros(1_769_697_000_000_000)));
        assert_eq!(of_label("by hand"), None);
        assert_eq!(of_label(""), None);
    }
}
