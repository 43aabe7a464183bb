//! Backups: attempts, image maps, failures, damage.

use std::collections::BTreeSet;
use std::io::Write;
use std::ops::ControlFlow;

use everpoint_format::codec::Codec;
use everpoint_format::manifest::{BackupRecord, FileEntry, ManifestReader, ManifestWriter, PackId};
use everpoint_format::records::{Attempt, Damage, Failure};
use everpoint_format::seal::ObjectKind;
use everpoint_format::stream::{FrameStreamReader, FrameStreamWriter};

use crate::cluster::{ATTEMPTS, ClusterRepo, numbers};
use crate::error::code;
use crate::lease::{self, LeaseState};
use crate::object::{RECORD_CODEC, StoreRead, StoreWrite, format_error, now};
use crate::pack::pack_of;
use crate::{PagesReader, RepoError, names};

/// What is known of a backup without reading its map.
#[derive(Debug, Clone)]
pub struct BackupListing {
    /// Its name.
    pub label: String,
    /// Written when it began.
    pub attempt: Option<Attempt>,
    /// The head of its map: the backup exists when this does.
    pub record: Option<BackupRecord>,
    /// Why the attempt failed.
    pub failure: Option<Failure>,
    /// What was found damaged since.
    pub damage: Vec<Damage>,
    /// What of the above is stored and can't be read, in words; the backup can't be relied upon then.
    pub unreadable: Option<String>,
    /// It has begun and not ended, and somebody holds the lease of this cluster's backups.
    pub running: bool,
}

/// Names that were seen under a label.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) attempt: bool,
    pub(crate) manifest: bool,
    pub(crate) failure: bool,
    damage: Vec<u32>,
}

impl ClusterRepo {
    /// Id of the lease under which one backup of this cluster runs at a time.
    #[must_use]
    pub fn backup_lease_id(&self) -> String {
        format!("backup-{}", self.name)
    }

    /// Records that a backup begins.
    ///
    /// # Errors
    /// `repo.exists` if the label is taken, `repo.invalid` if it can't be one.
    pub fn begin_backup(&self, label: &str, attempt: &Attempt) -> Result<(), RepoError> {
        names::check_word("begin backup", label)?;
        self.shared.put(&self.of(label, "attempt"), ObjectKind::Attempt, &attempt.encode())
    }

    /// Records why a backup failed. One that is recorded already stays.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn fail_backup(&self, label: &str, failure: &Failure) -> Result<(), RepoError> {
        names::check_word("record the failure of backup", label)?;
        match self.shared.put(&self.of(label, "failure"), ObjectKind::Failure, &failure.encode()) {
            Err(error) if error.code != code::EXISTS => Err(error),
            _ => Ok(()),
        }
    }

    /// Records that something of a backup was found damaged.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn mark_damage(&self, label: &str, damage: &Damage) -> Result<(), RepoError> {
        names::check_word("mark damage of backup", label)?;
        let prefix = self.of(label, "damage/");
        for _ in 0..ATTEMPTS {
            let number =
                numbers(&self.shared, &prefix)?.last().copied().unwrap_or_default().saturating_add(1);
            match self.shared.put(&format!("{prefix}{number}"), ObjectKind::Damage, &damage.encode()) {
                Err(error) if error.code == code::EXISTS => {}
                result => return result,
            }
        }
        Err(RepoError::new(code::LOCKED, "mark damage of backup", label, "others do so all the time")
            .retryable())
    }

    /// All backups and attempts, by label.
    ///
    /// # Errors
    /// If the store can't be read. What can be read and is damaged is told in [`BackupListing::unreadable`].
    pub fn backups(&self) -> Result<Vec<BackupListing>, RepoError> {
        let mut found = Vec::new();
        for label in self.shared.store.list_children(&format!("{}/backups/", self.base))? {
            found.extend(self.backup(&label)?);
        }
        let open = |listing: &BackupListing| {
            listing.record.is_none() && listing.failure.is_none() && listing.unreadable.is_none()
        };
        let newest = found.iter_mut().filter(|listing| open(listing)).max_by_key(|listing| {
            (listing.attempt.as_ref().map(|attempt| attempt.started_at), listing.label.clone())
        });
        if let Some(newest) = newest {
            newest.running = lease::state(&self.shared, &self.backup_lease_id())? != LeaseState::Free;
        }
        Ok(found)
    }

    /// One backup; `None` if nothing of it is stored. `running` is not looked up.
    fn backup(&self, label: &str) -> Result<Option<BackupListing>, RepoError> {
        let seen = self.seen(label)?;
        if !(seen.attempt || seen.manifest || seen.failure) {
            return Ok(None);
        }
        let mut unreadable = None;
        let record =
            seen.manifest.then(|| self.open_manifest(label).map(|reader| Some(reader.record().clone())));
        let record = readable(record, &mut unreadable)?;
        let attempt = seen
            .attempt
            .then(|| self.record(&self.of(label, "attempt"), ObjectKind::Attempt, Attempt::decode));
        let failure = seen
            .failure
            .then(|| self.record(&self.of(label, "failure"), ObjectKind::Failure, Failure::decode));
        // Of a backup that has its map, neither matters any more.
        let mut aside = None;
        let note = if record.is_some() { &mut aside } else { &mut unreadable };
        let (attempt, failure) = (readable(attempt, note)?, readable(failure, note)?);
        let mut damage = Vec::new();
        for number in seen.damage {
            let name = self.of(label, &format!("damage/{number}"));
            damage.extend(readable(
                Some(self.record(&name, ObjectKind::Damage, Damage::decode)),
                &mut unreadable,
            )?);
        }
        Ok(Some(BackupListing {
            label: label.to_owned(),
            attempt,
            record,
            failure,
            damage,
            unreadable,
            running: false,
        }))
    }

    pub(crate) fn seen(&self, label: &str) -> Result<Seen, RepoError> {
        let prefix = self.of(label, "");
        let mut seen = Seen::default();
        self.shared.store.list(&prefix, None, &mut |info| {
            match info.name.strip_prefix(&prefix).unwrap_or_default() {
                "attempt" => seen.attempt = true,
                "manifest" => seen.manifest = true,
                "failure" => seen.failure = true,
                other => seen.damage.extend(other.strip_prefix("damage/").and_then(names::parse_number)),
            }
            ControlFlow::Continue(())
        })?;
        Ok(seen)
    }

    fn record<T>(
        &self,
        name: &str,
        kind: ObjectKind,
        decode: impl FnOnce(&[u8]) -> Result<T, everpoint_format::FormatError>,
    ) -> Result<Option<T>, RepoError> {
        let Some(bytes) = self.shared.get(name, kind)? else {
            return Ok(None);
        };
        decode(&bytes).map(Some).map_err(|error| format_error("read", name, error))
    }

    /// Labels of the backups that have a map, sorted.
    pub(crate) fn labels_with_manifest(&self) -> Result<Vec<String>, RepoError> {
        let mut labels = self.shared.store.list_children(&format!("{}/backups/", self.base))?;
        let mut failure = None;
        labels.retain(|label| match self.shared.store.head(&self.of(label, "manifest")) {
            Ok(found) => found.is_some(),
            Err(error) => {
                failure = Some(error);
                false
            }
        });
        failure.map_or(Ok(labels), |error| Err(error.into()))
    }

    /// Opens the map of a backup.
    ///
    /// # Errors
    /// `repo.missing` if there is no such backup, `repo.damaged` if its map fails its checks.
    pub fn open_manifest(&self, label: &str) -> Result<ImageReader, RepoError> {
        names::check_word("open backup", label)?;
        let name = self.of(label, "manifest");
        let stream = self.shared.read_stream(&name, ObjectKind::Manifest)?;
        let reader = ManifestReader::new(stream).map_err(|error| format_error("read", &name, error))?;
        Ok(ImageReader { name, reader })
    }

    /// Opens the page hashes of a backup.
    ///
    /// # Errors
    /// `repo.missing` if there are none.
    pub fn open_pages(&self, label: &str) -> Result<PagesReader, RepoError> {
        names::check_word("open backup", label)?;
        PagesReader::open(&self.shared, &self.of(label, "pages"))
    }

    /// Begins to write the map of a backup whose packs are stored.
    ///
    /// # Errors
    /// `repo.exists` if it has a map already.
    pub fn write_backup(&self, label: &str, record: &BackupRecord) -> Result<BackupWriter, RepoError> {
        names::check_word("write backup", label)?;
        let name = self.of(label, "manifest");
        let pages_name = self.of(label, "pages");
        // Hashes don't compress.
        let pages = self.shared.stream(&pages_name, ObjectKind::Pages, Codec::Raw)?;
        let stream = self.shared.stream(&name, ObjectKind::Manifest, RECORD_CODEC)?;
        let manifest =
            ManifestWriter::new(stream, record).map_err(|error| format_error("write", &name, error))?;
        Ok(BackupWriter {
            cluster: self.clone(),
            label: label.to_owned(),
            name,
            pages_name,
            manifest,
            pages,
            hashes: 0,
            packs: BTreeSet::new(),
        })
    }

    fn of(&self, label: &str, part: &str) -> String {
        format!("{}/backups/{label}/{part}", self.base)
    }

    /// A pack of this set that is not stored, if there is one.
    fn missing_pack(&self, packs: &BTreeSet<PackId>) -> Result<Option<PackId>, RepoError> {
        let mut missing = packs.clone();
        self.each_pack(&mut |id| {
            missing.remove(&id);
        })?;
        Ok(missing.first().copied())
    }
}

/// What was read, or `None` with a note of what is damaged; other errors end the listing.
fn readable<T>(
    result: Option<Result<Option<T>, RepoError>>,
    unreadable: &mut Option<String>,
) -> Result<Option<T>, RepoError> {
    match result {
        None => Ok(None),
        Some(Err(error)) if error.is_damaged() => {
            unreadable.get_or_insert(error.to_string());
            Ok(None)
        }
        // Expired since it was listed.
        Some(Err(error)) if error.is_missing() => Ok(None),
        Some(result) => result,
    }
}

/// The map of a backup, read file by file.
pub struct ImageReader {
    name: String,
    reader: ManifestReader<FrameStreamReader<StoreRead>>,
}

impl ImageReader {
    /// What is known of the backup as a whole.
    #[must_use]
    pub fn record(&self) -> &BackupRecord {
        self.reader.record()
    }

    /// The next file, in byte order of paths; `None` after the last, once the map proved complete.
    ///
    /// # Errors
    /// `repo.damaged` if the map fails its checks.
    pub fn next_entry(&mut self) -> Result<Option<FileEntry>, RepoError> {
        self.reader.next_entry().map_err(|error| format_error("read", &self.name, error))
    }
}

/// The map of a new backup on its way. Dropped without [`BackupWriter::finish`] it leaves nothing.
pub struct BackupWriter {
    cluster: ClusterRepo,
    label: String,
    name: String,
    pages_name: String,
    manifest: ManifestWriter<FrameStreamWriter<StoreWrite>>,
    pages: FrameStreamWriter<StoreWrite>,
    hashes: u64,
    packs: BTreeSet<PackId>,
}

impl BackupWriter {
    /// Adds a file; in strictly ascending byte order of paths. `page_hashes` holds one hash a page, or nothing; where they
    /// stand is entered into the map here.
    ///
    /// # Errors
    /// If the order is wrong or it can't be written.
    pub fn entry(&mut self, mut entry: FileEntry, page_hashes: &[u64]) -> Result<(), RepoError> {
        entry.page_hashes = (!page_hashes.is_empty()).then_some(self.hashes);
        self.packs.extend(entry.extents.iter().filter_map(pack_of));
        for hash in page_hashes {
            self.pages
                .write_all(&hash.to_le_bytes())
                .map_err(|error| format_error("write", &self.pages_name, error.into()))?;
        }
        self.hashes = self.hashes.saturating_add(page_hashes.len() as u64);
        self.manifest.entry(&entry).map_err(|error| format_error("write", &self.name, error))
    }

    /// Makes the backup exist: page hashes first, then, if all packs are there, the map; then the packs are looked at once
    /// more, as an expiry may have run beside it.
    ///
    /// # Errors
    /// `repo.damaged` if a pack is missing: the backup does not exist then, or is marked as damaged.
    pub fn finish(self) -> Result<(), RepoError> {
        let wrap = |error| format_error("write", &self.name, error);
        let pages = self.pages.finish(&[]).map_err(|error| format_error("write", &self.pages_name, error))?;
        pages.commit()?;
        if let Some(pack) = self.cluster.missing_pack(&self.packs)? {
            return Err(gone(&self.name, pack));
        }
        let stream = self.manifest.finish().map_err(wrap)?;
        stream.finish(&[]).map_err(wrap)?.commit()?;
        let Some(pack) = self.cluster.missing_pack(&self.packs)? else {
            return Ok(());
        };
        let error = gone(&self.name, pack);
        self.cluster.mark_damage(
            &self.label,
            &Damage { at: now().0, object: self.name.clone(), message: error.message.clone() },
        )?;
        Err(error)
    }
}

fn gone(name: &str, pack: PackId) -> RepoError {
    RepoError::damaged("finish", name, format!("pack {pack}, which it names, is not stored"))
        .hint("take the backup again; what is stored is reused")
}
