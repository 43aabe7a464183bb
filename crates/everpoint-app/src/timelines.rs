//! The server's timeline against what is stored: a promotion that capture does not follow, an old primary that came back.

use everpoint_core::{LogFacts, Sighting, Standing, standing};
use everpoint_engine::{CheckLine, CheckState, ServerIdentity};

use crate::captured::Captured;
use crate::lineage::branch_id;

/// What is wrong, in words. `stored`: what happens on the server now is being stored, as far as one can tell.
pub(crate) fn wrong(
    log: &LogFacts,
    server: &ServerIdentity,
    captured: &Captured,
    stored: bool,
) -> Option<(CheckState, String)> {
    let identity = log.branches.iter().map(|branch| branch.identity).max()?;
    let branch = branch_id(server.timeline, &server.history);
    let (on, until) = (server.timeline, captured.timeline);
    match standing(log, identity, &branch, Some(&captured.branch)) {
        Standing::Same => None,
        Standing::Before { seen } => Some((
            CheckState::Error,
            format!(
                "the server is on timeline {on}, but production was seen on timeline {seen}, which goes on from it: is this the \
                 old primary? If it is production, adopt it; else let the address lead to the new one"
            ),
        )),
        Standing::Unstored if stored => Some((
            CheckState::Warning,
            format!(
                "the server is on timeline {on}, of which nothing is stored yet; the log is stored to timeline {until}"
            ),
        )),
        Standing::Unstored => Some((
            CheckState::Error,
            format!(
                "the server is on timeline {on}, of which nothing is stored: the log ends on timeline {until}, and what \
                 happens now is lost with the server"
            ),
        )),
    }
}

/// The line of `check`. `before`: where production was seen before this look.
pub(crate) fn line(
    log: &LogFacts,
    before: Vec<Sighting>,
    server: &ServerIdentity,
    captured: &Captured,
    stored: bool,
) -> CheckLine {
    let log = LogFacts { sightings: before, ..log.clone() };
    let (state, message) = wrong(&log, server, captured, stored).unwrap_or_else(|| {
        (CheckState::Ok, format!("the server and what is stored of it are on timeline {}", server.timeline))
    });
    let hint = (state != CheckState::Ok)
        .then(|| "keep a capture running: it follows the server to its new timeline by itself".to_owned());
    CheckLine { name: "timeline".to_owned(), state, message, hint }
}
