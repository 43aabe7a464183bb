//! What goes into a daily package: so much log that the packages which arrived hold every second together, and under a
//! provider's limit as much of the rest as fits.

use crate::plan::NeededPiece;
use crate::position::{BranchId, LogOffset, Span};

/// The stored log of one branch, as a package sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BranchLog {
    /// What is stored of it, first to last.
    pub stored: Span,
    /// Up to where packages that arrived hold it; `None`: none has anything of it.
    pub arrived: Option<LogOffset>,
    /// From where a replay from the base image to the newest moment reads it; `None`: that replay does not.
    pub replayed_from: Option<LogOffset>,
}

/// The log of a branch that has to go into the next package; `None`: nothing of it. `first_package`: none of this cluster
/// has arrived, so what happened on branches that were left before the base image can't be asked of any package.
#[must_use]
pub fn log_needed(branch: BranchLog, first_package: bool) -> Option<Span> {
    let new_from = match branch.arrived {
        Some(arrived) => Some(arrived),
        None if first_package => branch.replayed_from,
        None => Some(branch.stored.from),
    };
    let from = match (new_from, branch.replayed_from) {
        (Some(new), Some(replayed)) => new.min(replayed),
        (one, other) => one.or(other)?,
    };
    let from = from.max(branch.stored.from);
    (from < branch.stored.to).then_some(Span { from, to: branch.stored.to })
}

impl BranchLog {
    /// Whether packages that arrived hold all of this file: then it goes in only together with the image that it belongs to.
    /// Else the log since an old image would take the room of what is new, day by day.
    #[must_use]
    pub fn holds(&self, file: Span) -> bool {
        self.arrived.is_some_and(|arrived| file.to <= arrived)
    }
}

/// Bytes that a cluster would take in the package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSize {
    /// Its base image, with the log that arrived before and goes in again only for its sake; 0: it has none.
    pub base: u64,
    /// Its log that is in no package that arrived, in files that follow each other, the oldest first.
    pub log: Vec<u64>,
}

/// What of a cluster goes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterShare {
    /// Its base image.
    pub base: bool,
    /// So many files of its log, from the oldest on: what is left out then follows in the next package.
    pub log: usize,
}

/// Chooses what goes in, so that all of it has at most `limit` bytes. Clusters stand by priority, the first is the most
/// important. Log goes before images, as nothing else can replace it; when not even all log fits, that of the first
/// clusters goes in, and of the first that does not fit its oldest part: a day is only empty if the limit is less than one
/// file.
#[must_use]
pub fn fit(clusters: &[ClusterSize], limit: Option<u64>) -> Vec<ClusterShare> {
    let mut left = limit.unwrap_or(u64::MAX);
    let mut shares: Vec<ClusterShare> = Vec::new();
    let mut cut = false;
    for cluster in clusters {
        let mut log = 0;
        for bytes in &cluster.log {
            cut |= *bytes > left;
            if cut {
                break;
            }
            left -= bytes;
            log += 1;
        }
        shares.push(ClusterShare { base: false, log });
    }
    for (cluster, share) in clusters.iter().zip(&mut shares) {
        // Without all of its log an image could not be brought to now.
        let whole = share.log == cluster.log.len();
        if whole && cluster.base > 0 && cluster.base <= left {
            left -= cluster.base;
            share.base = true;
        }
    }
    shares
}

/// What is known of the size of a cluster's part before it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterRoom {
    /// Bytes of its image, as they are restored; 0: none goes in.
    pub image: u64,
    /// Bytes of its log, as they are restored.
    pub log: u64,
    /// Bytes that a backup of it took in the repository ...
    pub stored: u64,
    /// ... and that it has when it is restored.
    pub size: u64,
}

impl ClusterRoom {
    /// Bytes that of these so many take when they are compressed as the backup was; half if there is none.
    fn compressed(&self, bytes: u64) -> u64 {
        let (stored, size) =
            if self.size == 0 || self.stored == 0 { (1, 2) } else { (self.stored, self.size) };
        let scaled = u128::from(bytes) * u128::from(stored) / u128::from(size);
        u64::try_from(scaled).unwrap_or(u64::MAX).min(bytes)
    }
}

/// Bytes that making a package takes for a while: all its members, and, as each goes away only when it is in the file,
/// the largest of them a second time. An estimate: what fits exactly must not be refused, so it is rather too small.
#[must_use]
pub fn room_to_build(clusters: &[ClusterRoom]) -> u64 {
    let images = || clusters.iter().map(|cluster| cluster.compressed(cluster.image));
    let logs = clusters.iter().map(|cluster| cluster.compressed(cluster.log));
    let all = images().chain(logs).fold(0_u64, u64::saturating_add);
    all.saturating_add(images().max().unwrap_or_default())
}

/// Bytes that a member of a package takes at least in a repository, where it is compressed for speed.
#[must_use]
pub const fn room_to_import(member: u64) -> u64 {
    member.saturating_add(member / 5)
}

/// How many of the pieces that a replay needs begin in log that packages added.
#[must_use]
pub fn pieces_added(needed: &[NeededPiece], added: &[(BranchId, Span)]) -> usize {
    let inside = |piece: &&NeededPiece| {
        added.iter().any(|(branch, span)| {
            *branch == piece.branch && span.from <= piece.span.from && piece.span.from < span.to
        })
    };
    needed.iter().filter(inside).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(from: u64, to: u64) -> Span {
        Span { from: LogOffset(from), to: LogOffset(to) }
    }

    #[test]
    fn log_goes_on_where_the_last_package_that_arrived_ended_and_reaches_back_to_the_base() {
        let at = |arrived: Option<u64>, replayed: Option<u64>| BranchLog {
            stored: span(10, 90),
            arrived: arrived.map(LogOffset),
            replayed_from: replayed.map(LogOffset),
        };
        assert_eq!(log_needed(at(None, Some(50)), true), Some(span(50, 90)));
        assert_eq!(log_needed(at(Some(40), Some(50)), false), Some(span(40, 90)));
        assert_eq!(log_needed(at(Some(70), Some(50)), false), Some(span(50, 90)));
        assert_eq!(log_needed(at(Some(90), None), false), None);
        assert_eq!(log_needed(at(None, None), true), None, "left before the first package");
        assert_eq!(log_needed(at(None, None), false), Some(span(10, 90)), "appeared since");
    }

    #[test]
    fn room_for_a_package_is_that_of_all_members_and_once_more_of_the_largest_image() {
        let cluster = |image, log| ClusterRoom { image, log, stored: 25, size: 100 };
        assert_eq!(room_to_build(&[cluster(1000, 400), cluster(200, 40)]), 250 + 100 + 50 + 10 + 250);
        assert_eq!(room_to_build(&[]), 0);
        let unknown = ClusterRoom { image: 0, log: 100, stored: 0, size: 0 };
        assert_eq!(room_to_build(&[unknown]), 50);
        let hostile = ClusterRoom { image: u64::MAX, log: u64::MAX, stored: u64::MAX, size: 1 };
        assert_eq!(room_to_build(&[hostile, hostile]), u64::MAX);
    }

    #[test]
    fn over_the_limit_images_go_first_and_the_least_important_clusters() {
        let size = |base, log: &[u64]| ClusterSize { base, log: log.to_vec() };
        let two = [size(100, &[5, 5]), size(50, &[5])];
        let share = |base, log| ClusterShare { base, log };
        assert_eq!(fit(&two, None), [share(true, 2), share(true, 1)]);
        assert_eq!(fit(&two, Some(120)), [share(true, 2), share(false, 1)]);
        assert_eq!(fit(&two, Some(70)), [share(false, 2), share(true, 1)]);
        assert_eq!(fit(&two, Some(15)), [share(false, 2), share(false, 1)]);
        assert_eq!(fit(&two, Some(12)), [share(false, 2), share(false, 0)]);
        assert_eq!(fit(&two, Some(7)), [share(false, 1), share(false, 0)]);
    }

    #[test]
    fn under_a_limit_too_small_for_the_image_each_day_s_log_still_arrives() {
        // The image is old: the log since it outgrows the limit, each day's own log does not.
        let mut arrived = None;
        for day in 1..=20_u64 {
            let branch = BranchLog {
                stored: span(0, day * 4),
                arrived: arrived.map(LogOffset),
                replayed_from: Some(LogOffset(0)),
            };
            let needed = log_needed(branch, arrived.is_none()).unwrap();
            let files: Vec<Span> = (needed.from.0..needed.to.0).map(|at| span(at, at + 1)).collect();
            let new: Vec<_> = files.iter().filter(|file| !branch.holds(**file)).collect();
            let size = ClusterSize { base: 1000, log: vec![1; new.len()] };
            let share = fit(&[size], Some(10))[0];
            assert!(!share.base);
            arrived = new.get(..share.log).unwrap().last().map(|file| file.to.0);
            assert_eq!(arrived, Some(day * 4), "day {day}");
        }
    }

    proptest! {
        /// Days with calls that fail at random: what arrived holds every byte from the first package on.
        #[test]
        fn packages_that_arrived_tile_the_log(days in proptest::collection::vec((1_u64..50, any::<bool>(), 0_u64..100), 1..30)) {
            let (mut end, mut arrived, mut held) = (100_u64, None, Vec::<Span>::new());
            for (grown, ok, base_back) in days {
                end += grown;
                let branch = BranchLog {
                    stored: span(0, end),
                    arrived,
                    replayed_from: Some(LogOffset(end.saturating_sub(base_back))),
                };
                let needed = log_needed(branch, arrived.is_none());
                if let Some(needed) = needed.filter(|_| ok) {
                    held.push(needed);
                    arrived = Some(needed.to);
                }
            }
            for pair in held.windows(2) {
                prop_assert!(pair[1].from <= pair[0].to, "a second is in no package: {held:?}");
            }
        }

        #[test]
        fn what_fits_never_exceeds_the_limit_and_leaves_no_day_empty(
            clusters in proptest::collection::vec((0_u64..100, proptest::collection::vec(1_u64..20, 1..6)), 1..6),
            limit in 20_u64..400,
        ) {
            let sizes: Vec<_> = clusters.into_iter().map(|(base, log)| ClusterSize { base, log }).collect();
            let shares = fit(&sizes, Some(limit));
            let used: u64 = sizes.iter().zip(&shares).map(|(size, share)| {
                size.log.iter().take(share.log).sum::<u64>() + if share.base { size.base } else { 0 }
            }).sum();
            prop_assert!(used <= limit);
            prop_assert!(shares.iter().any(|share| share.log > 0));
        }
    }
}
