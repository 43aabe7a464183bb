//! Holds: backups that must not expire. Each is a row of objects of which the one with the highest number counts.

use everpoint_core::Micros;
use everpoint_core::retention::Held;
use everpoint_format::records::Hold;
use everpoint_format::seal::ObjectKind;

use crate::cluster::{ATTEMPTS, ClusterRepo, numbers};
use crate::error::code;
use crate::object::{format_error, now};
use crate::{RepoError, names};

impl ClusterRepo {
    /// Holds a backup until a moment, or until it is released. What was said of it before no longer counts.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn hold(&self, label: &str, until: Option<Micros>) -> Result<(), RepoError> {
        self.put_hold(label, &Hold { at: now().0, until: until.map(|until| until.0), released: false })
    }

    /// Ends the hold of a backup.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn release_hold(&self, label: &str) -> Result<(), RepoError> {
        self.put_hold(label, &Hold { at: now().0, until: None, released: true })
    }

    fn put_hold(&self, label: &str, hold: &Hold) -> Result<(), RepoError> {
        names::check_word("hold backup", label)?;
        let prefix = format!("{}/holds/{label}/", self.base);
        for _ in 0..ATTEMPTS {
            let number =
                numbers(&self.shared, &prefix)?.last().copied().unwrap_or_default().saturating_add(1);
            match self.shared.put(&format!("{prefix}{number}"), ObjectKind::Hold, &hold.encode()) {
                Err(error) if error.code == code::EXISTS => {}
                result => return result,
            }
        }
        Err(RepoError::new(code::LOCKED, "hold backup", label, "others do so all the time").retryable())
    }

    /// The holds that were not released, those too whose time is over.
    ///
    /// # Errors
    /// If the store can't be read. A hold whose newest object can't be read counts as one without end.
    pub fn holds(&self) -> Result<Vec<Held>, RepoError> {
        let mut found = Vec::new();
        for label in self.shared.store.list_children(&format!("{}/holds/", self.base))? {
            let prefix = format!("{}/holds/{label}/", self.base);
            let Some(number) = numbers(&self.shared, &prefix)?.last().copied() else {
                continue;
            };
            let name = format!("{prefix}{number}");
            let hold = self
                .shared
                .need(&name, ObjectKind::Hold)
                .and_then(|bytes| Hold::decode(&bytes).map_err(|error| format_error("read", &name, error)));
            match hold {
                Ok(hold) if hold.released => {}
                Ok(hold) => found.push(Held { label, until: hold.until.map(Micros) }),
                Err(error) if error.is_damaged() => {
                    tracing::warn!(%error, "a hold can't be read and counts as one without end");
                    found.push(Held { label, until: None });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}
