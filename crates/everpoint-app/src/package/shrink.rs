//! What of a package fits under the provider's limit.

use everpoint_core::FailureClass;
use everpoint_core::package::{ClusterShare, ClusterSize, fit};
use everpoint_core::words;

use super::NOTHING_NEW;
use super::build::{BuildRequest, Part};
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
    request: &BuildRequest,
    shortfalls: &mut Vec<String>,
) -> Result<(), AppError> {
    let sizes: Vec<ClusterSize> = parts.iter().map(size).collect();
    let shares = fit(&sizes, request.limit.map(|limit| limit.saturating_sub(FRONT)));
    if shares.iter().all(|share| share.log == 0 && !share.base) {
        let arrived = |part: &Part<'_>| request.arrived.clusters.contains_key(&part.context.name);
        let known = parts.iter().zip(&sizes).all(|(part, size)| size.base == 0 || arrived(part));
        return Err(empty(&sizes, known, request.limit));
    }
    for ((part, share), size) in parts.iter_mut().zip(shares).zip(&sizes) {
        leave_out(part, share, size, shortfalls);
    }
    Ok(())
}

/// Why nothing would go in. `known`: packages that arrived hold log of every cluster that has an image.
fn empty(sizes: &[ClusterSize], known: bool, limit: Option<u64>) -> AppError {
    let (log, image) =
        (sizes.iter().any(|size| !size.log.is_empty()), sizes.iter().any(|size| size.base > 0));
    let limit = limit.unwrap_or(u64::MAX);
    let failed =
        |code: &str, class, message: String| AppError::new(code, class, "make", "the package", message);
    if !log && !image {
        let message = "there is neither an image nor new log of any cluster".to_owned();
        let mut error = failed("package.empty", FailureClass::Failed, message);
        error.retryable = true;
        return error.hint("take a backup: everpoint backup CLUSTER; nothing was sent and no call was spent");
    }
    if !log && known {
        let message = format!(
            "there is nothing new to send: the servers wrote nothing since the last package, and no image fits \
             under the provider's limit of {}",
            words::size(limit)
        );
        let error = failed(NOTHING_NEW, FailureClass::Failed, message);
        return error.hint("no call was spent; raise `limit` of the provider if images are to be sent, too");
    }
    let least = if log { "segment of log" } else { "image" };
    let message = format!("not even one {least} fits under the provider's limit of {}", words::size(limit));
    failed("package.limit", FailureClass::Usage, message).hint("raise `limit` of the provider")
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
            "{name}: the base image {} ({}) is left out: the provider's limit",
            record.label,
            words::size(bytes)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_nothing_goes_in_is_told_as_it_is() {
        let size = |base, log: &[u64]| ClusterSize { base, log: log.to_vec() };
        let none = empty(&[size(0, &[])], true, None);
        assert!(none.code == "package.empty" && none.retryable && none.hint.is_some(), "{none}");
        let idle = empty(&[size(900, &[]), size(0, &[])], true, Some(100));
        assert!(idle.code == NOTHING_NEW && idle.message.contains("wrote nothing since"), "{idle}");
        let first = empty(&[size(900, &[])], false, Some(100));
        assert!(first.code == "package.limit" && first.message.contains("not even one image"), "{first}");
        let log = empty(&[size(900, &[500])], true, Some(100));
        assert!(log.code == "package.limit" && log.message.contains("one segment of log"), "{log}");
    }
}
