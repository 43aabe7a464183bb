//! Whether a repository may be made where none is: one that was there before is away with its disk, and a new one in its place
//! would take its log over and leave it a gap.

use std::path::PathBuf;

/// What tells of a repository that was there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trace {
    /// This mount point at or above the place should have a file system, and has none.
    Unmounted(PathBuf),
    /// This machine's daemon has read backups of the cluster there.
    Served {
        /// Name of the cluster.
        cluster: String,
    },
    /// The server of a cluster that is kept there keeps log for whoever captures it.
    Slot {
        /// Name of the cluster.
        cluster: String,
        /// Name of its slot.
        slot: String,
    },
    /// Somebody receives now by the slot of a cluster that is to be kept there: another repository has its log.
    Held {
        /// Name of the cluster.
        cluster: String,
        /// Name of its slot.
        slot: String,
        /// Who receives, in words.
        by: String,
    },
}

/// The trace for which no repository is made. The operator's word for a new one outweighs what is remembered of an old one,
/// not that the place itself is the wrong one: what is put into a bare mount point is hidden by the next mount.
pub fn forbids(traces: impl IntoIterator<Item = Trace>, by_word: bool) -> Option<Trace> {
    traces.into_iter().find(|trace| !by_word || matches!(trace, Trace::Unmounted(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_forbids_a_new_one_and_a_word_outweighs_memory_alone() {
        let slot = Trace::Slot { cluster: "a".into(), slot: "s".into() };
        let served = Trace::Served { cluster: "a".into() };
        let bare = Trace::Unmounted("/backup".into());
        let held = Trace::Held { cluster: "a".into(), slot: "s".into(), by: "process 7".into() };
        assert_eq!(forbids([], false), None);
        for trace in [&slot, &served, &held] {
            assert_eq!(forbids([trace.clone()], false).as_ref(), Some(trace));
            assert_eq!(forbids([trace.clone()], true), None);
        }
        assert_eq!(forbids([served, slot, bare.clone()], true), Some(bare));
    }
}
