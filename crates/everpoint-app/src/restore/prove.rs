//! Proves every place of a restore before anything in it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use everpoint_core::place::{
    MarkProof, Proven, RootFacts, SpaceFacts, There, Unproven, judge_root, judge_space,
};
use everpoint_core::{FailureClass, RestorePlan, shell};
use everpoint_engine::{DirectoryProof, Engine};
use everpoint_format::manifest::BackupRecord;

use super::links::{aside, directories, leads_to, links, part_aside};
use super::mark::{MARKER, Mark, NEW_MARK, is_space_name, space_name};
use super::mounts::{Mounts, not_mounted};
use super::spaces::{By, Space, Wishes};
use super::tree::{Tree, owner_for};
use super::whose::{cluster_proof, links_are_its_own, recorded_directory};
use super::{RestoreRequest, kept, live};
use crate::facts::Facts;
use crate::{AppError, ClusterContext};

/// The places of a restore, proven.
#[derive(Debug)]
pub struct Proof {
    /// Where everything goes.
    pub tree: Tree,
    /// Why the data directory may be written to.
    pub root: Proven,
    /// The data directory is, or until now was, production's own.
    pub own: bool,
    /// Something of an earlier state is in one of the places.
    pub occupied: bool,
    /// Places of this directory's own tablespaces to which no link will lead any more.
    pub left: Vec<PathBuf>,
    /// What is odd about the places, in words.
    pub told: Vec<String>,
}

impl Proof {
    /// Those of production's, which no restore has marked. A copy's have their marks.
    #[must_use]
    pub fn left_unmarked(&self) -> &[PathBuf] {
        if self.own { &self.left } else { &[] }
    }
}

/// Finds where everything of a backup goes, and that it may.
///
/// # Errors
/// `Usage` if a place is not proven, or a mapping is no good.
pub fn run(
    context: &ClusterContext,
    request: &RestoreRequest,
    plan: &RestorePlan,
    record: &BackupRecord,
) -> Result<Proof, AppError> {
    let root = std::path::absolute(&request.directory)
        .map_err(|error| AppError::io("find", &request.directory, error))?;
    let mark = mark_of(context, request, &root, &plan.backup);
    let part = context.engine.tablespace_directory(record.server_version);
    let proven = prove_root(context, &root, &mark, (plan.identity, part.as_deref()), request.delta)?;
    let fact =
        |name: &str| record.facts.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let engine = context.engine.as_ref();
    let replaces = request.replace_production;
    let listings = context.cluster.backups()?;
    let known = recorded_directory(&listings).or_else(|| fact("data_directory"));
    let own = !request.confined && links_are_its_own(engine, &root, known, replaces);
    let there = links(&root);
    let none = BTreeMap::new();
    let all_links = if own { &there } else { &none };
    let inside = if own { directories(&root) } else { BTreeSet::new() };
    let spaces = Wishes {
        inside: &inside,
        root: &root,
        map: &request.map,
        links: all_links,
        replace_production: request.replace_production,
        origin: fact("data_directory"),
        directories: engine.takes_tablespaces_inside(record.server_version),
    }
    .places(&record.tablespaces, &plan.created_tablespaces, &plan.dropped_tablespaces)?;
    let ground = Ground {
        engine,
        root: &root,
        mark: &mark,
        links: &there,
        own,
        empty: proven == Proven::Empty,
        asked: request.delta || proven == Proven::Marked,
        whole: proven == Proven::Own,
        mounts: Mounts::read(),
    };
    let mut occupied = !ground.empty;
    let mut told: Vec<String> =
        ground.mounts.bare(&root).filter(|_| ground.empty).map(not_mounted).into_iter().collect();
    let outside = spaces.iter().filter_map(|(oid, space)| Some((oid, space, space.place.as_deref()?)));
    for (oid, space, place) in outside.filter(|(_, _, place)| !place.starts_with(&root)) {
        let part = part.as_deref().ok_or_else(|| unknown_version(record))?;
        occupied |= ground.judge(*oid, space, place, part)? != Proven::Empty;
        told.extend(ground.missing(*oid, space, place, part)?);
    }
    let left = ground.left(&spaces, part.as_deref());
    let kept = if own && replaces { kept::links(engine, &root, record) } else { Vec::new() };
    let tree = Tree::new(&root, spaces, part, mark)?.with_log_elsewhere(own).with_kept(kept);
    Ok(Proof { tree, root: proven, own, occupied, left, told })
}

/// Proves the data directory by itself, where nothing is planned yet.
///
/// # Errors
/// `Usage` if it is not proven.
pub(super) fn root(
    context: &ClusterContext,
    request: &RestoreRequest,
    facts: &Facts,
    root: &Path,
) -> Result<(), AppError> {
    let Some((identity, known)) = &facts.identity else { return Ok(()) };
    let part = context.engine.tablespace_directory(known.server_version);
    let mark = mark_of(context, request, root, "");
    prove_root(context, root, &mark, (*identity, part.as_deref()), request.delta).map(drop)
}

fn mark_of(context: &ClusterContext, request: &RestoreRequest, root: &Path, backup: &str) -> Mark {
    let repository = request.repository.clone().unwrap_or_else(|| context.repository.id().to_string());
    Mark::new(&repository, &context.name, root, backup)
}

/// What the proof of the places of tablespaces rests on.
struct Ground<'a> {
    engine: &'a dyn Engine,
    root: &'a Path,
    mark: &'a Mark,
    /// Where the links of the data directory lead, whose ever that is.
    links: &'a BTreeMap<u32, PathBuf>,
    /// They are production's own.
    own: bool,
    /// Nothing is in the data directory.
    empty: bool,
    /// What earlier restores put there may change.
    asked: bool,
    /// It is a data directory that no restore has left unfinished.
    whole: bool,
    mounts: Mounts,
}

impl Ground<'_> {
    /// Proves the place of a tablespace outside of the data directory.
    fn judge(&self, oid: u32, space: &Space, place: &Path, part: &str) -> Result<Proven, AppError> {
        // By another number, too: what was dropped and made anew at the same place is still production's.
        let linked = self.own && self.links.values().any(|link| leads_to(link, place));
        let by_own_link = self.links.get(&oid).is_some_and(|link| leads_to(link, place));
        let facts = SpaceFacts {
            linked,
            mark: self.mark.in_space(place, part, self.empty, by_own_link),
            ..space_facts(place, part)?
        };
        let proven = judge_space(&facts, self.asked).map_err(|why| {
            let error = space_error(oid, space, place, why);
            self.with_left(error, (space, place, part), &facts, why)
        })?;
        live::refuse_space(self.engine, place, part)?;
        if space.by == By::Map && proven == Proven::Empty {
            refuse_owner(oid, place, owner_for(self.root)?.map(|(uid, _)| uid.as_raw()))?;
        }
        Ok(proven)
    }

    /// What a data directory has left there that was moved aside, or is gone, can be moved or removed, unless somebody uses it.
    fn with_left(
        &self,
        error: AppError,
        (space, place, part): (&Space, &Path, &str),
        facts: &SpaceFacts,
        why: Unproven,
    ) -> AppError {
        let left =
            !facts.part_empty && !facts.strangers && self.engine.tablespace_in_use(place, part).is_none();
        let Some(mut hint) = error.hint.clone().filter(|_| left) else { return error };
        if space.by == By::Origin && self.empty {
            let command = part_aside(place, part);
            hint = format!(
                "if the data directory that was here was moved aside, what it had there goes aside, too: {command}; else {hint}"
            );
        }
        if why == Unproven::StaleMark {
            let (part, mark) = (place.join(part), place.join(space_name(part)));
            hint.push_str(&format!(
                "; if the data directory of which it was is gone, and nobody needs it: rm -r {} {}",
                shell::path(&part),
                shell::path(&mark)
            ));
        }
        error.hint(hint)
    }

    /// A place that holds nothing may be the bare mount point of the file system that does. Returns what to tell, where it may
    /// be so: a link of production's leads there; a disk that was replaced is empty, too.
    ///
    /// # Errors
    /// If the machine says that something else is to be mounted there, and nobody has named the place by hand.
    fn missing(&self, oid: u32, space: &Space, place: &Path, part: &str) -> Result<Option<String>, AppError> {
        if !space_facts(place, part)?.part_empty {
            return Ok(None);
        }
        match self.mounts.bare(place) {
            Some(point) if space.by == By::Map => Ok(Some(not_mounted(point))),
            Some(point) => Err(usage("put a tablespace into", place, &not_mounted(point)).hint(format!(
                "mount it (mount {0}), then run the same command again; if the tablespace is to lie there as it is now, say so: \
                 --map {oid}={1}",
                point.display(),
                place.display()
            ))),
            None => {
                let linked = self.own && self.links.get(&oid).is_some_and(|link| leads_to(link, place));
                Ok((self.whole && linked && !space.created).then(|| {
                    format!(
                        "{0} holds nothing of the tablespace to which the link pg_tblspc/{oid} of {1} leads; it is written there \
                         anew. If its file system is not mounted, stop this, and mount it first",
                        place.display(),
                        self.root.display()
                    )
                }))
            }
        }
    }

    /// Places of tablespaces to which a link of the directory leads now, and none will.
    fn left(&self, spaces: &BTreeMap<u32, Space>, part: Option<&str>) -> Vec<PathBuf> {
        let wanted: Vec<&Path> = spaces.values().filter_map(|space| space.place.as_deref()).collect();
        let kept = |place: &Path| wanted.iter().any(|other| leads_to(other, place));
        let marked = |place: &Path| {
            part.is_some_and(|part| self.mark.in_space(place, part, self.empty, true) == MarkProof::Ours)
        };
        let outside = self.links.values().filter(|place| !place.starts_with(self.root) && place.is_dir());
        outside.filter(|place| !kept(place) && (self.own || marked(place))).cloned().collect()
    }
}

/// A directory of another identity of the cluster, as pg_upgrade leaves one, is another server's.
fn prove_root(
    context: &ClusterContext,
    root: &Path,
    mark: &Mark,
    (identity, part): (u32, Option<&str>),
    asked: bool,
) -> Result<Proven, AppError> {
    let there = there(root)?;
    let empty = there == There::Directory && is_bare(root)?;
    let systems = context.cluster.identities()?;
    let known = |system: u64| {
        systems.iter().any(|(number, it)| *number == identity && it.system_identifier == system.to_string())
    };
    let cluster = cluster_proof(context.engine.as_ref(), root, &known);
    let facts = RootFacts { there, empty, cluster, mark: mark.in_root(root) };
    judge_root(&facts, asked).map_err(|why| {
        let error = usage("restore into", root, &why.to_string());
        error.hint(match why {
            Unproven::NotAsked => {
                "name an empty or new directory, or add --delta to bring this one to the wanted state"
                    .to_owned()
            }
            Unproven::Unreadable => {
                format!("name an empty or new directory; or move this one aside: {}", aside(root, part))
            }
            Unproven::ForeignMark | Unproven::StaleMark => {
                "name an empty or new directory; one that a restore left unfinished can be removed".to_owned()
            }
            Unproven::CopiedMark => format!(
                "name an empty or new directory; if an unfinished restore was copied here, empty this one first; else the \
                 mark says nothing of what lies here: rm {}",
                shell::path(&root.join(MARKER))
            ),
            Unproven::Strangers => below(context.engine.as_ref(), root, &known),
            Unproven::OtherCluster(_) | Unproven::NoDirectory => "name an empty or new directory".to_owned(),
        })
    })
}

/// The last part of a path may have been forgotten.
fn below(engine: &dyn Engine, root: &Path, known: &dyn Fn(u64) -> bool) -> String {
    let ours =
        |path: &PathBuf| matches!(engine.directory_proof(path), DirectoryProof::Cluster(it) if known(it));
    let mut below = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    below.find(ours).map_or_else(
        || "name an empty or new directory".to_owned(),
        |found| {
            format!("name an empty or new directory; this cluster's data directory is {}", found.display())
        },
    )
}

/// As root we could give a directory away that somebody else's programs need: only an empty one of root's own is taken, or one
/// that already belongs to who will own the restored files.
fn refuse_owner(oid: u32, place: &Path, owner: Option<u32>) -> Result<(), AppError> {
    let (Some(owner), Ok(found)) = (owner, fs::metadata(place)) else { return Ok(()) };
    let message = if found.uid() == owner || (found.uid() == 0 && is_bare(place)?) {
        return Ok(());
    } else if found.uid() == 0 {
        "it is root's, and other things than this tablespace lie in it"
    } else {
        "it belongs to another user than the restored data directory will"
    };
    Err(usage("put a tablespace into", place, message)
        .hint(format!("name a new directory, or an empty one of the server's user: --map {oid}=/new/place")))
}

/// Whether nothing is in a directory but what a file system puts there.
pub(super) fn is_bare(place: &Path) -> Result<bool, AppError> {
    only(place, &|name, directory| name == NEW_MARK || (name == "lost+found" && directory))
}

/// What lies in a place; whose it is remains to be said.
fn space_facts(place: &Path, part: &str) -> Result<SpaceFacts, AppError> {
    let there = there(place)?;
    let own = place.join(part);
    // A part that is there, but empty, may be a tablespace that a server has just made.
    let part_empty = there != There::Directory || fs::symlink_metadata(&own).is_err();
    let known = |name: &str, directory: bool| {
        directory && (name == "lost+found" || name.starts_with("PG_"))
            || name == part
            || name == NEW_MARK
            || is_space_name(name)
    };
    let strangers = there == There::Directory && !only(place, &known)?;
    Ok(SpaceFacts { there, part_empty, strangers, linked: false, mark: MarkProof::None })
}

fn space_error(oid: u32, space: &Space, place: &Path, why: Unproven) -> AppError {
    let operation = format!(
        "put the tablespace {} into",
        if space.origin.is_empty() { oid.to_string() } else { space.origin.clone() }
    );
    let hint = match (why, space.by) {
        (Unproven::NotAsked, _) => {
            "an earlier restore into this directory put it there: add --delta".to_owned()
        }
        (Unproven::StaleMark, _) => {
            format!(
                "name an empty or new directory: --map {oid}=/new/place; what lies there may be in use by another server"
            )
        }
        (_, By::Map) => format!("name an empty or new directory: --map {oid}=/new/place"),
        _ => format!("add --map {oid}=/new/place; what lies there may be in use by another server"),
    };
    usage(&operation, place, &why.to_string()).hint(hint)
}

fn unknown_version(record: &BackupRecord) -> AppError {
    let message =
        "a tablespace can't lie outside of the data directory: its version of PostgreSQL is not known here";
    AppError::new("restore.version", FailureClass::Usage, "restore", record.label.clone(), message)
        .hint("leave out --map, and restore into a directory that is not production's")
}

fn there(path: &Path) -> Result<There, AppError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(There::Directory),
        Ok(_) => Ok(There::Other),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Ok(if fs::symlink_metadata(path).is_ok() { There::Other } else { There::Nothing })
        }
        Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(There::Other),
        Err(error) => Err(AppError::io("look at", path, error)),
    }
}

/// Whether a directory holds only what is known by name, and by whether it is a directory.
pub(super) fn only(path: &Path, known: &dyn Fn(&str, bool) -> bool) -> Result<bool, AppError> {
    let list = |error| AppError::io("list", path, error);
    for entry in fs::read_dir(path).map_err(list)? {
        let entry = entry.map_err(list)?;
        let directory = entry.file_type().map_err(list)?.is_dir();
        if !known(&entry.file_name().to_string_lossy(), directory) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn usage(operation: &str, path: &Path, message: &str) -> AppError {
    AppError::new("restore.directory", FailureClass::Usage, operation, path.display().to_string(), message)
}

#[cfg(test)]
mod tests;
