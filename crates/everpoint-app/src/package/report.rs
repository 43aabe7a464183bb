//! What is said of each cluster in a package.

use everpoint_core::{Micros, RestorePlan};
use serde::Serialize;

use super::build::Part;
use crate::text;

/// What of a cluster is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackagedReport {
    /// Its name.
    pub name: String,
    /// The base image in it.
    pub base: Option<String>,
    /// Segments of its log in it.
    pub segments: usize,
    /// Last position to which it restores.
    pub to_lsn: Option<String>,
    /// Until when it holds everything.
    pub to_time: Option<String>,
}

impl PackagedReport {
    pub(super) fn of(part: &Part<'_>) -> Self {
        let plan = part.plan.as_ref().filter(|_| part.base.is_some());
        let until = |plan: &RestorePlan| known_until(part, plan).or(plan.reached.time);
        Self {
            name: part.context.name.clone(),
            base: part.base.as_ref().map(|(record, _)| record.label.clone()),
            segments: part.logs.iter().map(|log| log.segments.len()).sum(),
            to_lsn: plan.map(|plan| text::lsn(plan.reached.position)),
            to_time: plan.and_then(until).map(text::time),
        }
    }
}

/// Until when the log that ends there is known to hold everything: on a quiet server that is later than its last commit.
fn known_until(part: &Part<'_>, plan: &RestorePlan) -> Option<Micros> {
    let windows = everpoint_core::windows(&part.facts.log, &part.facts.backups);
    let ends_so = |window: &&everpoint_core::Window| {
        (window.identity, window.timeline, window.to_position)
            == (plan.identity, plan.timeline, plan.reached.position)
    };
    windows.iter().find(ends_so).map(|window| window.to)
}
