//! Whatever is found at a place: only what is proven changes, and what is legitimate is not refused.

use everpoint_core::place::{
    Act, Bond, ClusterProof, EntryFacts, InTheWay, Kind, MarkProof, Proven, RootFacts, SpaceFacts, SpaceMark,
    There, Unproven, Wanted, decide, judge_mark, judge_root, judge_space,
};
use proptest::prelude::*;

fn there() -> impl Strategy<Value = There> {
    prop_oneof![Just(There::Nothing), Just(There::Directory), Just(There::Other)]
}

fn mark() -> impl Strategy<Value = MarkProof> {
    prop_oneof![
        Just(MarkProof::None),
        Just(MarkProof::Ours),
        Just(MarkProof::Foreign),
        Just(MarkProof::Stale)
    ]
}

fn cluster() -> impl Strategy<Value = ClusterProof> {
    prop_oneof![
        Just(ClusterProof::None),
        Just(ClusterProof::Ours),
        any::<u64>().prop_map(ClusterProof::Other),
        Just(ClusterProof::Unreadable),
    ]
}

prop_compose! {
    fn root()(there in there(), empty: bool, cluster in cluster(), mark in mark()) -> RootFacts {
        RootFacts { there, empty, cluster, mark }
    }
}

prop_compose! {
    fn space()(
        there in there(), part_empty: bool, strangers: bool, linked: bool, led: bool, others: bool, mark in mark(),
    ) -> SpaceFacts {
        SpaceFacts { there, part_empty, strangers, linked, led, others, mark }
    }
}

prop_compose! {
    fn entry()(
        kind in prop_oneof![Just(Kind::Directory), Just(Kind::File), Just(Kind::Other)],
        wanted in prop_oneof![Just(Wanted::Nothing), Just(Wanted::Directory), Just(Wanted::File)],
        mounted: bool, immutable: bool, replaced: bool, parent_writable: bool,
    ) -> EntryFacts {
        EntryFacts { kind, wanted, mounted, immutable, replaced, parent_writable }
    }
}

#[test]
fn a_mark_proves_only_what_it_was_written_for() {
    let bonds = [Bond::Same, Bond::Different, Bond::Unknown];
    let all = bonds.iter().flat_map(|root| bonds.iter().map(move |part| (*root, *part)));
    for ((root, part), linked) in all.flat_map(|bond| [(bond, false), (bond, true)]) {
        let ours = judge_mark(&SpaceMark { root, part, linked }) == MarkProof::Ours;
        let different = root == Bond::Different || part == Bond::Different;
        let same = root == Bond::Same && part == Bond::Same;
        assert_eq!(ours, !different && (same || linked), "{root:?} {part:?} {linked}");
    }
}

proptest! {
    #[test]
    fn a_data_directory_changes_only_if_it_is_proven(facts in root(), asked: bool) {
        let holds_something = facts.there == There::Directory && !facts.empty;
        match judge_root(&facts, asked) {
            Ok(Proven::Empty) => prop_assert!(facts.there != There::Other && !holds_something),
            Ok(Proven::Marked) => {
                prop_assert!(facts.mark == MarkProof::Ours && !matches!(facts.cluster, ClusterProof::Other(_)));
            }
            Ok(Proven::Own) => prop_assert!(asked && facts.cluster == ClusterProof::Ours),
            Err(why) => {
                prop_assert!(holds_something || facts.there == There::Other);
                // Only where it helps is it said that asking for it helps.
                let helps = judge_root(&facts, true).is_ok();
                prop_assert_eq!(why == Unproven::NotAsked, !asked && helps);
            }
        }
        let legitimate = !holds_something
            || facts.mark == MarkProof::Ours && facts.cluster == ClusterProof::None
            || asked && facts.cluster == ClusterProof::Ours;
        prop_assert!(!legitimate || facts.there == There::Other || judge_root(&facts, asked).is_ok());
    }

    #[test]
    fn a_tablespace_changes_only_if_it_is_proven(facts in space(), asked: bool) {
        match judge_space(&facts, asked) {
            Ok(Proven::Empty) => prop_assert!(
                facts.there == There::Nothing || facts.there == There::Directory && facts.part_empty && !facts.strangers
            ),
            Ok(Proven::Marked) => prop_assert!(asked && facts.mark == MarkProof::Ours),
            Ok(Proven::Own) => prop_assert!(facts.linked),
            Err(why) => {
                prop_assert!(!facts.linked || facts.there == There::Other);
                prop_assert_eq!(why == Unproven::NotAsked, !asked && judge_space(&facts, true).is_ok());
                // Only what no directory that is there is known to have may be called left over.
                prop_assert!(why != Unproven::StaleMark || !facts.others);
                prop_assert!(why != Unproven::Strangers || facts.strangers || facts.part_empty);
            }
        }
    }

    #[test]
    fn what_is_mounted_or_immutable_is_never_touched(facts in entry()) {
        let act = decide(&facts);
        if facts.mounted {
            prop_assert!(matches!(act, Act::Leave | Act::Refuse(InTheWay::Mount)));
        } else if facts.immutable {
            prop_assert_eq!(act, Act::Refuse(InTheWay::Immutable));
        } else if facts.parent_writable {
            let same = matches!(
                (facts.kind, facts.wanted),
                (Kind::Directory, Wanted::Directory) | (Kind::File, Wanted::File)
            );
            prop_assert_eq!(act == Act::Keep, same);
            prop_assert!(!matches!(act, Act::Leave | Act::Refuse(_)));
        }
        if matches!(act, Act::Remove | Act::Empty) {
            prop_assert!(facts.parent_writable && !facts.mounted && !facts.immutable);
        }
    }
}

#[test]
fn log_beside_is_saved_from_what_is_ours_and_told_where_nothing_says_whose_it_is() {
    use everpoint_core::place::{LogBeside, judge_beside};
    for has_log in [true, false] {
        assert_eq!(judge_beside(ClusterProof::Ours, has_log), LogBeside::Save);
        assert_eq!(judge_beside(ClusterProof::Other(7), has_log), LogBeside::None);
        let unknown = if has_log { LogBeside::Unknown } else { LogBeside::None };
        assert_eq!(judge_beside(ClusterProof::Unreadable, has_log), unknown);
        assert_eq!(judge_beside(ClusterProof::None, has_log), unknown);
    }
}
