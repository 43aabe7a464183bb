//! What a restore in place leaves as it is: production's own configuration, and links out of its directory to configuration and
//! keys that are kept elsewhere. A base backup over the network tells nothing of such links; one of files records where they lead.

use std::fs;
use std::path::{Path, PathBuf};

use everpoint_core::name::{of_path, to_path};
use everpoint_core::shell;
use everpoint_engine::{ConfigurationFile, Engine, Stays};
use everpoint_format::manifest::{BackupRecord, FileEntry};

use super::image::hash_of;
use super::known::Known;
use super::tree::Tree;

/// How a backup that has seen the links was made.
const SEES_LINKS: &str = "files";

/// What of the backup's has another content than production's file lies beside that, with this behind its name.
const BESIDE: &str = ".everpoint-backup";

/// See the module. Paths are relative to the data directory.
#[derive(Debug, Default)]
pub struct Kept {
    /// All that stays.
    paths: Vec<PathBuf>,
    /// Links that the backup could not see.
    links: Vec<PathBuf>,
    /// Files of configuration, as an image names them, with size and hash of what they say.
    files: Vec<(String, u64, Option<[u8; 16]>)>,
    /// Directories that are read as a whole.
    whole: Vec<PathBuf>,
}

impl Kept {
    /// Those links out of the directory that the backup could not see, and these files.
    pub(super) fn of(
        engine: &dyn Engine,
        root: &Path,
        record: &BackupRecord,
        files: Vec<ConfigurationFile>,
    ) -> Self {
        let links = links(engine, root, record);
        let mut kept = Self { paths: links.clone(), links, ..Self::default() };
        for ConfigurationFile { path, stays } in files {
            match stays {
                Stays::File(text) => kept.files.push((of_path(&path), text.len() as u64, hash_of(&text))),
                Stays::Whole => {
                    let there = fs::read_dir(root.join(&path)).into_iter().flatten().flatten();
                    let there = there.map(|entry| path.join(entry.file_name()));
                    there.filter(|path| !is_beside(path)).for_each(|path| kept.stay(path));
                    kept.whole.push(path);
                    continue;
                }
                Stays::Thing => {}
            }
            kept.stay(path);
        }
        kept
    }

    fn stay(&mut self, path: PathBuf) {
        if !self.is(&path) {
            self.paths.push(path);
        }
    }

    /// Only these paths.
    #[cfg(test)]
    pub(super) fn only(paths: &[&str]) -> Self {
        Self { paths: paths.iter().map(PathBuf::from).collect(), ..Self::default() }
    }

    /// All that stays.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Whether it is this path that stays.
    #[must_use]
    pub fn is(&self, path: &Path) -> bool {
        self.paths.iter().any(|kept| kept == path)
    }

    /// Whether a path is one that stays, or below one, or was in a directory that is read as a whole.
    #[must_use]
    pub fn holds(&self, path: &Path) -> bool {
        self.paths.iter().any(|kept| path.starts_with(kept)) || self.is_gone(path)
    }

    /// Whether a path lies in a directory that is read as a whole, and nothing is there: what was at the backup has been taken
    /// out of force. What is missed anywhere else comes back: the server does not start without what its configuration names.
    fn is_gone(&self, path: &Path) -> bool {
        path.parent().is_some_and(|above| self.whole.iter().any(|whole| whole == above))
            && !self.is(path)
            && !is_beside(path)
    }

    /// Whether something that stays lies below a path of the image.
    #[must_use]
    pub fn is_below(&self, path: &str) -> bool {
        let path = to_path(path);
        self.paths.iter().any(|kept| kept != &path && kept.starts_with(&path))
    }

    /// Whether the image's file says something else than the one that stays in its place.
    #[must_use]
    pub fn differs(&self, entry: &FileEntry) -> bool {
        let file = self.files.iter().find(|(path, _, _)| *path == entry.path);
        file.map_or_else(
            || self.is_gone(&to_path(&entry.path)),
            |(_, size, hash)| *size != entry.size || *hash != entry.content_hash,
        )
    }

    /// Whether a path is that of the image's file beside one that stays, of this or of an earlier restore.
    #[must_use]
    pub fn is_beside(&self, path: &str) -> bool {
        let name = path.strip_suffix(BESIDE);
        name.is_some_and(|name| {
            self.files.iter().any(|(kept, _, _)| kept == name) || self.is_gone(&to_path(name))
        })
    }
}

fn is_beside(path: &Path) -> bool {
    of_path(path).ends_with(BESIDE)
}

/// Where the image's file goes beside the one that stays.
pub(super) fn beside(path: &str) -> String {
    format!("{path}{BESIDE}")
}

/// The links that lead to something outside of the directory.
fn links(engine: &dyn Engine, root: &Path, record: &BackupRecord) -> Vec<PathBuf> {
    let Some(real) = fs::canonicalize(root).ok().filter(|_| record.method != SEES_LINKS) else {
        return Vec::new();
    };
    let mut links = engine.links_out(root);
    links.retain(|link| fs::canonicalize(root.join(link)).is_ok_and(|target| !target.starts_with(&real)));
    links
}

/// What the operator should know of the links.
pub(super) fn told(tree: &Tree) -> Option<String> {
    let named = tree.kept().links.iter().map(|link| {
        let target = fs::read_link(tree.root().join(link)).unwrap_or_default();
        format!("{} -> {}", of_path(link), of_path(&target))
    });
    let named: Vec<String> = named.collect();
    (!named.is_empty()).then(|| {
        format!(
            "{} stay links in {}, and what they lead to is not changed: the backup came over the network, which tells \
             nothing of links",
            named.join(", "),
            tree.root().display()
        )
    })
}

/// What the operator should know of the files: nothing if the backup says the same.
pub(super) fn told_of_files(tree: &Tree, known: &Known) -> Option<String> {
    let kept = tree.kept();
    let names = |wanted: &dyn Fn(&str) -> bool| -> Vec<String> {
        let found = kept.files.iter().map(|(path, _, _)| path).filter(|path| wanted(path));
        found.map(|path| to_path(path).display().to_string()).collect()
    };
    let differing = names(&|path| known.differs(path));
    let new = names(&|path| !known.has_kept(path));
    let example = kept.files.iter().map(|(path, _, _)| path).find(|path| known.differs(path));
    let gone = known.kept_only(&|path| kept.files.iter().all(|(file, _, _)| file != path));
    if differing.is_empty() && new.is_empty() && gone.is_empty() {
        return None;
    }
    let mut text = format!(
        "the configuration in {} stays as it is now: {}",
        tree.root().display(),
        names(&|_| true).join(", ")
    );
    if !new.is_empty() {
        text.push_str(&format!("; not in the backup: {}", new.join(", ")));
    }
    if !gone.is_empty() {
        text.push_str(&format!(
            "; in the backup and no longer here, so not in force again: {}, with {BESIDE} at the end of their names",
            gone.join(", ")
        ));
    }
    if let Some(example) = example {
        let [file, from_backup] =
            [example.clone(), beside(example)].map(|path| tree.root().join(to_path(&path)));
        text.push_str(&format!(
            "; other in the backup: {}, whose files lie beside them with {BESIDE} at the end of their names. To take one of \
             these, once the server has recovered: cp {} {}",
            differing.join(", "),
            shell::path(&from_backup),
            shell::path(&file)
        ));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_force_is_only_what_a_directory_read_as_a_whole_has_no_more() {
        let kept = Kept {
            paths: ["parts/one.conf", "conf.d/a.conf", "conf.d/a.conf.off"].map(PathBuf::from).to_vec(),
            files: ["parts/one.conf", "conf.d/a.conf"].map(|path| (path.to_owned(), 1, None)).to_vec(),
            whole: vec![PathBuf::from("conf.d")],
            ..Kept::default()
        };
        let stays_out = |path: &str| kept.holds(Path::new(path));
        for path in ["conf.d/gone.conf", "conf.d/a.conf", "conf.d/a.conf.off", "parts/one.conf"] {
            assert!(stays_out(path), "{path}");
        }
        for path in
            ["parts/two.conf", "conf.d", "conf.d/x/y.conf", "base/1", "conf.d/gone.conf.everpoint-backup"]
        {
            assert!(!stays_out(path), "{path}");
        }
        assert!(kept.is_beside("conf.d/gone.conf.everpoint-backup"));
        assert!(!kept.is_beside("parts/two.conf.everpoint-backup"));
    }
}
