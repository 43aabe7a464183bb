//! Removing backups, and packs that no map names: reference before data.

use std::collections::HashSet;
use std::ops::ControlFlow;

use everpoint_core::Micros;
use everpoint_core::reclaim::{PackFacts, TombstoneFacts};
use everpoint_format::manifest::PackId;
use everpoint_format::records::Tombstone;
use everpoint_format::seal::ObjectKind;

use crate::cluster::{ATTEMPTS, ClusterRepo, numbers};
use crate::error::code;
use crate::log::Freed;
use crate::object::{format_error, hex, now};
use crate::pack::{pack_name, pack_of, parse_pack};
use crate::{RepoError, lease, names};

impl ClusterRepo {
    /// Removes all objects of a backup, or with `dry_run` only counts them. Its packs stay: others may name them.
    ///
    /// # Errors
    /// If the store fails: the backup is whole then, or has no map any more.
    pub fn remove_backup(&self, label: &str, dry_run: bool) -> Result<Freed, RepoError> {
        names::check_word("remove backup", label)?;
        let prefix = format!("{}/backups/{label}/", self.base);
        let (mut freed, mut found) = (Freed::default(), Vec::new());
        self.shared.store.list(&prefix, None, &mut |info| {
            freed.add(info.size);
            found.push(info.name);
            ControlFlow::Continue(())
        })?;
        // Notes of the attempt first, so that a crash leaves no failed attempt where a backup was; the map before what
        // only it refers to.
        let order = |name: &String| match name.strip_prefix(&prefix).unwrap_or_default() {
            "attempt" | "failure" => 0,
            "manifest" => 1,
            _ => 2,
        };
        found.sort_by_key(order);
        if !dry_run {
            found.iter().try_for_each(|name| self.shared.store.delete(name))?;
        }
        Ok(freed)
    }

    /// Removes what crashes left of removed backups: page hashes and notes that belong to no map and no attempt.
    ///
    /// # Errors
    /// If the store fails.
    pub fn sweep_backups(&self) -> Result<(), RepoError> {
        for label in self.shared.store.list_children(&format!("{}/backups/", self.base))? {
            let seen = self.seen(&label)?;
            if !(seen.attempt || seen.manifest || seen.failure) {
                self.remove_backup(&label, false)?;
            }
        }
        Ok(())
    }

    /// All packs, and which of them a map names; the maps of `without` are taken as gone.
    ///
    /// Packs are listed before maps are read, so a backup that ends meanwhile can't make its packs look superfluous.
    /// Memory: 48 bytes a pack.
    ///
    /// # Errors
    /// If a map can't be read: what it names is not known then.
    pub fn pack_facts(&self, without: &[String]) -> Result<Vec<PackFacts>, RepoError> {
        let prefix = format!("{}/packs/", self.base);
        let mut packs = Vec::new();
        self.shared.store.list(&prefix, None, &mut |info| {
            if let Some(PackId(id)) = info.name.strip_prefix(&prefix).and_then(parse_pack) {
                let stored_at = Micros(info.modified_micros);
                packs.push(PackFacts { id, bytes: info.size, stored_at, named: false });
            }
            ControlFlow::Continue(())
        })?;
        if packs.is_empty() {
            return Ok(packs);
        }
        let mut named: HashSet<[u8; 16]> = HashSet::new();
        for label in self.labels_with_manifest()?.into_iter().filter(|label| !without.contains(label)) {
            let mut manifest = match self.open_manifest(&label) {
                Ok(manifest) => manifest,
                // Removed since it was listed.
                Err(error) if error.is_missing() => continue,
                Err(error) => return Err(error),
            };
            while let Some(entry) = manifest.next_entry()? {
                named.extend(entry.extents.iter().filter_map(pack_of).map(|pack| pack.0));
            }
        }
        packs.iter_mut().for_each(|pack| pack.named = named.contains(&pack.id));
        Ok(packs)
    }

    /// When the newest map was stored, by the store's clock; `None` if there is none.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn newest_map(&self) -> Result<Option<Micros>, RepoError> {
        let mut newest = None;
        for label in self.shared.store.list_children(&format!("{}/backups/", self.base))? {
            let found = self.shared.store.head(&format!("{}/backups/{label}/manifest", self.base))?;
            newest = newest.max(found.map(|info| Micros(info.modified_micros)));
        }
        Ok(newest)
    }

    /// The tombstones. One that can't be read counts as one for no pack.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn tombstones(&self) -> Result<Vec<TombstoneFacts>, RepoError> {
        let mut found = Vec::new();
        for number in numbers(&self.shared, &self.tombstone(None))? {
            let name = self.tombstone(Some(number));
            let Some(info) = self.shared.store.head(&name)? else {
                continue;
            };
            let stone = self.shared.need(&name, ObjectKind::Tombstone).and_then(|bytes| {
                Tombstone::decode(&bytes).map_err(|error| format_error("read", &name, error))
            });
            let stone = match stone {
                Ok(stone) => stone,
                // It says nothing, so it is done; its packs get another.
                Err(error) if error.is_damaged() || error.is_missing() => {
                    tracing::warn!(%error, "a tombstone can't be read");
                    Tombstone { at: 0, packs: Vec::new() }
                }
                Err(error) => return Err(error),
            };
            let packs = stone.packs.iter().filter_map(|id| parse_pack(&format!("{}/{id}", id.get(..2)?)));
            found.push(TombstoneFacts {
                number,
                stored_at: Micros(info.modified_micros),
                packs: packs.map(|pack| pack.0).collect(),
            });
        }
        Ok(found)
    }

    /// Sets a tombstone for packs.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn bury(&self, packs: &[[u8; 16]]) -> Result<(), RepoError> {
        let stone = Tombstone { at: now().0, packs: packs.iter().map(|id| hex(id)).collect() }.encode();
        for _ in 0..ATTEMPTS {
            let known = numbers(&self.shared, &self.tombstone(None))?;
            let number = known.last().copied().unwrap_or_default().saturating_add(1);
            match self.shared.put(&self.tombstone(Some(number)), ObjectKind::Tombstone, &stone) {
                Err(error) if error.code == code::EXISTS => {}
                result => return result,
            }
        }
        Err(RepoError::new(code::LOCKED, "set a tombstone for", &self.name, "others do so all the time")
            .retryable())
    }

    /// Removes a pack. One that is not there is no error.
    ///
    /// # Errors
    /// If it may still be there.
    pub fn remove_pack(&self, id: [u8; 16]) -> Result<(), RepoError> {
        Ok(self.shared.store.delete(&pack_name(&self.base, PackId(id)))?)
    }

    /// Removes a tombstone whose packs are gone or named again.
    ///
    /// # Errors
    /// If it may still be there.
    pub fn close_tombstone(&self, number: u32) -> Result<(), RepoError> {
        Ok(self.shared.store.delete(&self.tombstone(Some(number)))?)
    }

    /// What the store's clock says.
    ///
    /// # Errors
    /// If the store can't be written.
    pub fn store_now(&self) -> Result<Micros, RepoError> {
        lease::store_now(&self.shared, &format!("clock-{}", self.name)).map(Micros)
    }

    fn tombstone(&self, number: Option<u32>) -> String {
        let number = number.map(|number| number.to_string()).unwrap_or_default();
        format!("{}/tombstones/{number}", self.base)
    }
}
