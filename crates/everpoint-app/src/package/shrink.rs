//! What of a package fits under the provider's limit.

use everpoint_core::FailureClass;
use everpoint_core::package::{ClusterShare, ClusterSize, fit};

use super::build::Part;
use super::log::MadeLog;
use crate::AppError;

/// Bytes that a member takes in the tar beyond its own, at most.
const TAR_OVERHEAD: u64 = 2048;
/// Bytes that a member takes in manifest and sums, about.
const LISTED: u64 = 600;
/// Bytes of manifest and instructions without members, about.
const FRONT: u64 = 64 << 10;

/// Bytes that a member takes in the package.
fn weight(size: u64) -> u64 {
    // age adds 16 bytes to each 64 KiB.
    size + size / 4000 + TAR_OVERHEAD + LISTED
}

/// Leaves out what does not fit, and says so.
pub(super) fn shrink(
    parts: &mut [Part<'_>],
    limit: Option<u64>,
    shortfalls: &mut Vec<String>,
) -> Result<(), AppError> {
    let sizes: Vec<ClusterSize> = parts.iter().map(size).collect();
    let shares = fit(&sizes, limit.map(|limit| limit.saturating_sub(FRONT)));
    let nothing = shares.iter().all(|share| share.log == 0 && !share.base);
    if let Some(limit) = limit.filter(|_| nothing) {
        let message = format!("not even one segment of log fits under the provider's limit of {limit} bytes");
        return Err(AppError::new("package.limit", FailureClass::Usage, "make", "the package", message)
            .hint("raise `limit` of the provider"));
    }
    for ((part, share), size) in parts.iter_mut().zip(shares).zip(&sizes) {
        leave_out(part, share, size, shortfalls);
    }
    Ok(())
}

fn size(part: &Part<'_>) -> ClusterSize {
    let mut base = part.base.as_ref().map_or(0, |(_, made)| weight(made.member.size));
    let mut new = Vec::new();
    for log in &part.logs {
        let mut sizes: Vec<u64> = log.sizes().map(weight).collect();
        let history = log.history.as_ref().map_or(0, |made| weight(made.member.size));
        // The history goes in with the first segment that does.
        let first = if log.new_segments() > 0 { log.again } else { 0 };
        if let Some(size) = sizes.get_mut(first) {
            *size += history;
        }
        new.extend(sizes.split_off(log.again));
        base += sizes.iter().sum::<u64>();
    }
    ClusterSize { base, log: new }
}

fn leave_out(part: &mut Part<'_>, share: ClusterShare, size: &ClusterSize, shortfalls: &mut Vec<String>) {
    let name = &part.context.name;
    if !share.base {
        part.logs.iter_mut().for_each(MadeLog::leave_out_again);
    }
    if !share.base
        && let Some((record, made)) = part.base.take()
    {
        let bytes = made.member.size;
        shortfalls.push(format!(
            "{name}: the base image {} ({bytes} bytes) is left out: the provider's limit",
            record.label
        ));
    }
    let missing = size.log.len() - share.log;
    if missing > 0 {
        shortfalls.push(format!(
            "{name}: the newest {missing} of {} new segments of log are left out: the provider's limit",
            size.log.len()
        ));
    }
    let mut left = share.log;
    for log in &mut part.logs {
        let here = log.new_segments().min(left);
        left -= here;
        if here < log.new_segments() {
            log.keep(here);
            part.plan = None;
        }
    }
}
