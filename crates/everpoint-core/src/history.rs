//! From the history of a timeline to the branch it forked from.

use crate::position::{BranchId, LogOffset};

/// One step of a timeline's history: the log follows `timeline` up to `until` and a younger timeline from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HistoryEntry {
    /// The older timeline.
    pub timeline: u32,
    /// First position that is no longer of it.
    pub until: LogOffset,
}

/// The branch from which a branch with this history (oldest step first) forked, and where, among the `known` ones
/// with their histories.
///
/// A timeline number is not enough: two copies promoted apart share it. The parent is the branch whose own history is
/// the beginning of this one. Where nothing of the parent itself is stored (a server promoted twice within one
/// segment), it is the nearest ancestor of which something is.
#[must_use]
pub fn parent_branch<'a>(
    history: &[HistoryEntry],
    known: impl IntoIterator<Item = (&'a BranchId, &'a [HistoryEntry])> + Clone,
) -> Option<(BranchId, LogOffset)> {
    (0..history.len()).rev().find_map(|step| {
        let (before, entry) = (history.get(..step)?, history.get(step)?);
        known
            .clone()
            .into_iter()
            .find(|(id, of_id)| id.timeline() == entry.timeline && *of_id == before)
            .map(|(id, _)| (id.clone(), entry.until))
    })
}

/// The steps that a log with this history really followed, the oldest first: positions grow, and nothing lies on the steps
/// that are left out.
///
/// The positions of a history need not grow: a server that was brought back to before its last fork, and promoted from
/// there, writes that it left the younger timeline before that one had begun. Servers read such a history so that at each
/// position the youngest timeline counts that had begun there.
#[must_use]
pub fn followed(history: &[HistoryEntry]) -> Vec<HistoryEntry> {
    let mut steps: Vec<HistoryEntry> = Vec::new();
    for step in history.iter().rev() {
        let next = steps.last().map_or(step.until, |younger| younger.until);
        steps.push(HistoryEntry { timeline: step.timeline, until: step.until.min(next) });
    }
    steps.reverse();
    let mut begin = LogOffset::default();
    steps.retain(|step| {
        let holds_something = step.until > begin;
        begin = begin.max(step.until);
        holds_something
    });
    steps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The timeline of a position as a server finds it: from the youngest on, the first that had begun and not ended.
    fn as_servers_find_it(history: &[HistoryEntry], position: LogOffset) -> Option<u32> {
        let begin = |at: usize| at.checked_sub(1).map_or(LogOffset(0), |before| history[before].until);
        if begin(history.len()) <= position {
            return None;
        }
        let found =
            (0..history.len()).rev().find(|at| begin(*at) <= position && position < history[*at].until);
        Some(history[found.unwrap()].timeline)
    }

    proptest! {
        #[test]
        fn a_log_is_followed_as_servers_follow_it(
            untils in proptest::collection::vec(0_u64..40, 0..6),
            position in 0_u64..50,
        ) {
            let history: Vec<HistoryEntry> =
                untils.iter().zip(1..).map(|(until, timeline)| entry(timeline, *until)).collect();
            let steps = followed(&history);
            prop_assert!(steps.windows(2).all(|pair| pair[0].until < pair[1].until));
            let found = steps.iter().find(|step| LogOffset(position) < step.until).map(|step| step.timeline);
            prop_assert_eq!(found, as_servers_find_it(&history, LogOffset(position)));
        }
    }

    fn entry(timeline: u32, until: u64) -> HistoryEntry {
        HistoryEntry { timeline, until: LogOffset(until) }
    }

    #[test]
    fn the_parent_has_the_number_and_the_history() {
        let one = BranchId::new(1, [0; 8]);
        let (two, other_two) = (BranchId::new(2, [1; 8]), BranchId::new(2, [2; 8]));
        let (of_two, of_other) = ([entry(1, 100)], [entry(1, 50)]);
        let known: [(&BranchId, &[HistoryEntry]); 3] =
            [(&one, &[]), (&other_two, &of_other), (&two, &of_two)];
        let parent = |history: &[HistoryEntry]| parent_branch(history, known);
        assert_eq!(parent(&[]), None);
        assert_eq!(parent(&[entry(1, 70)]), Some((one.clone(), LogOffset(70))));
        assert_eq!(parent(&[entry(1, 100), entry(2, 200)]), Some((two.clone(), LogOffset(200))));
        assert_eq!(parent(&[entry(1, 50), entry(2, 200)]), Some((other_two.clone(), LogOffset(200))));
        // Nothing of that timeline 2 is stored.
        assert_eq!(parent(&[entry(1, 60), entry(2, 61)]), Some((one.clone(), LogOffset(60))));
        assert_eq!(parent(&[entry(7, 60)]), None);
    }
}
