//! What the mock keeps: a directory of files under the names that they were sent with.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;

use serde::Serialize;
use tempfile::NamedTempFile;

/// A file that it keeps.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Kept {
    pub(super) name: String,
    pub(super) size: u64,
}

/// The directory.
pub(super) struct Keep {
    dir: PathBuf,
    limit: Option<u64>,
}

impl Keep {
    pub(super) fn open(dir: PathBuf, limit: Option<u64>) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, limit })
    }

    pub(super) fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// What is there, by name.
    pub(super) fn list(&self) -> io::Result<Vec<Kept>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_name(&name) {
                found.push(Kept { name, size: entry.metadata()?.len() });
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Bytes that are kept.
    pub(super) fn bytes(&self) -> io::Result<u64> {
        Ok(self.list()?.iter().map(|kept| kept.size).sum())
    }

    /// Opens a file.
    pub(super) fn read(&self, name: &str) -> io::Result<File> {
        File::open(self.dir.join(name))
    }

    /// Begins a file: it has its name when it is whole.
    pub(super) fn begin(&self) -> io::Result<Incoming> {
        let file = tempfile::Builder::new().prefix(".incoming-").tempfile_in(&self.dir)?;
        let left =
            self.limit.map(|limit| Ok::<_, io::Error>(limit.saturating_sub(self.bytes()?))).transpose()?;
        Ok(Incoming { file, left })
    }

    /// Gives a file that arrived its name.
    pub(super) fn finish(&self, incoming: Incoming, name: &str) -> io::Result<()> {
        incoming.file.as_file().sync_all()?;
        incoming.file.persist(self.dir.join(name))?;
        Ok(())
    }
}

/// A file on its way in.
pub(super) struct Incoming {
    file: NamedTempFile,
    left: Option<u64>,
}

impl Incoming {
    /// Adds bytes; `false` if the limit does not allow them.
    pub(super) fn add(&mut self, bytes: &[u8]) -> io::Result<bool> {
        if let Some(left) = &mut self.left {
            match left.checked_sub(bytes.len() as u64) {
                Some(rest) => *left = rest,
                None => return Ok(false),
            }
        }
        self.file.write_all(bytes)?;
        Ok(true)
    }
}

/// Whether a file may be called so: no directories, nothing hidden.
pub(super) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._+=-".contains(&byte);
    (1..=200).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed)
}
