//! A mark before it is in its place.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::{Mark, NEW_MARK};
use crate::AppError;

/// A mark that is whole, and proves nothing yet: it has another name. Unless it is put in its place it goes again.
#[derive(Debug)]
pub struct Draft {
    new: PathBuf,
    path: PathBuf,
}

impl Draft {
    /// `mark` is asked when its file is there: a directory of an overlay becomes another one as soon as something is made in it.
    pub(super) fn write(directory: &Path, name: &str, mark: &dyn Fn() -> Mark) -> Result<Self, AppError> {
        let draft = Self { new: directory.join(NEW_MARK), path: directory.join(name) };
        let fail = |error| AppError::io("write", &draft.path, error);
        match fs::remove_file(&draft.new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft.new);
        let mut file = new.map_err(fail)?;
        let mut text = serde_json::to_vec_pretty(&mark()).map_err(|error| fail(error.into()))?;
        text.push(b'\n');
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(fail)?;
        Ok(draft)
    }

    /// Where it is now.
    #[must_use]
    pub fn lies_at(&self) -> &Path {
        &self.new
    }

    /// Puts it in its place: a mark is there whole or not at all. Returns where.
    ///
    /// # Errors
    /// If that fails.
    pub fn put(self) -> Result<PathBuf, AppError> {
        let fail = |error| AppError::io("write", &self.path, error);
        fs::rename(&self.new, &self.path).map_err(fail)?;
        let directory = self.path.parent().unwrap_or(&self.path);
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(fail)?;
        Ok(self.path.clone())
    }
}

impl Drop for Draft {
    /// Once it is put nothing has this name.
    fn drop(&mut self) {
        drop(fs::remove_file(&self.new));
    }
}

#[cfg(test)]
mod tests {
    use super::super::MARKER;
    use super::*;

    #[test]
    fn the_directory_is_looked_at_when_something_was_made_in_it() {
        let place = tempfile::tempdir().unwrap();
        let mark = Mark::new("r1", "shop", place.path(), "b");
        let seen = std::cell::Cell::new(false);
        let ask = || {
            seen.set(place.path().join(NEW_MARK).exists());
            mark.clone()
        };
        drop(Draft::write(place.path(), MARKER, &ask).unwrap());
        assert!(seen.get(), "the directory of an overlay is another one afterwards");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "nothing is left of what was not put");
    }
}
