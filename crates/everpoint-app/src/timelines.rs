//! The server's timeline against what is stored: a promotion that capture does not follow, an old primary that came back.

use everpoint_core::{LogFacts, Sighting, Standing, standing};
use everpoint_engine::{CheckLine, CheckState, ServerIdentity};

use crate::captured::Captured;
use crate::lineage::branch_id;
use crate::text;

/// What is wrong.
pub(crate) struct Wrong {
    pub(crate) state: CheckState,
    /// In words.
    pub(crate) message: String,
    /// Two servers write as this cluster.
    pub(crate) two_servers: bool,
}

/// What is wrong. `stored`: what happens on the server now is being stored, as far as one can tell.
pub(crate) fn wrong(
    log: &LogFacts,
    server: &ServerIdentity,
    captured: &Captured,
    stored: bool,
) -> Option<Wrong> {
    let identity = log.branches.iter().map(|branch| branch.identity).max()?;
    let branch = branch_id(server.timeline, &server.history);
    let (on, until) = (server.timeline, captured.timeline);
    let standing = standing(log, identity, &branch, Some(&captured.branch));
    let (state, message) = match standing {
        Standing::Same => return None,
        Standing::Before { seen } => (
            CheckState::Error,
            format!(
                "the server is on timeline {on}, but production was seen on timeline {seen} since: is this the old primary? If it \
                 is production, say so by `everpoint check`, and see who asked the other one; else let the address lead there"
            ),
        ),
        Standing::Beside { pushed, fork } => (
            CheckState::Error,
            format!(
                "the server is on timeline {on}, but another one archives log of timeline {pushed}, which left it at {}, as \
                 this cluster's: a clone that was promoted? Set archive_mode = off there, or let its archive_command name a \
                 cluster of its own. If that one is production now, let the address lead to it",
                text::lsn(fork)
            ),
        ),
        Standing::Unstored if stored => (
            CheckState::Warning,
            format!(
                "the server is on timeline {on}, of which nothing is stored yet; the log is stored to timeline {until}"
            ),
        ),
        Standing::Unstored => (
            CheckState::Error,
            format!(
                "the server is on timeline {on}, of which nothing is stored: the log ends on timeline {until}, and what \
                 happens now is lost with the server"
            ),
        ),
    };
    let two_servers = matches!(standing, Standing::Before { .. } | Standing::Beside { .. });
    Some(Wrong { state, message, two_servers })
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
    let found = wrong(&log, server, captured, stored).map(|wrong| (wrong.state, wrong.message));
    let (state, message) = found.unwrap_or_else(|| {
        (CheckState::Ok, format!("the server and what is stored of it are on timeline {}", server.timeline))
    });
    let hint = (state != CheckState::Ok)
        .then(|| "keep a capture running: it follows the server to its new timeline by itself".to_owned());
    CheckLine { name: "timeline".to_owned(), state, message, hint }
}
