//! The marks of a tree: written before anything else changes, gone or final when it is whole.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::{MARKER, Tree, set_mode};
use crate::AppError;
use crate::restore::mark::Draft;
use crate::restore::prove::is_bare;

impl Tree {
    /// Makes the roots and their marks. `left`: places of production's own tablespaces to which no link will lead any more:
    /// marked, a later restore knows them. `spare` frees some blocks of the data directory's disk, and says whether it could:
    /// asked only if these are all that is lacking.
    ///
    /// # Errors
    /// If they can't be made: then none is there, and nothing that was there has changed.
    pub fn begin(&self, left: &[PathBuf], spare: &dyn Fn() -> bool) -> Result<(), AppError> {
        let there = std::fs::metadata(&self.root).ok();
        self.directory(&self.root, 0o700)?;
        let mut bare = Vec::new();
        for place in self.marked_places() {
            let old = std::fs::metadata(place).ok();
            let is_bare = old.is_none() || is_bare(place)?;
            self.directory(place, 0o700)?;
            // Somebody else may need what else lies there, as it is.
            if is_bare && old.is_none_or(|old| old.uid() == 0) {
                bare.push(place);
            }
        }
        let drafts = self.all_drafts(spare)?;
        self.own(&self.root)?;
        // A server takes both; Debian's group may read.
        if there.is_none_or(|there| !matches!(there.permissions().mode() & 0o7777, 0o700 | 0o750)) {
            set_mode(&self.root, 0o700)?;
        }
        for place in bare {
            self.own(place)?;
            set_mode(place, 0o700)?;
        }
        drafts.into_iter().try_for_each(|draft| draft.put().map(drop))?;
        for place in left {
            if let Err(error) = self.mark_space(place) {
                tracing::warn!(%error, "a tablespace that is left behind could not be marked");
            }
        }
        Ok(())
    }

    /// Where tablespaces have marks of their own.
    fn marked_places(&self) -> impl Iterator<Item = &Path> {
        self.outside().map(|(_, place, _)| place).filter(|place| !place.starts_with(&self.root))
    }

    /// All marks, none in its place yet. What is freed on the data directory's disk helps nowhere else: first it is tried
    /// whether the other places can take one.
    fn all_drafts(&self, spare: &dyn Fn() -> bool) -> Result<Vec<Draft>, AppError> {
        let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev()).ok();
        let near = device(&self.root);
        for place in self.marked_places().filter(|place| device(place) != near) {
            drop(self.draft_space(place)?);
        }
        let drafts = || -> Result<Vec<Draft>, AppError> {
            let root = self.mark.draft(&self.root)?;
            self.own(root.lies_at())?;
            let mut drafts = vec![root];
            for place in self.marked_places() {
                drafts.extend(self.draft_space(place)?);
            }
            Ok(drafts)
        };
        drafts().or_else(|error| if is_full(&error) && spare() { drafts() } else { Err(error) })
    }

    fn draft_space(&self, place: &Path) -> Result<Option<Draft>, AppError> {
        let Some(part) = self.part() else { return Ok(None) };
        let draft = self.mark.draft_space(place, part)?;
        self.own(draft.lies_at())?;
        Ok(Some(draft))
    }

    fn mark_space(&self, place: &Path) -> Result<(), AppError> {
        self.draft_space(place)?.map_or(Ok(()), |draft| draft.put().map(drop))
    }

    /// Removes the marker of a tree of which nothing has changed.
    pub fn unmark(&self) {
        let marker = self.root.join(MARKER);
        match std::fs::remove_file(&marker) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, path = %marker.display(), "could not remove a mark");
            }
            _ => {}
        }
    }

    /// Removes the marker of a tree that is durable, and marks the tablespaces as they are now: a mark proves what it was
    /// written for.
    ///
    /// # Errors
    /// If the disk reports that something could not be written.
    pub fn finish(&self) -> Result<(), AppError> {
        for place in self.marked_places() {
            if let Err(error) = self.mark_space(place) {
                tracing::warn!(%error, "a tablespace could not be marked");
            }
        }
        let marker = self.root.join(MARKER);
        match std::fs::remove_file(&marker) {
            // The server has recovered, and has taken it away itself.
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(AppError::io("remove", &marker, error));
            }
            _ => {}
        }
        File::open(&self.root)
            .and_then(|root| root.sync_all())
            .map_err(|error| AppError::io("make durable", &self.root, error))
    }
}

fn is_full(error: &AppError) -> bool {
    let cause = error.cause.as_ref().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| matches!(cause.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
}
