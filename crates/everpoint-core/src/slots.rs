//! Replication slots that nobody needs: each keeps its server from removing log, until its disk is full.

use crate::words::size;

/// How the names of slots begin that are made for a cluster which names none.
const OURS: &str = "everpoint_";

/// A slot, as its server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSlot {
    /// Its name.
    pub name: String,
    /// Somebody receives by it now.
    pub active: bool,
    /// It goes with its connection.
    pub temporary: bool,
    /// It holds log back for a stream of the whole log; else for one of changes.
    pub physical: bool,
    /// Bytes of log that it holds back.
    pub held: Option<u64>,
}

/// Slots of ours that nobody uses: of a cluster that is not configured any more, that had another name, or that another
/// machine captured. `own`: the slot of the cluster that is looked at. One that is active belongs to somebody.
#[must_use]
pub fn orphans<'a>(slots: &'a [ServerSlot], own: &str) -> Vec<&'a ServerSlot> {
    let is_orphan = |slot: &&ServerSlot| {
        slot.physical && !slot.temporary && !slot.active && slot.name != own && slot.name.starts_with(OURS)
    };
    slots.iter().filter(is_orphan).collect()
}

/// What is said of such a slot, and what drops it.
#[must_use]
pub fn orphan_told(slot: &ServerSlot) -> (String, String) {
    let held = slot.held.map_or_else(String::new, |bytes| format!(" and holds back {} of WAL", size(bytes)));
    let message = format!(
        "the slot {} is used by nobody{held}: it was made for a cluster that is not configured any more, had another name, or \
         was captured from another machine",
        slot.name
    );
    let hint = format!("if no other Everpoint needs it: SELECT pg_drop_replication_slot('{}')", slot.name);
    (message, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ours_that_nobody_uses_are_orphans() {
        let slot = |name: &str| ServerSlot {
            name: name.to_owned(),
            active: false,
            temporary: false,
            physical: true,
            held: None,
        };
        let slots = [
            slot("everpoint_shop"),
            slot("everpoint_old_name"),
            slot("standby_2"),
            ServerSlot { active: true, ..slot("everpoint_elsewhere") },
            ServerSlot { temporary: true, ..slot("everpoint_backup") },
            ServerSlot { physical: false, ..slot("everpoint_changes") },
        ];
        let names: Vec<&str> =
            orphans(&slots, "everpoint_shop").iter().map(|slot| slot.name.as_str()).collect();
        assert_eq!(names, ["everpoint_old_name"]);
    }
}
