//! What fires and what waits to be sent, kept in a file: a restart neither repeats nor forgets. The file can be deleted.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::path::Path;

use everpoint_core::Micros;
use everpoint_core::alert::{AlertKey, AlertKind, Alerts, Firing};
use everpoint_engine::beside;
use serde::{Deserialize, Serialize};

use super::message::Message;

/// Messages that wait, by sink.
pub(super) type Waiting = BTreeMap<String, VecDeque<Message>>;

#[derive(Serialize, Deserialize)]
struct Row {
    kind: String,
    subject: String,
    since: i64,
    told: i64,
    message: String,
}

#[derive(Default, Serialize, Deserialize)]
struct File {
    firing: Vec<Row>,
    waiting: Waiting,
}

/// Reads it. One that is missing or can't be read is as good as none: what still holds is told again.
pub(super) fn read(path: &Path) -> (Alerts, Waiting) {
    let file: File = match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!("{} can't be read, alerts begin anew: {error}", path.display());
            File::default()
        }),
        Err(_) => File::default(),
    };
    let firing = file.firing.into_iter().filter_map(|row| {
        let key = AlertKey::new(AlertKind::from_word(&row.kind)?, row.subject);
        Some((key, Firing { since: Micros(row.since), told: Micros(row.told), message: row.message }))
    });
    (Alerts::new(firing.collect()), file.waiting)
}

/// Writes it, whole or not at all.
pub(super) fn write(path: &Path, alerts: &Alerts, waiting: &Waiting) -> std::io::Result<()> {
    let row = |(key, firing): (&AlertKey, &Firing)| Row {
        kind: key.kind.word().to_owned(),
        subject: key.subject.clone(),
        since: firing.since.0,
        told: firing.told.0,
        message: firing.message.clone(),
    };
    let file = File { firing: alerts.firing().iter().map(row).collect(), waiting: waiting.clone() };
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut fresh = tempfile::NamedTempFile::new_in(directory)?;
    fresh.write_all(&serde_json::to_vec(&file)?)?;
    fresh.as_file().sync_all()?;
    beside::give(fresh.as_file(), directory)?;
    fresh.persist(path)?;
    Ok(())
}
