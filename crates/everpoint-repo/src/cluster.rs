//! The part of a repository that belongs to one cluster.

use std::ops::ControlFlow;
use std::sync::Arc;

use everpoint_core::{BranchId, FailureClass};
use everpoint_format::records::Identity;
use everpoint_format::seal::ObjectKind;

use crate::error::code;
use crate::object::{Shared, format_error, now};
use crate::{LogStore, RepoError, names};

/// How often the next number is tried when others take it meanwhile.
pub(crate) const ATTEMPTS: usize = 20;

/// The part of a repository that belongs to one cluster. Clones share everything.
#[derive(Clone)]
pub struct ClusterRepo {
    pub(crate) shared: Arc<Shared>,
    pub(crate) name: String,
    /// `clusters/<name>`.
    pub(crate) base: String,
}

impl ClusterRepo {
    pub(crate) fn new(shared: Arc<Shared>, name: &str) -> Self {
        Self { shared, name: name.to_owned(), base: format!("{}{name}", names::CLUSTERS) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who the cluster was over time, oldest first.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn identities(&self) -> Result<Vec<(u32, Identity)>, RepoError> {
        let prefix = format!("{}/identity/", self.base);
        let mut found = Vec::new();
        for number in numbers(&self.shared, &prefix)? {
            let name = format!("{prefix}{number}");
            let bytes = self.shared.need(&name, ObjectKind::Identity)?;
            let identity = Identity::decode(&bytes).map_err(|error| format_error("read", &name, error))?;
            found.push((number, identity));
        }
        Ok(found)
    }

    /// The number under which the log of this server is stored.
    ///
    /// A server is known by its system identifier. One that is known keeps its number through minor updates; a new major
    /// version or segment size gets the next number. The first server of a cluster gets number 1.
    ///
    /// # Errors
    /// `repo.wrong_cluster` for a server with another system identifier, unless `allow_new`: then it gets the next number.
    pub fn identity_for(
        &self,
        system: u64,
        version: u32,
        segment_size: u64,
        allow_new: bool,
    ) -> Result<(u32, Identity), RepoError> {
        let wanted = Identity {
            system_identifier: system.to_string(),
            server_version: version,
            segment_size,
            since: now().0,
        };
        for _ in 0..ATTEMPTS {
            let known = self.identities()?;
            let same = |other: &Identity| {
                other.system_identifier == wanted.system_identifier
                    && other.server_version / MAJOR == version / MAJOR
                    && other.segment_size == segment_size
            };
            if let Some((number, identity)) = known.iter().rev().find(|(_, other)| same(other)) {
                return Ok((*number, identity.clone()));
            }
            let is_known = known.iter().any(|(_, other)| other.system_identifier == wanted.system_identifier);
            if let Some((number, other)) = known.last()
                && !is_known
                && !allow_new
            {
                return Err(self.wrong_cluster(&wanted, *number, other));
            }
            let number = known.last().map_or(0, |(number, _)| *number).saturating_add(1);
            match self.shared.put(
                &format!("{}/identity/{number}", self.base),
                ObjectKind::Identity,
                &wanted.encode(),
            ) {
                Ok(()) => return Ok((number, wanted)),
                Err(error) if error.code == code::EXISTS => {}
                Err(error) => return Err(error),
            }
        }
        Err(RepoError::new(code::LOCKED, "register", &self.name, "others register servers all the time")
            .retryable())
    }

    fn wrong_cluster(&self, wanted: &Identity, number: u32, other: &Identity) -> RepoError {
        let message = format!(
            "the server's system identifier is {}, but {} is {} (identity {number})",
            wanted.system_identifier, self.name, other.system_identifier
        );
        RepoError::new(
            code::WRONG_CLUSTER,
            "store for",
            format!("cluster {}", self.name),
            message,
        )
        .class(FailureClass::Damaged)
        .hint(
            format!(
                "check the address of the server; if it was upgraded with pg_upgrade or made anew: everpoint adopt {}",
                self.name
            ),
        )
    }

    /// The log of one branch.
    #[must_use]
    pub fn log(&self, identity: u32, branch: BranchId, segment_size: u64) -> LogStore {
        LogStore::new(Arc::clone(&self.shared), &self.base, identity, branch, segment_size)
    }

    /// Branches of which anything is stored, by timeline.
    ///
    /// # Errors
    /// If the store can't be listed.
    pub fn branches(&self, identity: u32) -> Result<Vec<BranchId>, RepoError> {
        let mut found = Vec::new();
        for part in ["log", "bundles"] {
            let children = self.shared.store.list_children(&format!("{}/{part}/{identity}/", self.base))?;
            found.extend(children.iter().filter_map(|name| BranchId::parse(name)));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

/// 150018 is major version 15.
const MAJOR: u32 = 10_000;

/// The numbers that stand directly under a prefix, ascending.
pub(crate) fn numbers(shared: &Shared, prefix: &str) -> Result<Vec<u32>, RepoError> {
    let mut found = Vec::new();
    shared.store.list(prefix, None, &mut |info| {
        found.extend(info.name.strip_prefix(prefix).and_then(names::parse_number));
        ControlFlow::Continue(())
    })?;
    found.sort_unstable();
    Ok(found)
}
