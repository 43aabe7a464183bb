//! Listing of a directory store, in byte order of full names.
//!
//! Memory: the entries of the directories on the way to the current one, never the whole tree.

use std::ops::ControlFlow;

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::{LocalStore, info, is_file, is_ours, open_directory};
use crate::{ObjectInfo, StoreError};

struct Entry {
    /// Name within its directory; a directory's with its slash, which gives the byte order of full names.
    key: String,
    directory: bool,
}

/// Visits what lies under `prefix`; breaks when the visitor does.
pub(super) fn walk(
    store: &LocalStore,
    prefix: &str,
    start_after: Option<&str>,
    visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StoreError> {
    for entry in entries(store, prefix)? {
        let name = format!("{prefix}{}", entry.key);
        let passed = start_after
            .is_some_and(|after| *name <= *after && !(entry.directory && after.starts_with(&name)));
        if passed {
            continue;
        }
        let flow = if entry.directory {
            walk(store, &name, start_after, visit)?
        } else {
            match rustix::fs::statat(store.root(), &*name, AtFlags::empty()) {
                Ok(stat) if is_file(&stat) => visit(info(name, &stat)),
                // Deleted since the directory was read.
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => ControlFlow::Continue(()),
                Err(errno) => return Err(store.fail("list", &name, errno)),
            }
        };
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Names of the directories directly under `prefix` that hold at least one object.
pub(super) fn children(store: &LocalStore, prefix: &str) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    for entry in entries(store, prefix)?.into_iter().filter(|entry| entry.directory) {
        // An empty directory is what a crash between mkdir and rename leaves: no object, no child.
        let first = walk(store, &format!("{prefix}{}", entry.key), None, &mut |_| ControlFlow::Break(()))?;
        if first.is_break() {
            found.push(entry.key.trim_end_matches('/').to_owned());
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn entries(store: &LocalStore, prefix: &str) -> Result<Vec<Entry>, StoreError> {
    let path = prefix.trim_end_matches('/');
    let fail = |errno| store.fail("list", if path.is_empty() { "/" } else { path }, errno);
    let directory = match open_directory(store.root(), path) {
        Ok(directory) => directory,
        Err(Errno::NOENT | Errno::NOTDIR) if !path.is_empty() => return Ok(Vec::new()),
        Err(errno) => return Err(fail(errno)),
    };
    let mut found = Vec::new();
    for entry in Dir::read_from(&directory).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if !is_ours(path, name) {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown | FileType::Symlink => {
                match rustix::fs::statat(&directory, name, AtFlags::empty()) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(fail(errno)),
                }
            }
            known => known,
        };
        match kind {
            FileType::Directory => found.push(Entry { key: format!("{name}/"), directory: true }),
            FileType::RegularFile => found.push(Entry { key: name.to_owned(), directory: false }),
            _ => {}
        }
    }
    found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok(found)
}
