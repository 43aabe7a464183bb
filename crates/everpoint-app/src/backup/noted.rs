//! What was warned of while a backup was taken belongs to its report and its record.

use std::sync::{Mutex, PoisonError};

use crate::{Event, Events};

/// So many different warnings are kept; how many more there were is said.
const KEPT: usize = 50;

/// Passes events on, and keeps the warnings.
pub(super) struct Noted<'a> {
    events: &'a dyn Events,
    kept: Mutex<(Vec<String>, usize)>,
}

impl<'a> Noted<'a> {
    pub(super) fn new(events: &'a dyn Events) -> Self {
        Self { events, kept: Mutex::default() }
    }

    /// For what has a place of its own in the record: it is passed on, and not kept here.
    pub(super) fn aside(&self) -> &'a dyn Events {
        self.events
    }

    /// What was warned of until now, each once.
    pub(super) fn warnings(&self) -> Vec<String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let more = (kept.1 > 0).then(|| format!("and {} more warnings", kept.1));
        kept.0.iter().cloned().chain(more).collect()
    }
}

impl Events for Noted<'_> {
    fn emit(&self, event: Event) {
        if let Some(text) = event.warning() {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if !kept.0.contains(&text) {
                if kept.0.len() < KEPT { kept.0.push(text) } else { kept.1 += 1 }
            }
        }
        self.events.emit(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Heard;

    #[test]
    fn each_warning_is_kept_once_and_all_are_passed_on() {
        let heard = Heard::default();
        let noted = Noted::new(&heard);
        (0..KEPT + 3).for_each(|i| noted.emit(Event::Warning(format!("w{i}"))));
        noted.emit(Event::Warning("w0".to_owned()));
        noted.aside().emit(Event::Warning("a damaged page".to_owned()));
        noted.emit(Event::Info("fine".to_owned()));
        let kept = noted.warnings();
        assert_eq!((kept.len(), kept.last().map(String::as_str)), (KEPT + 1, Some("and 3 more warnings")));
        assert_eq!(heard.warnings().len(), KEPT + 5);
    }
}
