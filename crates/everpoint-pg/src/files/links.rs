//! Links in a data directory: which are followed, and which lead where nothing of this cluster is.

use std::cell::RefCell;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use everpoint_core::name::of_path;

use super::needed::is_needed;
use super::{is_emptied, number};
use crate::outside::is_own_place;

/// Device and inode.
pub(super) type Number = (u64, u64);

/// What becomes of a link.
#[derive(Debug)]
pub(super) enum Followed {
    /// What it leads to is taken in its place.
    Taken(Metadata),
    /// What it leads to is in the image under its own name.
    Stored,
    /// It is not taken, for this reason.
    Lost(String),
}

/// What must be known of a data directory to judge its links.
#[derive(Debug)]
pub(super) struct Links {
    root: PathBuf,
    /// This server's parts of its tablespaces.
    parts: Vec<PathBuf>,
    /// Root and parts, by number.
    stored: Vec<Number>,
    /// Where links led that are none of the server's own.
    taken: RefCell<Vec<PathBuf>>,
    /// Directories inside that are taken in the place of a link, by their paths.
    elsewhere: Vec<String>,
}

impl Links {
    /// Looks at a data directory. `version_directory`: the name of this server's part of a tablespace.
    pub(super) fn new(data_dir: &Path, version_directory: &str) -> Self {
        let root = fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        let spaces = below(&root.join("pg_tblspc"));
        let parts: Vec<PathBuf> =
            spaces.filter_map(|space| fs::canonicalize(space.join(version_directory)).ok()).collect();
        let stored = std::iter::once(&root).chain(&parts);
        let stored = stored.filter_map(|path| fs::metadata(path).ok().map(|it| numbers_of(&it))).collect();
        let mut elsewhere = Vec::new();
        for place in own_places(&root).filter(|place| place.is_symlink()) {
            let Ok(real) = fs::canonicalize(&place) else { continue };
            let Ok(inside) = real.strip_prefix(&root) else { continue };
            let (inside, place) =
                (of_path(inside), place.strip_prefix(&root).map(of_path).unwrap_or_default());
            // The place of a tablespace may hold more than the server's part of it.
            let in_space = place.strip_prefix("pg_tblspc/").is_some_and(|rest| !rest.contains('/'));
            if real.is_dir() && !in_space && !inside.is_empty() && is_own(&place) && !is_own(&inside) {
                elsewhere.push(inside);
            }
        }
        let linked = |part: &&PathBuf| !part.starts_with(root.join("pg_tblspc"));
        elsewhere.extend(
            parts.iter().filter(linked).filter_map(|part| part.strip_prefix(&root).ok().map(of_path)),
        );
        Self { root, parts, stored, taken: RefCell::default(), elsewhere }
    }

    /// Whether a directory inside, by its path, is taken in the place of a link that leads to it.
    pub(super) fn is_elsewhere(&self, path: &str) -> bool {
        self.elsewhere.iter().any(|place| place == path)
    }

    /// Whether a directory that was found behind a link is the data directory or a part of a tablespace.
    pub(super) fn is_stored(&self, number: Number) -> bool {
        self.stored.contains(&number)
    }

    /// Judges the link at `full`, which has the name `path` in the image. `above`: the directories that are open.
    pub(super) fn follow(&self, path: &str, full: &Path, above: &[Number]) -> Followed {
        let found = match fs::metadata(full) {
            Ok(found) => found,
            Err(error) => return Followed::Lost(broken(full, &error)),
        };
        if is_of_kernel(full) {
            return Followed::Lost("it is a link to something that the kernel makes up".to_owned());
        }
        if !found.is_dir() {
            return match special(&found) {
                None => Followed::Taken(found),
                Some(kind) => Followed::Lost(format!("it is a link to a {kind}")),
            };
        }
        if is_emptied(path) || path.strip_prefix("pg_tblspc/").is_some_and(|oid| number(oid).is_some()) {
            return Followed::Taken(found);
        }
        let real = match fs::canonicalize(full) {
            Ok(real) => real,
            Err(error) => return Followed::Lost(broken(full, &error)),
        };
        let shown = of_path(&real);
        let own = is_own(path);
        if above.contains(&numbers_of(&found)) || self.root.starts_with(&real) {
            return Followed::Lost(format!("it is a link to a directory above it, {shown}"));
        }
        let inside = real.starts_with(&self.root) || self.parts.iter().any(|part| real.starts_with(part));
        if !inside && let Some(other) = another_server(&real) {
            return Followed::Lost(format!("it is a link into another server's data directory, {other}"));
        }
        if own {
            return Followed::Taken(found);
        }
        let mut taken = self.taken.borrow_mut();
        if inside || taken.iter().any(|taken| real.starts_with(taken)) {
            return Followed::Stored;
        }
        taken.push(real);
        Followed::Taken(found)
    }
}

/// File systems whose files have no end, or no content of anybody: proc, sysfs, cgroup, cgroup2, debugfs, tracefs, bpf.
const OF_KERNEL: [u64; 7] =
    [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270, 0x6462_6720, 0x7472_6163, 0xcafe_4a11];

fn is_of_kernel(full: &Path) -> bool {
    rustix::fs::statfs(full)
        .is_ok_and(|it| u64::try_from(it.f_type).is_ok_and(|kind| OF_KERNEL.contains(&kind)))
}

/// Device and inode of what was found.
pub(super) fn numbers_of(found: &Metadata) -> Number {
    (found.dev(), found.ino())
}

/// What it is that is neither file nor directory.
pub(super) fn special(found: &Metadata) -> Option<&'static str> {
    let kind = found.file_type();
    match () {
        () if kind.is_fifo() => Some("fifo"),
        () if kind.is_socket() => Some("socket"),
        () if kind.is_block_device() || kind.is_char_device() => Some("device"),
        () => None,
    }
}

fn broken(full: &Path, error: &io::Error) -> String {
    let target = fs::read_link(full).map_or_else(|_| "an unknown place".to_owned(), |to| of_path(&to));
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            format!("it is a link to nowhere ({target})")
        }
        io::ErrorKind::PermissionDenied => format!("the link to {target} may not be followed"),
        // A loop; the name that the standard library has for it is not stable.
        _ => format!("the link to {target} can't be followed: {error}"),
    }
}

/// The data directory of a server at or above a path.
fn another_server(path: &Path) -> Option<String> {
    path.ancestors().find(|above| is_data_directory(above)).map(of_path)
}

/// Whether a directory is a server's.
pub(super) fn is_data_directory(path: &Path) -> bool {
    path.join("PG_VERSION").exists() && path.join(crate::control::CONTROL_FILE).exists()
}

/// Whether the server itself has a directory of this name: what a link in its place leads to is its own.
fn is_own(path: &str) -> bool {
    let known = match path.split_once('/') {
        None => is_own_place(path),
        Some((top, below)) => top == "pg_logical" && !below.contains('/') || is_needed(path, None),
    };
    known && !is_emptied(path)
}

/// The directories that the server has its own names for, as far as they may be links.
fn own_places(root: &Path) -> impl Iterator<Item = PathBuf> {
    let own = |place: &PathBuf| {
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        is_own_place(&name) && !is_emptied(&name)
    };
    let top: Vec<PathBuf> = below(root).filter(own).collect();
    let second: Vec<PathBuf> = top.iter().flat_map(|place| below(place)).collect();
    let spaces = root.join("pg_tblspc");
    let versions: Vec<PathBuf> =
        second.iter().filter(|place| place.starts_with(&spaces)).flat_map(|place| below(place)).collect();
    let databases: Vec<PathBuf> = versions.iter().flat_map(|place| below(place)).collect();
    top.into_iter().chain(second).chain(versions).chain(databases)
}

fn below(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    // Of a large database only the directories are looked into.
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}
