//! What there is to tell of files: those that an image lacks, and those that are odd.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::outside::LACKS;

/// Facts that begin so name a file that is whole in the image, and say what is odd about it.
pub(crate) const ODD: &str = "odd ";
/// So many paths of a kind are named; the others are counted.
const NAMED: usize = 100;

/// Collects notes, from any thread.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    lacks: Mutex<BTreeMap<String, String>>,
    odd: Mutex<BTreeMap<String, String>>,
}

impl Notes {
    /// The image lacks it.
    pub(crate) fn lacks(&self, path: &str, reason: impl Into<String>) {
        let reason = reason.into();
        tracing::debug!(path, reason, "the image lacks it");
        add(&self.lacks, path, reason);
    }

    /// It is in the image as it is.
    pub(crate) fn odd(&self, path: &str, what: impl Into<String>) {
        add(&self.odd, path, what.into());
    }

    /// As facts of the backup.
    pub(crate) fn facts(self) -> Vec<(String, String)> {
        let mut facts = named(LACKS, self.lacks);
        facts.extend(named(ODD, self.odd));
        facts
    }

    /// Paths that are lacking, with the reason.
    pub(crate) fn into_lacking(self) -> BTreeMap<String, String> {
        self.lacks.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(to: &Mutex<BTreeMap<String, String>>, path: &str, text: String) {
    to.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), text);
}

fn named(prefix: &str, notes: Mutex<BTreeMap<String, String>>) -> Vec<(String, String)> {
    let notes = notes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let further = notes.len().saturating_sub(NAMED);
    let mut facts: Vec<_> =
        notes.into_iter().take(NAMED).map(|(path, text)| (format!("{prefix}{path}"), text)).collect();
    if further > 0 {
        facts.push((format!("{prefix}{further} more"), "only the first hundred are named".to_owned()));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_notes_is_counted() {
        let notes = Notes::default();
        for number in 0..103 {
            notes.lacks(&format!("f{number:03}"), "why");
        }
        notes.odd("x", "3 bytes more");
        let facts = notes.facts();
        assert_eq!(facts.len(), 102);
        assert_eq!(facts.get(100).map(|fact| fact.0.as_str()), Some("lacks 3 more"));
        assert_eq!(facts.last(), Some(&("odd x".to_owned(), "3 bytes more".to_owned())));
    }
}
