//! Lines of `check` about who captures the cluster: somebody, only once, on the right timeline, without slots that nobody needs.

use everpoint_core::{LogFacts, LogKeeping, ServerSlot, Sighting, orphan_told, orphans};
use everpoint_engine::{CheckLine, CheckState, ServerIdentity};
use everpoint_repo::ClusterRepo;

use super::line;
use crate::captured::{self, CaptureState, Captured};
use crate::log_writer::same;
use crate::{ClusterContext, held, text, timelines, twin};

/// The line of the slot that capture uses.
pub(super) const SLOT: &str = "slot";

/// Slots of ours that nobody uses.
pub(super) fn slots(slots: &[ServerSlot], own: &str) -> Vec<CheckLine> {
    let told = |slot: &ServerSlot| {
        let (message, hint) = orphan_told(slot);
        line("orphaned_slot", CheckState::Warning, message, Some(hint))
    };
    orphans(slots, own).into_iter().map(told).collect()
}

/// The server is protected under another name.
pub(super) fn same_server(
    context: &ClusterContext,
    server: &ServerIdentity,
    others: &[ClusterRepo],
) -> Option<CheckLine> {
    match twin::found(context, server, others) {
        Ok(None) => None,
        Ok(Some(error)) => Some(line("same_server", CheckState::Error, error.message.clone(), error.hint)),
        Err(error) => Some(line("same_server", CheckState::Warning, error.to_string(), error.hint)),
    }
}

/// The log of another system is stored: the server's positions say nothing about it.
pub(super) fn another(log: &LogFacts, hint: String) -> CheckLine {
    let stored = Captured::of(log, None).map_or_else(String::new, |captured| {
        let (lsn, timeline) = (text::lsn(captured.position), captured.timeline);
        format!(" that system's log is stored to {lsn} on timeline {timeline}")
    });
    let message = format!("this server is another system, of which nothing is stored;{stored}");
    line("capture", CheckState::Error, message.trim_end_matches(';'), Some(hint))
}

/// Whether what happens now is stored, and on which timeline.
pub(super) fn capture(
    context: &ClusterContext,
    log: &LogFacts,
    before: Vec<Sighting>,
    server: Option<&ServerIdentity>,
    keeping: Option<LogKeeping>,
    slot: &str,
) -> Vec<CheckLine> {
    let start = Some(format!("keep this running: everpoint capture {}, or everpoint serve", context.name));
    let Some(captured) = Captured::of(log, server) else {
        return vec![line("capture", CheckState::Error, "no log is stored yet: nobody captures it", start)];
    };
    let running = captured::is_running(context);
    let beside = server.and_then(|_| same::beside(context, log, keeping.as_ref()));
    let elsewhere = server
        .zip(keeping.as_ref())
        .and_then(|(server, keeping)| held::elsewhere(context, log, server, &captured, slot, keeping));
    let archiver = keeping.map(|keeping| keeping.archiver);
    let state = CaptureState::new(&captured, server, text::now(), running, archiver);
    let stored = format!("stored to {} on timeline {}", state.lsn, state.timeline);
    let wrong = state.wrong(&context.name);
    let timeline = server.map(|server| timelines::line(log, before, server, &captured, wrong.is_none()));
    if let Some(beside) = beside {
        let message = format!("{stored}, and the server goes on beside it: {}", beside.message);
        let said = line("capture", CheckState::Error, message, beside.hint);
        return std::iter::once(said).chain(timeline).collect();
    }
    if let Some((message, hint)) = elsewhere {
        let said =
            line("capture", CheckState::Error, format!("{stored}; another receiver has its slot"), None);
        let held = line(SLOT, CheckState::Error, message, Some(hint));
        return [held, said].into_iter().chain(timeline).collect();
    }
    let said = match (&wrong, state.lag_bytes) {
        (Some(wrong), _) => {
            let hint = Some(state.keep(&context.name));
            line("capture", CheckState::Error, format!("{stored}; {wrong}"), hint)
        }
        (None, None) => {
            let message = format!("{stored}; the server can't be asked how far it is");
            line("capture", CheckState::Warning, message, None)
        }
        (None, Some(0)) => line("capture", CheckState::Ok, format!("{stored}, the server's end"), None),
        (None, Some(bytes)) => line(
            "capture",
            CheckState::Ok,
            format!("{stored}, {} behind the server", everpoint_core::words::size(bytes)),
            None,
        ),
    };
    std::iter::once(said).chain(timeline).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orphaned_slot_is_named_with_the_command_that_drops_it() {
        let slot = ServerSlot {
            name: "everpoint_old".to_owned(),
            active: false,
            temporary: false,
            physical: true,
            held: Some(5 << 20),
            ..ServerSlot::default()
        };
        let lines = slots(&[slot], "everpoint_shop");
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].state, CheckState::Warning);
        assert!(lines[0].message.contains("everpoint_old") && lines[0].message.contains("5.0 MiB"));
        assert!(
            lines[0].hint.as_ref().unwrap().ends_with("SELECT pg_drop_replication_slot('everpoint_old')")
        );
    }
}
