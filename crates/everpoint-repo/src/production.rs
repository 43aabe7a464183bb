//! Where production was seen: a row of objects, each written once; what they mean together core decides.

use everpoint_core::{BranchId, LogOffset, Micros, SeenBy, Sighting};
use everpoint_format::records::Production;
use everpoint_format::seal::ObjectKind;

use crate::RepoError;
use crate::cluster::{ATTEMPTS, ClusterRepo, numbers};
use crate::error::code;
use crate::object::format_error;

impl ClusterRepo {
    /// Notes a sighting, unless the last one says the same of the same branch. Returns whether it was noted.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn note_production(&self, seen: &Sighting) -> Result<bool, RepoError> {
        let prefix = format!("{}/production/", self.base);
        for _ in 0..ATTEMPTS {
            let known = numbers(&self.shared, &prefix)?;
            let last = known.last().copied();
            // One that can't be read says nothing: then it is said again.
            let read = last.and_then(|number| self.sighting(&format!("{prefix}{number}")).ok().flatten());
            if read.is_some_and(|last| says_as_much(&last, seen)) {
                return Ok(false);
            }
            let record = Production {
                identity: seen.identity,
                branch: seen.branch.as_str().to_owned(),
                position: seen.position.0,
                at: seen.at.0,
                by: by_name(seen.by).to_owned(),
            };
            let name = format!("{prefix}{}", last.unwrap_or_default().saturating_add(1));
            match self.shared.put(&name, ObjectKind::Production, &record.encode()) {
                Ok(()) => return Ok(true),
                Err(error) if error.code == code::EXISTS => {}
                Err(error) => return Err(error),
            }
        }
        Err(RepoError::new(code::LOCKED, "note where production is", &self.name, "others do so all the time")
            .retryable())
    }

    /// All sightings, the oldest first, those too that can't be read.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn sightings(&self) -> Result<Vec<Sighting>, RepoError> {
        let prefix = format!("{}/production/", self.base);
        let mut found = Vec::new();
        for number in numbers(&self.shared, &prefix)? {
            match self.sighting(&format!("{prefix}{number}")) {
                Ok(seen) => found.extend(seen),
                // It may have been the one that counts.
                Err(error) if error.is_damaged() => {
                    tracing::warn!(%error, "where production was seen can't be read");
                    found.push(Sighting {
                        identity: 0,
                        branch: BranchId::new(0, [0; 8]),
                        position: LogOffset(0),
                        at: Micros(0),
                        by: SeenBy::Unreadable,
                    });
                }
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// `None` for a record whose words are those of a later version.
    fn sighting(&self, name: &str) -> Result<Option<Sighting>, RepoError> {
        let bytes = self.shared.need(name, ObjectKind::Production)?;
        let record = Production::decode(&bytes).map_err(|error| format_error("read", name, error))?;
        let by =
            [SeenBy::Server, SeenBy::Restore, SeenBy::Push].into_iter().find(|by| by_name(*by) == record.by);
        Ok(by.zip(BranchId::parse(&record.branch)).map(|(by, branch)| Sighting {
            identity: record.identity,
            branch,
            position: LogOffset(record.position),
            at: Micros(record.at),
            by,
        }))
    }
}

const fn by_name(by: SeenBy) -> &'static str {
    match by {
        SeenBy::Server => "server",
        SeenBy::Restore => "restore",
        SeenBy::Push => "push",
        // Never written.
        SeenBy::Unreadable => "unreadable",
    }
}

/// A push adds nothing to a sighting of its branch, while a look at the server settles what pushes left open.
fn says_as_much(last: &Sighting, seen: &Sighting) -> bool {
    let push_of_seen = last.by == SeenBy::Server && seen.by == SeenBy::Push;
    (last.identity, &last.branch) == (seen.identity, &seen.branch) && (push_of_seen || last.by == seen.by)
}
