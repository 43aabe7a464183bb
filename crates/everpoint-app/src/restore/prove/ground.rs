//! Proves the place of a tablespace outside of the data directory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use everpoint_core::place::{MarkProof, Proven, SpaceFacts, There, Unproven, judge_space};
use everpoint_core::shell;
use everpoint_engine::Engine;

use super::{is_bare, only, there, usage};
use crate::AppError;
use crate::restore::links::{leads_to, links, part_aside};
use crate::restore::live;
use crate::restore::mark::{Mark, NEW_MARK, is_space_name, same_place, space_name};
use crate::restore::mounts::{Mounts, not_mounted};
use crate::restore::spaces::{By, Space};
use crate::restore::tree::owner_for;

/// What the proof of the places of tablespaces rests on.
pub(super) struct Ground<'a> {
    pub(super) engine: &'a dyn Engine,
    pub(super) root: &'a Path,
    pub(super) mark: &'a Mark,
    /// Where the links of the data directory lead, whose ever that is.
    pub(super) links: &'a BTreeMap<u32, PathBuf>,
    /// Production's data directory, as the configuration and the newest backup name it.
    pub(super) productions: &'a [PathBuf],
    /// They are production's own.
    pub(super) own: bool,
    /// Nothing is in the data directory.
    pub(super) empty: bool,
    /// What earlier restores put there may change.
    pub(super) asked: bool,
    /// It is a data directory that no restore has left unfinished.
    pub(super) whole: bool,
    /// It is only looked, also where the directory's own server runs, which is told by itself.
    pub(super) looks: bool,
    pub(super) mounts: Mounts,
}

impl Ground<'_> {
    /// Proves the place of a tablespace outside of the data directory.
    pub(super) fn judge(
        &self,
        oid: u32,
        space: &Space,
        place: &Path,
        part: &str,
    ) -> Result<Proven, AppError> {
        // By another number, too: what was dropped and made anew at the same place is still production's.
        let linked = self.own && self.links.values().any(|link| leads_to(link, place));
        let by_own_link = self.links.get(&oid).is_some_and(|link| leads_to(link, place));
        let other = self.other(place, part);
        let facts = SpaceFacts {
            linked,
            led: self.links.values().any(|link| leads_to(link, place)),
            others: other.is_some(),
            mark: self.mark.in_space(place, part, self.empty, by_own_link),
            ..space_facts(place, part)?
        };
        let proven = judge_space(&facts, self.asked).map_err(|why| {
            let error = space_error(oid, space, place, why);
            match why {
                Unproven::OtherDirectory | Unproven::NotProduction => {
                    self.whose(error, oid, other.as_deref())
                }
                _ => self.with_left(error, (space, place, part), &facts, why),
            }
        })?;
        let used = live::refuse_space(self.engine, place, part);
        used.or_else(|used| if self.is_its_servers(facts.led) { Ok(()) } else { Err(used) })?;
        if space.by == By::Map && proven == Proven::Empty {
            refuse_owner(oid, place, owner_for(self.root)?.map(|(uid, _)| uid.as_raw()))?;
        }
        Ok(proven)
    }

    /// Whether what uses a place is the server that runs on the directory itself.
    fn is_its_servers(&self, led: bool) -> bool {
        self.looks && led && live::refuse(self.engine, self.root, false).is_err()
    }

    /// Another data directory, which is there, that has the tablespace at a place: the one of which the mark in it speaks, or
    /// production's, a link of which leads there.
    fn other(&self, place: &Path, part: &str) -> Option<PathBuf> {
        let there = |directory: &PathBuf| directory.is_dir() && !same_place(directory, self.root);
        let leads = |directory: &&PathBuf| links(directory).values().any(|link| leads_to(link, place));
        let production = self.productions.iter().filter(|it| there(it)).find(leads).cloned();
        production.or_else(|| self.mark.named_in_space(place, part).filter(there))
    }

    /// What to tell of a directory that is to replace production, while production's own is another one that is there.
    pub(super) fn elsewhere(&self) -> Option<String> {
        let production = self.productions.iter().find(|it| it.is_dir() && !same_place(it, self.root));
        production.filter(|_| !self.own && !self.empty).map(|production| {
            format!(
                "{root} is not production's data directory as far as is known here, which is {}: its configuration comes from the \
                 backup, and its links are not followed. If it is production now (a standby was promoted), first set \
                 data_dir = \"{root}\" in [cluster.{}] of the configuration",
                production.display(),
                self.mark.cluster(),
                root = self.root.display()
            )
        })
    }

    /// Whose it is, and what to type where that is only not known yet: nothing there may be removed.
    fn whose(&self, mut error: AppError, oid: u32, other: Option<&Path>) -> AppError {
        if let Some(other) = other {
            error.message = format!("it holds a tablespace of another data directory, {}", other.display());
        }
        let known = self.productions.iter().find(|it| it.is_dir() && !same_place(it, self.root));
        let hint = known.filter(|_| !self.own).map_or_else(
            || format!("name an empty or new directory: --map {oid}=/new/place"),
            |known| {
                format!(
                    "production's data directory is {}, as far as is known here; if it is {root} now (a standby was promoted), \
                     say so first, in the configuration: data_dir = \"{root}\" in [cluster.{}], and postgres = its address; then \
                     its tablespaces stay where its own links lead, without --map. Else name an empty or new directory: \
                     --map {oid}=/new/place",
                    known.display(),
                    self.mark.cluster(),
                    root = self.root.display(),
                )
            },
        );
        error.hint(hint)
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
    pub(super) fn missing(
        &self,
        oid: u32,
        space: &Space,
        place: &Path,
        part: &str,
    ) -> Result<Option<String>, AppError> {
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
    pub(super) fn left(&self, spaces: &BTreeMap<u32, Space>, part: Option<&str>) -> Vec<PathBuf> {
        let wanted: Vec<&Path> = spaces.values().filter_map(|space| space.place.as_deref()).collect();
        let kept = |place: &Path| wanted.iter().any(|other| leads_to(other, place));
        let marked = |place: &Path| {
            part.is_some_and(|part| self.mark.in_space(place, part, self.empty, true) == MarkProof::Ours)
        };
        let outside = self.links.values().filter(|place| !place.starts_with(self.root) && place.is_dir());
        outside.filter(|place| !kept(place) && (self.own || marked(place))).cloned().collect()
    }
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
    let (linked, led, others, mark) = (false, false, false, MarkProof::None);
    Ok(SpaceFacts { there, part_empty, strangers, linked, led, others, mark })
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
