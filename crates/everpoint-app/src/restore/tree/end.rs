//! The end of a restore into a tree: it becomes durable, and its mark goes.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;

use super::Tree;
use crate::AppError;
use crate::restore::mark::MARKER;

impl Tree {
    /// Removes the marker of a tree of which nothing has changed.
    pub fn unmark(&self) {
        let marker = self.root.join(MARKER);
        if let Err(error) = std::fs::remove_file(&marker) {
            tracing::warn!(%error, path = %marker.display(), "could not remove a mark");
        }
    }

    /// Removes the marker of a tree that is durable.
    ///
    /// # Errors
    /// If the disk reports that something could not be written.
    pub fn finish(&self) -> Result<(), AppError> {
        self.mark_spaces();
        let marker = self.root.join(MARKER);
        match std::fs::remove_file(&marker) {
            // The server has recovered, and has taken it away itself.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(AppError::io("remove", &marker, error));
            }
            _ => {}
        }
        File::open(&self.root)
            .and_then(|root| root.sync_all())
            .map_err(|error| AppError::io("make durable", &self.root, error))
    }

    /// Writes back the file systems of the tree.
    ///
    /// # Errors
    /// If the disk reports that something could not be written.
    pub fn sync(&self) -> Result<(), AppError> {
        let mut devices = Vec::new();
        let outside = self.outside().map(|(_, place, _)| place);
        for place in std::iter::once(self.root()).chain(outside) {
            let directory = File::open(place).map_err(|error| AppError::io("open", place, error))?;
            let device = directory.metadata().map_err(|error| AppError::io("look at", place, error))?.dev();
            if !devices.contains(&device) {
                rustix::fs::syncfs(&directory)
                    .map_err(|error| AppError::io("make durable", place, error.into()))?;
                devices.push(device);
            }
        }
        Ok(())
    }

    /// Marks the tablespaces as they are now: a mark proves what it was written for.
    fn mark_spaces(&self) {
        for place in self.outside().map(|(_, place, _)| place).filter(|place| !place.starts_with(&self.root))
        {
            if let Err(error) = self.mark_space(place) {
                tracing::warn!(%error, "a tablespace could not be marked");
            }
        }
    }
}
