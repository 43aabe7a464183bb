//! Where Everpoint's own files lie. Inside of a server's directories they would be backed up into themselves, and a restore
//! in place would remove them together with what it restores.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use everpoint_core::FailureClass;
use everpoint_engine::{CheckLine, CheckState};

use crate::restore::mark::MARKER;
use crate::{AppError, ClusterContext};

/// One of them: a file or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Belonging {
    /// What it is, e.g. `the repository local`.
    pub what: String,
    /// Where it is, or will be.
    pub path: PathBuf,
    /// It is a directory in which nothing else may lie.
    pub closed: bool,
}

/// Where a restore would write.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// The data directory.
    pub root: &'a Path,
    /// The places of tablespaces.
    pub spaces: &'a [PathBuf],
    /// Those that were named by hand.
    pub mapped: &'a [PathBuf],
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
        let Belonging { what, path, .. } = &self.belonging;
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

/// Refuses a restore into a directory that holds something of ours or lies in it, that lies inside a server's directories or
/// around them, or that another cluster's server has. `servers`: directories of the protected server, its data directory first.
///
/// # Errors
/// `restore.own_files` or `restore.directory`, class `Usage`. Nothing was touched.
pub fn refuse_places(
    places: &Places<'_>,
    context: &ClusterContext,
    servers: &[PathBuf],
) -> Result<(), AppError> {
    let root = places.root;
    refuse_ours(places, &context.belongings)?;
    refuse_neighbours(std::iter::once(root).chain(places.spaces.iter().map(PathBuf::as_path)), context)
        .map_err(|(place, message)| {
            refused("restore.directory", &place, message).hint(
                "name a directory elsewhere; where the entry of that cluster is out of date, correct its data_dir",
            )
        })?;
    let in_place = servers.iter().any(|server| is_same(root, server));
    let around = servers.iter().find(|server| !in_place && (lies_in(root, server) || lies_in(server, root)));
    let above = || root.parent().and_then(server_above);
    if let Some(server) = around.cloned().or_else(above) {
        let side = if lies_in(&server, root) { "it holds" } else { "it lies inside" };
        let message = format!("{side} {}, which belongs to a server", server.display());
        return Err(refused("restore.directory", root, message).hint("name a directory elsewhere"));
    }
    let data = servers.first().filter(|_| !in_place);
    for space in places.spaces {
        if data.is_some_and(|data| lies_in(space, data) || lies_in(data, space)) {
            let message = "the tablespace would lie in or around the data directory of the server";
            return Err(refused("restore.directory", space, message).hint("name another place with --map"));
        }
    }
    refuse_mapped(places.mapped, servers)
}

/// A place that was named by hand lies neither in nor around a server's directories.
fn refuse_mapped(mapped: &[PathBuf], servers: &[PathBuf]) -> Result<(), AppError> {
    for space in mapped {
        // Exactly the place of one: that is judged by what lies in it.
        let crosses =
            |server: &&PathBuf| !is_same(space, server) && (lies_in(space, server) || lies_in(server, space));
        let above = || space.parent().and_then(server_above);
        if let Some(server) = servers.iter().find(crosses).cloned().or_else(above) {
            let message = format!(
                "the tablespace would lie in or around {}, which belongs to a server",
                server.display()
            );
            return Err(refused("restore.directory", space, message).hint("name another place with --map"));
        }
    }
    Ok(())
}

/// Both ways: what is restored over would take ours with it, and what lies in ours is taken for a part of it.
fn refuse_ours(places: &Places<'_>, belongings: &[Belonging]) -> Result<(), AppError> {
    let spaces = places.spaces.iter().map(PathBuf::as_path);
    for place in std::iter::once(places.root).chain(spaces) {
        if let Some(held) = belongings.iter().find(|it| lies_in(&it.path, place)) {
            let message = format!("it holds {} ({})", held.what, held.path.display());
            return Err(refused("restore.own_files", place, message).hint(
                "restore to another directory, or move that first: it would be removed with what is restored",
            ));
        }
    }
    let mapped = places.mapped.iter().map(PathBuf::as_path);
    for place in std::iter::once(places.root).chain(mapped) {
        // A directory for restores may lie in that of the daemon.
        let open = |around: &Belonging| {
            let holds =
                |it: &&Belonging| !it.closed && lies_in(place, &it.path) && lies_in(&it.path, &around.path);
            belongings.iter().any(|it| holds(&it))
        };
        let within = |it: &&Belonging| it.closed && lies_in(place, &it.path) && !open(it);
        if let Some(around) = belongings.iter().find(within) {
            let message = format!("it lies inside {} ({})", around.what, around.path.display());
            return Err(refused("restore.own_files", place, message).hint("name a directory elsewhere"));
        }
    }
    Ok(())
}

/// What other clusters of the configuration have on this machine, whether their servers run or not.
///
/// # Errors
/// The place, and why it is none.
pub(crate) fn refuse_neighbours<'a>(
    places: impl Iterator<Item = &'a Path>,
    context: &ClusterContext,
) -> Result<(), (PathBuf, String)> {
    let own = context.engine.data_directory();
    // The same server under two names is no neighbour.
    let others =
        context.neighbours.iter().filter(|it| !own.as_ref().is_some_and(|own| is_same(own, &it.path)));
    let others: Vec<(&Belonging, Vec<PathBuf>)> = others.map(|it| (it, with_tablespaces(&it.path))).collect();
    for place in places {
        for (neighbour, directories) in &others {
            if let Some(there) = directories.iter().find(|it| lies_in(place, it) || lies_in(it, place)) {
                let message = format!(
                    "{} of the configuration has {}, which is there or would be written over with it",
                    neighbour.what,
                    there.display()
                );
                return Err((place.to_owned(), message));
            }
        }
    }
    Ok(())
}

/// A data directory and the places to which its links lead.
fn with_tablespaces(data: &Path) -> Vec<PathBuf> {
    let links = data.join("pg_tblspc");
    let found = fs::read_dir(&links).into_iter().flatten().flatten();
    let places = found.filter_map(|entry| Some(links.join(fs::read_link(entry.path()).ok()?)));
    std::iter::once(data.to_owned()).chain(places).collect()
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

pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
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

/// The nearest directory at or above a path that is a data directory, or is to become one, or a tablespace of whatever server.
#[must_use]
pub fn server_above(path: &Path) -> Option<PathBuf> {
    let real = real(path);
    real.ancestors().find(|above| is_data_directory(above) || is_tablespace(above)).map(Path::to_owned)
}

fn is_data_directory(directory: &Path) -> bool {
    // Of an unfinished restore nothing will be left that its image lacks, when it goes on.
    directory.join(MARKER).is_file()
        || directory.join("PG_VERSION").is_file() && directory.join("global/pg_control").is_file()
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
mod tests;
