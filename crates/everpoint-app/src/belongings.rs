//! Where Everpoint's own files lie. Inside of a server's directories they would be backed up into themselves, and a restore
//! in place would remove them together with what it restores.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use everpoint_core::FailureClass;
use everpoint_engine::{CheckLine, CheckState};

use crate::{AppError, ClusterContext};

/// One of them: a file or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Belonging {
    /// What it is, e.g. `the repository local`.
    pub what: String,
    /// Where it is, or will be.
    pub path: PathBuf,
}

/// One that lies where it must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misplaced {
    /// What.
    pub belonging: Belonging,
    /// The directory of a server in which it lies.
    pub within: PathBuf,
}

impl Misplaced {
    /// In words.
    #[must_use]
    pub fn told(&self) -> String {
        let Belonging { what, path } = &self.belonging;
        format!(
            "{what} ({}) lies inside {}, which belongs to a server",
            path.display(),
            self.within.display()
        )
    }
}

/// What to do about it.
const MOVE: &str = "move it to another place, best to another disk, and change the configuration";

/// Those that lie inside one of these directories, or below any data directory or tablespace.
#[must_use]
pub fn misplaced(belongings: &[Belonging], servers: &[PathBuf]) -> Vec<Misplaced> {
    let within = |belonging: &Belonging| {
        let known = servers.iter().find(|server| lies_in(&belonging.path, server)).cloned();
        known.or_else(|| server_above(&belonging.path))
    };
    belongings
        .iter()
        .filter_map(|it| Some(Misplaced { belonging: it.clone(), within: within(it)? }))
        .collect()
}

/// Those of a cluster.
#[must_use]
pub fn of(context: &ClusterContext) -> Vec<Misplaced> {
    misplaced(&context.belongings, &context.engine.directories())
}

/// Refuses to make what would lie inside a server's directory.
///
/// # Errors
/// `config.inside_server`, class `Usage`.
pub fn refuse(belongings: &[Belonging], servers: &[PathBuf]) -> Result<(), AppError> {
    let Some(first) = misplaced(belongings, servers).into_iter().next() else { return Ok(()) };
    let (object, message) = (first.belonging.path.display().to_string(), first.told());
    Err(AppError::new("config.inside_server", FailureClass::Usage, "use", object, message).hint(MOVE))
}

/// The line of `check`; `None` where nothing is misplaced.
pub(crate) fn line(context: &ClusterContext) -> Option<CheckLine> {
    let found = of(context);
    if found.is_empty() {
        return None;
    }
    let told: Vec<String> = found.iter().map(Misplaced::told).collect();
    let message = format!("{}; backups leave it out, and a restore in place is refused", told.join("; "));
    Some(CheckLine {
        name: "location".to_owned(),
        state: CheckState::Error,
        message,
        hint: Some(MOVE.to_owned()),
    })
}

/// Refuses a restore into a directory that holds something of ours, or that lies inside a server's directories or
/// around them. `servers`: directories of the protected server, its data directory first.
///
/// # Errors
/// `restore.own_files` or `restore.directory`, class `Usage`. Nothing was touched.
pub fn refuse_places(
    root: &Path,
    spaces: &[PathBuf],
    belongings: &[Belonging],
    servers: &[PathBuf],
) -> Result<(), AppError> {
    for place in std::iter::once(root).chain(spaces.iter().map(PathBuf::as_path)) {
        if let Some(held) = belongings.iter().find(|it| lies_in(&it.path, place)) {
            let message = format!("it holds {} ({})", held.what, held.path.display());
            return Err(refused("restore.own_files", place, message).hint(
                "restore to another directory, or move that first: it would be removed with what is restored",
            ));
        }
    }
    let in_place = servers.iter().any(|server| is_same(root, server));
    let around = servers.iter().find(|server| !in_place && (lies_in(root, server) || lies_in(server, root)));
    let above = || root.parent().and_then(server_above);
    if let Some(server) = around.cloned().or_else(above) {
        let side = if lies_in(&server, root) { "it holds" } else { "it lies inside" };
        let message = format!("{side} {}, which belongs to a server", server.display());
        return Err(refused("restore.directory", root, message).hint("name a directory elsewhere"));
    }
    let data = servers.first().filter(|_| !in_place);
    for space in spaces {
        if data.is_some_and(|data| lies_in(space, data) || lies_in(data, space)) {
            let message = "the tablespace would lie in or around the data directory of the server";
            return Err(refused("restore.directory", space, message).hint("name another place with --map"));
        }
    }
    Ok(())
}

fn refused(code: &str, place: &Path, message: impl Into<String>) -> AppError {
    AppError::new(code, FailureClass::Usage, "restore into", place.display().to_string(), message)
}

/// Whether a path is a directory or lies in it, by whatever links and mounts it is reached. Neither needs to exist.
#[must_use]
pub fn lies_in(path: &Path, directory: &Path) -> bool {
    let (path, wanted) = (real(path), real(directory));
    if path.starts_with(&wanted) {
        return true;
    }
    let Ok(found) = fs::metadata(&wanted) else { return false };
    let by_name = path.ancestors().any(|above| fs::metadata(above).is_ok_and(|it| same(&it, &found)));
    // A part of a directory that is mounted elsewhere has other directories above it.
    by_name
        || physical(&path)
            .zip(physical(&wanted))
            .is_some_and(|(path, wanted)| path.0 == wanted.0 && path.1.starts_with(wanted.1))
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => same(&one, &other),
        _ => real(one) == real(other),
    }
}

fn same(one: &Metadata, other: &Metadata) -> bool {
    one.dev() == other.dev() && one.ino() == other.ino()
}

/// The path without links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for above in path.ancestors() {
        if let Ok(there) = fs::canonicalize(above) {
            return path.strip_prefix(above).map_or(there.clone(), |rest| there.join(rest));
        }
    }
    path
}

/// The file system of a path and the path on it.
fn physical(path: &Path) -> Option<(String, PathBuf)> {
    let table = fs::read("/proc/self/mountinfo").ok()?;
    let mounts = table.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ').skip(2);
        let device = String::from_utf8_lossy(fields.next()?).into_owned();
        let (root, at) = (unescaped(fields.next()?), unescaped(fields.next()?));
        let rest = path.strip_prefix(&at).ok()?;
        Some((at.components().count(), device, root.join(rest)))
    });
    // What was mounted last on a place hides what was there.
    mounts.max_by_key(|(depth, _, _)| *depth).map(|(_, device, path)| (device, path))
}

/// Spaces and the like are written as three octal digits.
fn unescaped(text: &[u8]) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\').and_then(|it| std::str::from_utf8(it).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// The nearest directory at or above a path that is a data directory or a tablespace of whatever server.
#[must_use]
pub fn server_above(path: &Path) -> Option<PathBuf> {
    let real = real(path);
    real.ancestors().find(|above| is_data_directory(above) || is_tablespace(above)).map(Path::to_owned)
}

fn is_data_directory(directory: &Path) -> bool {
    directory.join("PG_VERSION").is_file() && directory.join("global/pg_control").is_file()
}

/// A tablespace holds a directory like `PG_15_202209061`.
fn is_tablespace(directory: &Path) -> bool {
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let is_one = |name: &[u8]| {
        let mut parts = name.strip_prefix(b"PG_").unwrap_or_default().split(|byte| *byte == b'_');
        matches!((parts.next(), parts.next(), parts.next()), (Some(major), Some(catalog), None)
            if digits(major) && catalog.len() == 9 && digits(catalog))
    };
    // Directories above are mostly short, and those that aren't can't be read whole each time.
    const LOOKED_AT: usize = 10_000;
    let Ok(entries) = fs::read_dir(directory) else { return false };
    entries.take(LOOKED_AT).flatten().any(|entry| is_one(entry.file_name().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &Path) -> Belonging {
        Belonging { what: "the repository local".to_owned(), path: path.to_owned() }
    }

    #[test]
    fn what_lies_inside_is_found_through_links_and_before_it_exists() {
        let home = tempfile::tempdir().unwrap();
        let (data, link) = (home.path().join("data"), home.path().join("link"));
        fs::create_dir_all(data.join("sub")).unwrap();
        std::os::unix::fs::symlink(data.join("sub"), &link).unwrap();
        for inside in [data.clone(), data.join("not/yet"), link.clone(), link.join("not/yet")] {
            assert!(lies_in(&inside, &data), "{inside:?}");
        }
        for outside in [home.path().to_owned(), home.path().join("data2"), home.path().join("not/yet")] {
            assert!(!lies_in(&outside, &data), "{outside:?}");
        }
        assert!(lies_in(&data, home.path()));
    }

    #[test]
    fn any_servers_directory_is_known_by_what_it_holds() {
        let home = tempfile::tempdir().unwrap();
        let (data, space) = (home.path().join("data"), home.path().join("space"));
        fs::create_dir_all(data.join("global")).unwrap();
        fs::create_dir_all(space.join("PG_15_202209061")).unwrap();
        assert_eq!(server_above(&data.join("repository")), None);
        fs::write(data.join("PG_VERSION"), "15\n").unwrap();
        fs::write(data.join("global/pg_control"), "").unwrap();
        let real = |path: &Path| path.canonicalize().unwrap();
        assert_eq!(server_above(&data.join("repository")), Some(real(&data)));
        assert_eq!(server_above(&space.join("repository")), Some(real(&space)));
        assert_eq!(server_above(&home.path().join("PG_15")), None);
        assert_eq!(refuse(&[at(&data.join("x"))], &[]).unwrap_err().code, "config.inside_server");
        refuse(&[at(&home.path().join("x"))], std::slice::from_ref(&data)).unwrap();
    }

    #[test]
    fn a_place_must_not_hold_our_files_nor_lie_in_or_around_a_servers() {
        let home = tempfile::tempdir().unwrap();
        let [data, space, free] = ["data", "space", "free"].map(|name| home.path().join(name));
        for directory in [&data, &space, &free] {
            fs::create_dir(directory).unwrap();
        }
        let servers = [data.clone(), space.clone()];
        let code = |root: &Path, spaces: &[PathBuf], ours: &[Belonging]| {
            refuse_places(root, spaces, ours, &servers).err().map(|error| error.code)
        };
        assert_eq!(code(&free, &[], &[at(&data.join("r"))]), None);
        assert_eq!(code(&data, std::slice::from_ref(&space), &[]), None, "in place");
        assert_eq!(code(&data, &[data.join("inside")], &[]), None, "a tablespace inside, in place");
        let directory = Some("restore.directory".to_owned());
        for wrong in [data.join("copy"), space.join("copy"), home.path().to_owned()] {
            assert_eq!(code(&wrong, &[], &[]), directory, "{wrong:?}");
        }
        assert_eq!(code(&free, &[data.join("space")], &[]), directory);
        let own = Some("restore.own_files".to_owned());
        assert_eq!(code(&data, &[], &[at(&data.join("r"))]), own);
        assert_eq!(code(&data, std::slice::from_ref(&space), &[at(&space.join("r"))]), own);
    }

    #[test]
    fn mounted_names_are_read_with_their_spaces() {
        assert_eq!(unescaped(br"/mnt/a\040b\134c"), Path::new("/mnt/a b\\c"));
        assert_eq!(unescaped(br"/mnt/a\9"), Path::new(r"/mnt/a\9"));
        assert!(physical(Path::new("/proc/self")).is_some());
    }
}
