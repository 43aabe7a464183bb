//! The paths of an image, as far as one has to know them to tell what else lies in a directory.

use std::collections::BTreeMap;

use everpoint_core::name::to_path;
use everpoint_core::place::Wanted;
use everpoint_engine::StopFlag;
use everpoint_format::manifest::FileKind;
use everpoint_repo::ClusterRepo;

use super::image::EXTERNAL;
use super::kept::beside;
use super::tree::Tree;
use crate::AppError;

/// Hashes of paths, with the last bit for a directory. Memory: 8 bytes a path.
#[derive(Debug, Default)]
pub struct Known {
    paths: Vec<u64>,
    /// Files in whose place production's own stay, and whether these say something else.
    kept: BTreeMap<String, bool>,
}

impl Known {
    /// Reads them.
    ///
    /// # Errors
    /// If the map of the image can't be read.
    pub fn read(cluster: &ClusterRepo, label: &str, tree: &Tree, stop: &StopFlag) -> Result<Self, AppError> {
        let mut manifest = cluster.open_manifest(label)?;
        let (mut known, mut parent) = (Self::default(), String::new());
        while let Some(entry) = manifest.next_entry()? {
            super::stopped(stop)?;
            let path = match entry.kind {
                FileKind::External => format!("{EXTERNAL}/{}", entry.path),
                _ => entry.path.clone(),
            };
            if tree.takes(&path)? {
                known.add(&path, entry.kind == FileKind::Directory, &mut parent);
            } else if !matches!(entry.kind, FileKind::External | FileKind::Directory) {
                let differs = tree.kept().differs(&entry);
                if differs {
                    known.add(&beside(&path), false, &mut parent);
                }
                known.kept.insert(path, differs);
            }
        }
        known.paths.sort_unstable();
        Ok(known)
    }

    /// Adds a path and the directories above it, unless they are those of the path before.
    fn add(&mut self, path: &str, directory: bool, parent: &mut String) {
        self.paths.push(hash(path, directory));
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        if above != parent {
            let mut rest = above;
            while !rest.is_empty() {
                self.paths.push(hash(rest, true));
                rest = rest.rsplit_once('/').map_or("", |(above, _)| above);
            }
            above.clone_into(parent);
        }
    }

    /// Whether the image has a file in whose place production's own stays, and which says something else.
    #[must_use]
    pub fn differs(&self, path: &str) -> bool {
        self.kept.get(path).copied().unwrap_or_default()
    }

    /// Whether the image has a file in whose place production's own stays.
    #[must_use]
    pub fn has_kept(&self, path: &str) -> bool {
        self.kept.contains_key(path)
    }

    /// Those of the image's files that stay out of their place of which this holds, as people read them.
    pub fn kept_only(&self, holds: &dyn Fn(&str) -> bool) -> Vec<String> {
        let found = self.kept.iter().filter(|(path, differs)| **differs && holds(path));
        found.map(|(path, _)| to_path(path).display().to_string()).collect()
    }

    /// What the image has at a path.
    #[must_use]
    pub fn wanted(&self, path: &str) -> Wanted {
        let has = |directory| self.paths.binary_search(&hash(path, directory)).is_ok();
        match (has(false), has(true)) {
            (true, _) => Wanted::File,
            (_, true) => Wanted::Directory,
            _ => Wanted::Nothing,
        }
    }
}

fn hash(path: &str, directory: bool) -> u64 {
    let hash = blake3::hash(path.as_bytes());
    let number = hash.as_bytes().first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    (number & !1) | u64::from(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_their_directories_and_nothing_else_are_wanted() {
        let (mut known, mut parent) = (Known::default(), String::new());
        known.add("base/5/1", false, &mut parent);
        known.add("base/5/2", false, &mut parent);
        known.add("pg_wal", true, &mut parent);
        known.paths.sort_unstable();
        let wanted =
            ["base/5/2", "base/5", "base", "pg_wal", "base/5/3", "pg_wal/x"].map(|path| known.wanted(path));
        let (file, directory, nothing) = (Wanted::File, Wanted::Directory, Wanted::Nothing);
        assert_eq!(wanted, [file, directory, directory, directory, nothing, nothing]);
    }
}
