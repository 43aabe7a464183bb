//! The repository: made once, opened with a key.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use everpoint_core::FailureClass;
use everpoint_format::FormatError;
use everpoint_format::keyslot::{self, KeyText, Remembered};
use everpoint_format::records::RepositoryConfig;
use everpoint_format::seal::{DataKey, KeyRing, RepositoryId};
use everpoint_store::{Store, StoreErrorKind};

use crate::config::read_config;
use crate::error::code;
use crate::log::BundleCache;
use crate::object::{Shared, format_error, now, random};
use crate::{ClusterRepo, Lease, LeaseState, OffsiteLedger, RepoError, lease, names};

/// An open repository. Clones share everything.
#[derive(Clone)]
pub struct Repository {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository").field("store", &self.shared.store.describe()).finish_non_exhaustive()
    }
}

impl Repository {
    /// Makes a repository in an empty store, or opens the one that is there. A creation that was interrupted is completed.
    ///
    /// The configuration is written before the first key slot: whoever wrote it first decides the repository's id, whoever
    /// writes slot 1 first decides its key, and a creation cut off in between holds no data yet.
    ///
    /// # Errors
    /// As [`Repository::open`], but not if nothing is there.
    pub fn create(store: Arc<dyn Store>, key: Option<&KeyText>) -> Result<Self, RepoError> {
        match read_config(&*store) {
            Err(error) if error.code != code::NOT_FOUND => return Err(error),
            _ => {}
        }
        let config = RepositoryConfig::new(RepositoryId(random()?), key.is_some(), now().0);
        match store.put_new(names::CONFIG, &config.encode()) {
            Ok(()) => {}
            Err(error) if error.kind == StoreErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
        let config = read_config(&*store)?;
        if let (true, Some(key)) = (config.encrypted, key)
            && slots(&*store)?.is_empty()
        {
            first_slot(&*store, config.repository_id, key)?;
        }
        Self::open(store, key)
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// Each with its own code: nothing there (`repo.not_found`), written by a later version (`repo.newer_format`), key
    /// missing (`repo.key_missing`) or wrong (`repo.wrong_key`), a key given to one that is not encrypted
    /// (`repo.not_encrypted`), cut off while being made (`repo.incomplete`).
    pub fn open(store: Arc<dyn Store>, key: Option<&KeyText>) -> Result<Self, RepoError> {
        Self::open_with(store, key, None)
    }

    /// As [`Repository::open`]; a passphrase that a process before this one has stretched is not stretched again.
    ///
    /// # Errors
    /// As [`Repository::open`].
    pub fn open_remembering(
        store: Arc<dyn Store>,
        key: Option<&KeyText>,
        memory: &dyn Remembered,
    ) -> Result<Self, RepoError> {
        Self::open_with(store, key, Some(memory))
    }

    fn open_with(
        store: Arc<dyn Store>,
        key: Option<&KeyText>,
        memory: Option<&dyn Remembered>,
    ) -> Result<Self, RepoError> {
        let config = read_config(&*store)?;
        let ring = match (config.encrypted, key) {
            (false, None) => KeyRing::clear(),
            (true, Some(key)) => KeyRing::new(unlock(&*store, config.repository_id, key, memory)?),
            (true, None) => return Err(key_missing(&*store)),
            (false, Some(_)) => return Err(not_encrypted(&*store)),
        };
        let (id, bundles) = (config.repository_id, BundleCache::default());
        Ok(Self { shared: Arc::new(Shared { store, id, ring, bundles }) })
    }

    /// Whether the repository in a store is encrypted, which needs no key; `None`: there is none.
    ///
    /// # Errors
    /// If that can't be read, or a later version has written it.
    pub fn encryption(store: &dyn Store) -> Result<Option<bool>, RepoError> {
        match read_config(store) {
            Ok(config) => Ok(Some(config.encrypted)),
            Err(error) if error.code == code::NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The repository's id, drawn when it was made.
    #[must_use]
    pub fn id(&self) -> RepositoryId {
        self.shared.id
    }

    /// Whether its data are encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.shared.ring.is_encrypted()
    }

    /// Where it lies.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// Adds a key slot for `new`, with all data keys so far and a fresh one, and returns its number. Data that are stored
    /// need no rewriting; what is stored by those who open the repository from now on is sealed with the fresh key. The old
    /// slot stays until [`Repository::retire_slot`].
    ///
    /// # Errors
    /// `repo.wrong_key` if `old` does not open the newest slot: only that one is known to hold every data key.
    pub fn rotate_key(&self, old: &KeyText, new: &KeyText) -> Result<u32, RepoError> {
        if !self.is_encrypted() {
            return Err(not_encrypted(&*self.shared.store));
        }
        let newest =
            slots(&*self.shared.store)?.last().copied().ok_or_else(|| no_slots(&*self.shared.store))?;
        let bytes = self.shared.store.get(&slot_name(newest))?;
        let mut keys = keyslot::unwrap(&bytes, old, self.shared.id, newest).map_err(|error| match error {
            FormatError::WrongKey => wrong_key(&*self.shared.store).hint(format!(
                "give the key of slot {newest}, the newest: only it is known to hold all data keys"
            )),
            other => format_error("read", &slot_name(newest), other),
        })?;
        keys.push(fresh_key()?);
        let slot = newest.saturating_add(1);
        let wrapped = keyslot::wrap(&keys, new, random()?, self.shared.id, slot)
            .map_err(|error| format_error("seal", &slot_name(slot), error))?;
        match self.shared.store.put_new(&slot_name(slot), &wrapped) {
            Ok(()) => Ok(slot),
            Err(error) if error.kind == StoreErrorKind::AlreadyExists => Err(RepoError::new(
                code::LOCKED,
                "rotate the key of",
                self.describe(),
                "somebody else has just rotated it",
            )
            .class(FailureClass::Locked)
            .hint("run it again with the newest key")),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a key slot: its key opens the repository no longer.
    ///
    /// # Errors
    /// `repo.invalid` for the newest slot, and for one that does not exist.
    pub fn retire_slot(&self, slot: u32) -> Result<(), RepoError> {
        let known = slots(&*self.shared.store)?;
        let object = format!("key slot {slot} of {}", self.describe());
        if !known.contains(&slot) {
            return Err(RepoError::invalid("retire", object, format!("the slots are {known:?}")));
        }
        if known.last() == Some(&slot) {
            return Err(RepoError::invalid(
                "retire",
                object,
                "it is the newest, and the data could never be read again",
            )
            .hint("rotate the key first"));
        }
        Ok(self.shared.store.delete(&slot_name(slot))?)
    }

    /// Numbers of the key slots, oldest first.
    ///
    /// # Errors
    /// If the store can't be listed.
    pub fn slots(&self) -> Result<Vec<u32>, RepoError> {
        slots(&*self.shared.store)
    }

    /// Names of the clusters of which anything is stored, sorted.
    ///
    /// # Errors
    /// If the store can't be listed.
    pub fn clusters(&self) -> Result<Vec<String>, RepoError> {
        Ok(self.shared.store.list_children(names::CLUSTERS)?)
    }

    /// The part of the repository that belongs to a cluster. Nothing is written.
    ///
    /// # Errors
    /// `repo.invalid` if the name can't be a cluster's.
    pub fn cluster(&self, name: &str) -> Result<ClusterRepo, RepoError> {
        names::check_cluster(name)?;
        Ok(ClusterRepo::new(Arc::clone(&self.shared), name))
    }

    /// Names of the offsite providers that have a ledger here.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn offsite_providers(&self) -> Result<Vec<String>, RepoError> {
        Ok(self.shared.store.list_children(crate::offsite::OFFSITE)?)
    }

    /// The ledger of calls to an offsite provider. Nothing is written.
    ///
    /// # Errors
    /// `repo.invalid` if the name can't be a provider's.
    pub fn offsite(&self, provider: &str) -> Result<OffsiteLedger, RepoError> {
        names::check_word("open the ledger of", provider)?;
        Ok(OffsiteLedger::new(Arc::clone(&self.shared), provider))
    }

    /// Takes a lease: see [`Lease`]. `holder` tells others who holds it.
    ///
    /// # Errors
    /// `repo.locked` (class `Locked`) if another holds it; the message tells who.
    pub fn lease(&self, id: &str, holder: &str, ttl: Duration) -> Result<Lease, RepoError> {
        names::check_word("take the lock", id)?;
        Lease::acquire(Arc::clone(&self.shared), id, holder, ttl)
    }

    /// Who holds leases now whose ids `wanted` says. Rows of those that nobody holds any more are removed: their ids must be
    /// such that none is ever used again.
    ///
    /// # Errors
    /// If the store can't tell.
    pub fn holders_of_single_use(&self, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<String>, RepoError> {
        let mut holders = Vec::new();
        for id in self.shared.store.list_children("leases/")?.iter().filter(|id| wanted(id)) {
            match lease::state(&self.shared, id)? {
                LeaseState::Held { holder } => holders.push(holder),
                LeaseState::Free => lease::remove_row(&self.shared, id)?,
            }
        }
        Ok(holders)
    }

    /// Whether somebody holds a lease now.
    ///
    /// # Errors
    /// If the store can't tell.
    pub fn lease_state(&self, id: &str) -> Result<LeaseState, RepoError> {
        names::check_word("look up the lock", id)?;
        lease::state(&self.shared, id)
    }

    fn describe(&self) -> String {
        format!("the repository at {}", self.shared.store.describe())
    }
}

pub(crate) fn place(store: &dyn Store) -> String {
    format!("the repository at {}", store.describe())
}

/// Numbers of the key slots, ascending.
fn slots(store: &dyn Store) -> Result<Vec<u32>, RepoError> {
    let mut found = Vec::new();
    store.list(names::KEYS, None, &mut |info| {
        found.extend(info.name.strip_prefix(names::KEYS).and_then(names::parse_number));
        ControlFlow::Continue(())
    })?;
    found.sort_unstable();
    Ok(found)
}

fn slot_name(slot: u32) -> String {
    format!("{}{slot}", names::KEYS)
}

fn fresh_key() -> Result<DataKey, RepoError> {
    Ok(DataKey::new(random()?, random()?))
}

/// Writes slot 1 of a repository that has none. Another may do so at the same time: the first one counts.
fn first_slot(store: &dyn Store, id: RepositoryId, key: &KeyText) -> Result<(), RepoError> {
    if !store.list_children(names::CLUSTERS)?.is_empty() {
        return Err(no_slots(store));
    }
    let wrapped = keyslot::wrap(&[fresh_key()?], key, random()?, id, 1)
        .map_err(|error| format_error("seal", &slot_name(1), error))?;
    match store.put_new(&slot_name(1), &wrapped) {
        Err(error) if error.kind != StoreErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(()),
    }
}

/// The data keys, from the newest slot that the key opens.
fn unlock(
    store: &dyn Store,
    id: RepositoryId,
    key: &KeyText,
    memory: Option<&dyn Remembered>,
) -> Result<Vec<DataKey>, RepoError> {
    let known = slots(store)?;
    if known.is_empty() {
        let empty = store.list_children(names::CLUSTERS)?.is_empty();
        return Err(if empty { incomplete(store) } else { no_slots(store) });
    }
    let mut unreadable = None;
    for slot in known.into_iter().rev() {
        let bytes = match store.get(&slot_name(slot)) {
            Ok(bytes) => bytes,
            // Retired between listing and reading.
            Err(error) if error.kind == StoreErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        match keyslot::unwrap_remembering(&bytes, key, id, slot, memory) {
            Ok(keys) => return Ok(keys),
            Err(FormatError::WrongKey) => {}
            Err(error) => unreadable = Some(format_error("read", &slot_name(slot), error)),
        }
    }
    Err(unreadable
        .unwrap_or_else(|| if key.is_age_identity() { age_identity(store) } else { wrong_key(store) }))
}

fn wrong_key(store: &dyn Store) -> RepoError {
    RepoError::new(code::WRONG_KEY, "open", place(store), "the key is not one of this repository")
        .class(FailureClass::Damaged)
        .hint("check key_file, key_command or EVERPOINT_KEY; a rotated key must be replaced by the new one")
}

fn age_identity(store: &dyn Store) -> RepoError {
    let message = "what was given as its key is an age identity, which opens packages and no repository";
    RepoError::new(code::WRONG_KEY, "open", place(store), message)
        .class(FailureClass::Damaged)
        .hint("give the repository's key: the file whose first line begins with everpoint-key-1-, or its passphrase")
}

fn key_missing(store: &dyn Store) -> RepoError {
    RepoError::new(code::KEY_MISSING, "open", place(store), "it is encrypted, and no key was given")
        .class(FailureClass::Usage)
        .hint("give key_file or key_command in the configuration, --key-file, or EVERPOINT_KEY")
}

fn not_encrypted(store: &dyn Store) -> RepoError {
    let message = "a key was given, but the repository is not encrypted";
    RepoError::new(code::NOT_ENCRYPTED, "open", place(store), message).class(FailureClass::Usage).hint(
        "open it without a key, or make a new repository with one: an existing one can't be encrypted later",
    )
}

fn incomplete(store: &dyn Store) -> RepoError {
    RepoError::new(
        code::INCOMPLETE,
        "open",
        place(store),
        "its creation was interrupted before its key was written",
    )
    .hint("run: everpoint init")
}

fn no_slots(store: &dyn Store) -> RepoError {
    let message = "its key slots are gone, and without them its data can't be read";
    RepoError::damaged("open", place(store), message).hint("bring back the objects below keys/ from a copy")
}
