//! Replication slots that nobody needs: each keeps its server from removing log, until its disk is full.

use std::fmt;

use crate::position::LogOffset;
use crate::words::size;

/// How the names of slots begin that are made for a cluster which names none.
const OURS: &str = "everpoint_";

/// A slot, as its server lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// The oldest log that it keeps: who receives by it has told the server that everything before is stored.
    pub kept_from: Option<LogOffset>,
    /// Who receives by it now.
    pub receiver: Option<Receiver>,
}

/// Who receives by a slot: what the server tells of it, which is less to a role that may not see other roles' sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receiver {
    /// Its process on the server.
    pub process: String,
    /// What it calls itself.
    pub application: Option<String>,
    /// Its role.
    pub role: Option<String>,
    /// Where it comes from; absent of one on the server's own machine.
    pub address: Option<String>,
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} of the server", self.process)?;
        let part = |name: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("{name} {value}")).into_iter()
        };
        let known: Vec<String> = part("application", &self.application)
            .chain(part("role", &self.role))
            .chain(part("from", &self.address))
            .collect();
        if known.is_empty() { Ok(()) } else { write!(f, " ({})", known.join(", ")) }
    }
}

/// Who receives by the slot of this name now, in words; `None`: nobody.
#[must_use]
pub fn held_by(slots: &[ServerSlot], name: &str) -> Option<String> {
    let slot = slots.iter().find(|slot| slot.name == name && slot.active)?;
    Some(slot.receiver.as_ref().map_or_else(|| "a receiver".to_owned(), ToString::to_string))
}

/// A slot by which somebody receives who has told the server that log beyond `stored` is safe: it is not kept for the
/// repository whose log ends there.
#[must_use]
pub fn taken<'a>(slots: &'a [ServerSlot], name: &str, stored: LogOffset) -> Option<&'a ServerSlot> {
    let slot = slots.iter().find(|slot| slot.name == name && slot.active)?;
    slot.kept_from.is_some_and(|kept| kept > stored).then_some(slot)
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
            ..ServerSlot::default()
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

    #[test]
    fn a_slot_whose_receiver_has_more_than_is_stored_here_is_another_ones() {
        let receiver = Receiver { process: "4711".into(), ..Receiver::default() };
        let slot = ServerSlot {
            name: "everpoint_shop".into(),
            active: true,
            kept_from: Some(LogOffset(200)),
            receiver: Some(receiver.clone()),
            ..ServerSlot::default()
        };
        let free = [ServerSlot { active: false, ..slot.clone() }];
        let slots = [slot];
        assert!(taken(&slots, "everpoint_shop", LogOffset(199)).is_some());
        assert_eq!(taken(&slots, "everpoint_shop", LogOffset(200)), None, "it may be ours");
        assert_eq!(taken(&slots, "everpoint_else", LogOffset(1)), None);
        assert_eq!(taken(&free, "everpoint_shop", LogOffset(1)), None, "nobody takes anything");
        assert_eq!(held_by(&slots, "everpoint_shop").as_deref(), Some("process 4711 of the server"));
        assert_eq!(held_by(&free, "everpoint_shop"), None);
        let known = Receiver {
            application: Some("everpoint_shop".into()),
            role: Some("backup".into()),
            address: Some("10.0.0.5".into()),
            ..receiver
        };
        assert!(known.to_string().ends_with("(application everpoint_shop, role backup, from 10.0.0.5)"));
    }
}
