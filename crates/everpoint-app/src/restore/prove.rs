//! Proves every place of a restore before anything in it changes.

mod ground;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use everpoint_core::place::{Proven, RootFacts, There, Unproven, judge_root};
use everpoint_core::{FailureClass, RestorePlan, shell};
use everpoint_engine::{DirectoryProof, Engine};
use everpoint_format::manifest::BackupRecord;

use super::RestoreRequest;
use super::kept::Kept;
use super::links::{aside, directories, links};
use super::mark::{MARKER, Mark, NEW_MARK};
use super::mounts::{Mounts, not_mounted};
use super::salvage::COPY_MARK;
use super::spaces::Wishes;
use super::tree::Tree;
use super::whose::{cluster_proof, links_are_its_own, recorded_directory};
use crate::facts::Facts;
use crate::{AppError, ClusterContext};
use ground::Ground;

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
    let productions: Vec<PathBuf> =
        engine.data_directory().into_iter().chain(known.map(PathBuf::from)).collect();
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
        productions: &productions,
        own,
        empty: proven == Proven::Empty,
        asked: request.delta || proven == Proven::Marked,
        whole: proven == Proven::Own,
        looks: request.dry_run,
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
    told.extend(ground.elsewhere().filter(|_| replaces && !request.confined));
    let left = ground.left(&spaces, part.as_deref());
    let in_place = own && replaces;
    let keeps = in_place && proven != Proven::Empty && mark.keeps_in(&root) && !root.join(COPY_MARK).exists();
    let files = if keeps { engine.configuration(&root, &record.facts) } else { Vec::new() };
    let kept = if in_place { Kept::of(engine, &root, record, files) } else { Kept::default() };
    let tree = Tree::new(&root, spaces, part, mark.keeping(keeps))?.with_log_elsewhere(own).with_kept(kept);
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
            Unproven::OtherCluster(_)
            | Unproven::NoDirectory
            | Unproven::OtherDirectory
            | Unproven::NotProduction
            | Unproven::Unmarked => "name an empty or new directory".to_owned(),
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

/// Whether nothing is in a directory but what a file system puts there.
pub(super) fn is_bare(place: &Path) -> Result<bool, AppError> {
    only(place, &|name, directory| name == NEW_MARK || (name == "lost+found" && directory))
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
