//! What the daemon measures, as Prometheus reads it.

mod measure;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

pub(crate) use measure::{Kind, Measure};

/// All values by measure and labels. Cheap to write from any thread.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    values: Mutex<BTreeMap<Measure, BTreeMap<Vec<String>, Value>>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Value {
    /// The value itself, or the sum of what was observed.
    value: f64,
    /// How often it was observed.
    count: u64,
}

impl Metrics {
    fn change(&self, measure: Measure, labels: &[&str], change: impl FnOnce(&mut Value)) {
        debug_assert_eq!(labels.len(), measure.labels().len(), "{}", measure.name());
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        change(values.entry(measure).or_default().entry(labels).or_default());
    }

    /// A gauge is this now.
    pub(crate) fn set(&self, measure: Measure, labels: &[&str], value: f64) {
        self.change(measure, labels, |known| known.value = value);
    }

    /// A gauge is this now, or not known.
    pub(crate) fn set_known(&self, measure: Measure, labels: &[&str], value: Option<f64>) {
        match value {
            Some(value) => self.set(measure, labels, value),
            None => self.forget(measure, labels),
        }
    }

    /// It is not known: it does not show.
    fn forget(&self, measure: Measure, labels: &[&str]) {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = values.get_mut(&measure) {
            known.retain(|known, _| known.iter().map(String::as_str).ne(labels.iter().copied()));
        }
    }

    /// What has this label is not known any more.
    pub(crate) fn forget_all(&self, label: &str, value: &str) {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        for (measure, known) in values.iter_mut() {
            if let Some(at) = measure.labels().iter().position(|name| *name == label) {
                known.retain(|labels, _| labels.get(at).is_none_or(|known| known != value));
            }
        }
    }

    /// Nothing of this measure is known any more.
    pub(crate) fn clear(&self, measure: Measure) {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).remove(&measure);
    }

    /// A counter grows by one.
    pub(crate) fn count(&self, measure: Measure, labels: &[&str]) {
        self.change(measure, labels, |known| known.value += 1.0);
    }

    /// A summary takes one more value.
    pub(crate) fn observe(&self, measure: Measure, labels: &[&str], value: f64) {
        self.change(measure, labels, |known| {
            known.value += value;
            known.count += 1;
        });
    }

    /// All of it in the text format. Measures without a value don't show.
    pub(crate) fn text(&self) -> String {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut out = String::new();
        for (measure, by_labels) in values.iter().filter(|(_, by_labels)| !by_labels.is_empty()) {
            let (name, kind) = (measure.name(), measure.kind());
            // Writing into a String can't fail.
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {}", measure.help(), kind.word());
            for (labels, value) in by_labels {
                let shown = show_labels(measure.labels(), labels);
                let _ = match kind {
                    Kind::Counter | Kind::Gauge => writeln!(out, "{name}{shown} {}", value.value),
                    Kind::Summary => {
                        writeln!(
                            out,
                            "{name}_sum{shown} {}\n{name}_count{shown} {}",
                            value.value, value.count
                        )
                    }
                };
            }
        }
        out
    }
}

fn show_labels(names: &[&str], values: &[String]) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> =
        names.iter().zip(values).map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

#[cfg(test)]
mod tests;
