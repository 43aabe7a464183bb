//! A message about an alert, as sinks send it and as it waits on disk.

use everpoint_core::Micros;
use everpoint_core::alert::{Change, Notice};
use serde::{Deserialize, Serialize};

use crate::render::time::for_people;

/// See the module. These are the fields that a webhook receives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    /// `firing`, `reminder`, `resolved` or `happened`.
    pub(crate) state: String,
    /// Word of the kind.
    pub(crate) kind: String,
    /// Name of the cluster, repository or provider.
    pub(crate) subject: String,
    pub(crate) severity: String,
    /// A few words: kind and subject.
    pub(crate) title: String,
    pub(crate) message: String,
    /// RFC 3339.
    pub(crate) at: String,
    pub(crate) since: String,
    /// Machine that says it.
    pub(crate) host: String,
}

impl Message {
    pub(crate) fn of(notice: &Notice, host: &str) -> Self {
        let kind = notice.key.kind;
        Self {
            state: notice.change.word().to_owned(),
            kind: kind.word().to_owned(),
            subject: notice.key.subject.clone(),
            severity: kind.severity().word().to_owned(),
            title: format!("{}: {}", notice.key.subject, kind.title()),
            message: notice.message.clone(),
            at: time(notice.at),
            since: time(notice.since),
            host: host.to_owned(),
        }
    }

    /// What changed.
    pub(crate) fn change(&self) -> Change {
        Change::from_word(&self.state).unwrap_or(Change::Happened)
    }

    /// How bad it is; nothing that is over or good is bad.
    pub(crate) fn is_bad(&self) -> bool {
        matches!(self.change(), Change::Firing | Change::Reminder)
    }

    /// One line.
    pub(crate) fn line(&self) -> String {
        match self.change() {
            Change::Firing => format!("{} ({})", self.title, self.severity),
            Change::Reminder => format!("still: {} ({})", self.title, self.severity),
            Change::Resolved => format!("resolved: {}", self.title),
            Change::Happened => self.title.clone(),
        }
    }

    /// All of it, for people.
    pub(crate) fn text(&self) -> String {
        let when = match self.change() {
            Change::Resolved => format!("over since {}, began {}", self.at, self.since),
            Change::Reminder => format!("since {}", self.since),
            Change::Firing | Change::Happened => self.at.clone(),
        };
        let text = format!("{}\n{}\n{when}, on {}", self.line(), self.message, self.host);
        for_people(&text, &crate::zone::shown())
    }
}

/// RFC 3339 with microseconds, in UTC.
pub(super) fn time(moment: Micros) -> String {
    jiff::Timestamp::from_microsecond(moment.0)
        .map_or_else(|_| format!("{} us", moment.0), |at| at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string())
}

/// The machine's clock.
pub(super) fn now() -> Micros {
    Micros(jiff::Timestamp::now().as_microsecond())
}
