//! Which directories are looked at for log before a restore begins: the one that is written over, and production's own where
//! another one takes its place.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use everpoint_core::place::{ClusterProof, LogBeside, Proven, judge_beside};
use everpoint_engine::DirectoryProof;

use super::{run, save_all};
use crate::facts::Facts;
use crate::restore::image::RECOVERS;
use crate::restore::mark::same_place;
use crate::restore::preflight::{self, Prepared};
use crate::restore::whose::{cluster_proof, links_are_its_own, productions, recorded_directory};
use crate::restore::{Job, RestoreRequest, live, prove};
use crate::{AppError, ClusterContext, Event, Events};

/// [`run`] where nothing is planned yet, because what is stored does not reach the target: the directory is given up for
/// production's only if its files and its place say so. Nothing in it is touched, and nothing is saved where a restore into it
/// would be refused whatever the plan is.
///
/// # Errors
/// If a server runs on it, or it may not be written to; as [`run`].
pub fn early(
    context: &ClusterContext,
    request: &RestoreRequest,
    facts: &Facts,
    events: &dyn Events,
) -> Result<bool, AppError> {
    // Only a plan is wanted, of no directory.
    if request.directory.as_os_str().is_empty() {
        return Ok(false);
    }
    let root = std::path::absolute(&request.directory)
        .map_err(|error| AppError::io("find", &request.directory, error))?;
    let own = !request.confined
        && lived(request, &root)
        && is_productions(context, facts, &root, request.replace_production);
    if !own && beside(context, request, facts, &root).is_none() {
        return Ok(false);
    }
    preflight::ground(context, request, &root)?;
    prove::root(context, request, facts, &root)?;
    let saved = own && run(context, facts, &root, (request.dry_run, events))?;
    Ok(of_another(context, request, facts, events) || saved)
}

impl Job<'_> {
    /// Saves the log that only the directory holds, if it is production's, or production's own beside it; whether there was
    /// any.
    pub(in crate::restore) fn save_log(&self, prepared: &Prepared) -> Result<bool, AppError> {
        let saved = self.save_own_log(prepared)?;
        Ok(of_another(self.context, self.request, self.facts, self.events) || saved)
    }

    /// Of what is written over, whether that was asked for or an unfinished restore is taken up: a server may have lived in
    /// the directory since the mark was written.
    fn save_own_log(&self, prepared: &Prepared) -> Result<bool, AppError> {
        let root = prepared.proof.tree.root();
        let readable = matches!(self.context.engine.directory_proof(root), DirectoryProof::Cluster(_));
        let lived = prepared.proof.root != Proven::Empty && readable && lived(self.request, root);
        if !lived || !prepared.proof.own {
            return Ok(false);
        }
        run(self.context, self.facts, root, (self.request.dry_run, self.events))
    }
}

/// Whether a directory may hold log that a server has written there. Where only its mark gives leave to write over it, and it still
/// waits for its recovery to end, all that it has came out of the repository.
fn lived(request: &RestoreRequest, root: &Path) -> bool {
    request.delta || !root.join(RECOVERS).exists()
}

/// The same for production's own directory where another one is to take its place: nothing in it is touched, but what only it
/// holds would never be looked for again. Returns whether something was saved; log that can't be is told, and stays.
fn of_another(
    context: &ClusterContext,
    request: &RestoreRequest,
    facts: &Facts,
    events: &dyn Events,
) -> bool {
    let root = std::path::absolute(&request.directory).unwrap_or_default();
    let Some((theirs, found)) = beside(context, request, facts, &root) else {
        return false;
    };
    let keep = "keep that directory, all of it, until it is known to be in vain";
    if found == LogBeside::Unknown {
        events.emit(Event::Warning(format!(
            "{} was production's directory, and nothing in it says so any more (pg_control is missing or can't be read): log that \
             only it may hold is not restored; {keep}",
            theirs.display()
        )));
        return false;
    }
    // What a running server writes is captured, as long as it runs.
    let saved = live::refuse(context.engine.as_ref(), &theirs, request.server_is_stopped)
        .and_then(|_| save_all(context, facts, &theirs, (request.dry_run, events)));
    saved.unwrap_or_else(|error| {
        let text = format!("log that only {} may hold is not restored ({error}): {keep}", theirs.display());
        events.emit(Event::Warning(text));
        false
    })
}

/// Production's own directory where another one (`root`) is to take its place, and what becomes of its log; `None`: it has none.
fn beside(
    context: &ClusterContext,
    request: &RestoreRequest,
    facts: &Facts,
    root: &Path,
) -> Option<(PathBuf, LogBeside)> {
    let engine = context.engine.as_ref();
    let theirs = productions(engine, recorded_directory(&facts.listings));
    let theirs = theirs.filter(|theirs| request.replace_production && !same_place(root, theirs))?;
    let cluster = cluster_proof(engine, &theirs, &|system| is_known(facts, system));
    let found = judge_beside(cluster, has_log(&theirs));
    (found != LogBeside::None).then_some((theirs, found))
}

/// Whether something lies where a directory has its log, or that can't be looked at.
fn has_log(directory: &Path) -> bool {
    match fs::read_dir(directory.join("pg_wal")) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

/// Whether a directory is production's own, of this cluster, by its files and its place.
fn is_productions(context: &ClusterContext, facts: &Facts, directory: &Path, replaces: bool) -> bool {
    let engine = context.engine.as_ref();
    cluster_proof(engine, directory, &|system| is_known(facts, system)) == ClusterProof::Ours
        && links_are_its_own(engine, directory, recorded_directory(&facts.listings), replaces)
}

/// Whether a system is the one that is protected now.
fn is_known(facts: &Facts, system: u64) -> bool {
    facts.identity.as_ref().is_some_and(|(_, known)| known.system_identifier == system.to_string())
}
