//! `adopt`: what the operator calls by the same name is another server now. pg_upgrade and initdb make another cluster of it;
//! a copy that was restored may become production.

use std::path::{Path, PathBuf};

use everpoint_core::{FailureClass, Life, SeenBy, life, shell};
use everpoint_engine::{LocalPlace, ServerIdentity};
use serde::Serialize;

use crate::production::{self, Place};
use crate::restore::salvage::COPY_MARK;
use crate::{AppError, ClusterContext, belongings};

/// What to adopt.
#[derive(Debug, Clone)]
pub struct AdoptRequest {
    /// Data directory of a copy that becomes production; `None`: the server at the configured address, whatever it is.
    pub directory: Option<PathBuf>,
    /// The daemon of the configuration runs: it takes a backup where one is needed.
    pub served: bool,
}

/// Who the server is now.
#[derive(Debug, Clone, Serialize)]
pub struct AdoptReport {
    /// Number of its identity.
    pub identity: u32,
    /// Its system identifier.
    pub system_identifier: String,
    /// Its version in words; empty if it does not run.
    pub server_version: String,
    /// The identity is new; else the server was known already.
    pub adopted: bool,
    /// Timeline that production is on.
    pub timeline: u32,
    /// The server answers at the configured address, so that a backup of it can be taken.
    pub running: bool,
    /// What remains to be done, in words.
    pub warnings: Vec<String>,
    /// What comes next, where nothing of it was done here.
    #[serde(skip)]
    pub next: Option<String>,
}

/// Adopts the server, or the copy.
///
/// # Errors
/// `Usage` if the directory is no copy of this cluster, or the configured address leads to another server: nothing was changed
/// then. If the server can't be asked, or the repository can't be written.
pub fn run(context: &ClusterContext, request: &AdoptRequest) -> Result<AdoptReport, AppError> {
    match &request.directory {
        Some(directory) => copy(context, request, directory),
        None => server(context, request),
    }
}

/// Gives the server the next identity, unless it is known.
fn server(context: &ClusterContext, request: &AdoptRequest) -> Result<AdoptReport, AppError> {
    let server = context.engine.identify()?;
    if production::is_copy(context, Some(&Place::of(&server, 0)))? {
        let message = format!(
            "it is a copy that everpoint restored ({COPY_MARK}, in its directory or its settings, says so)"
        );
        return Err(refused(context, &message).hint(format!(
            "if the copy is production now, name its directory: everpoint adopt {} DIRECTORY",
            context.name
        )));
    }
    let known = context.cluster.identities()?;
    let (identity, record) =
        context.cluster.identity_for(server.system, server.version, server.segment_size, true)?;
    production::note(context, &Place::of(&server, identity), server.segment_size, SeenBy::Server)?;
    Ok(AdoptReport {
        identity,
        system_identifier: record.system_identifier,
        server_version: server.version_text,
        adopted: known.iter().all(|(number, _)| *number != identity),
        timeline: server.timeline,
        running: true,
        warnings: Vec::new(),
        next: Some(backup_told(context, request)),
    })
}

/// A copy becomes production: its branch is noted, and the mark goes.
fn copy(context: &ClusterContext, request: &AdoptRequest, directory: &Path) -> Result<AdoptReport, AppError> {
    let local = context.engine.local_place(directory)?;
    refuse_others(context, directory)?;
    belongings::refuse_neighbours(std::iter::once(directory), context).map_err(|(_, message)| {
        refused(context, &message).hint("name the directory of a copy of this cluster")
    })?;
    let known = context.cluster.identities()?;
    let same = known.iter().rev().find(|(_, known)| known.system_identifier == local.system.to_string());
    let Some((identity, record)) = same else {
        let message =
            format!("{} belongs to another cluster: system identifier {}", directory.display(), local.system);
        return Err(refused(context, &message).hint("name the directory of a copy of this cluster"));
    };
    let running = match context.engine.runs_in(directory) {
        Some(false) => return Err(elsewhere(context, directory)),
        Some(true) => Some(context.engine.identify()?),
        None => None,
    };
    let misnamed = misnamed(context, directory);
    if running.is_none() {
        refuse_unseen(context, directory, local.system)?;
        if let Some((message, hint)) = &misnamed {
            return Err(refused(context, message).hint(format!("{hint}, then run this again")));
        }
    }
    if running.as_ref().map_or(local.in_recovery, |server| server.in_recovery) {
        let message = format!("{} still recovers", directory.display());
        return Err(refused(context, &message).hint("start it, and wait until it accepts writes"));
    }
    let history = local.history.as_deref().ok_or_else(|| {
        let timeline = local.timeline;
        let message = format!("pg_wal/{timeline:08X}.history is not in {}", directory.display());
        refused(context, &message).hint("put that file back from an archive")
    })?;
    let place = place(&local, history, running.as_ref(), *identity);
    production::note(context, &place, record.segment_size, SeenBy::Server)?;
    let mut warnings: Vec<String> =
        misnamed.into_iter().map(|(message, hint)| format!("{message}: {hint}")).collect();
    warnings.extend(unmark(context, directory)?);
    if running.is_none() {
        warnings.push(format!(
            "no server answers at the configured address: start this one there; {}",
            backup_told(context, request)
        ));
    }
    Ok(AdoptReport {
        identity: *identity,
        system_identifier: record.system_identifier.clone(),
        server_version: running.as_ref().map(|server| server.version_text.clone()).unwrap_or_default(),
        adopted: false,
        timeline: place.timeline,
        running: running.is_some(),
        warnings,
        next: None,
    })
}

/// Nothing says any more that the directory is a copy. Returns what the server goes on to say.
fn unmark(context: &ClusterContext, directory: &Path) -> Result<Option<String>, AppError> {
    let told = context.engine.forget_copy(directory)?;
    // Last: until then it is a copy, and this can be done again.
    let mark = directory.join(COPY_MARK);
    match std::fs::remove_file(&mark) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(AppError::io("remove", &mark, error));
        }
        _ => {}
    }
    Ok((!told).then(|| {
        format!(
            "its server shows the setting {COPY_MARK} until it reads its configuration again: SELECT pg_reload_conf()"
        )
    }))
}

fn place<'a>(
    local: &LocalPlace,
    history: &'a [u8],
    running: Option<&'a ServerIdentity>,
    identity: u32,
) -> Place<'a> {
    let from_files = Place { identity, timeline: local.timeline, history, position: local.position };
    running.map_or(from_files, |server| Place::of(server, identity))
}

/// The mark says of which cluster it is a copy.
fn refuse_others(context: &ClusterContext, directory: &Path) -> Result<(), AppError> {
    let mark = directory.join(COPY_MARK);
    let text = match std::fs::read_to_string(&mark) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|error| AppError::io("read", &mark, error))?,
    };
    if text.starts_with(&format!("A copy of {},", context.name)) {
        return Ok(());
    }
    let message = format!("{} says that it is a copy of something else", mark.display());
    Err(refused(context, &message).hint(format!(
        "name the directory of a copy of this cluster. One that has got a name of its own needs no adoption, but no mark either: \
         rm {}, and take the line everpoint.copy out of its postgresql.auto.conf",
        shell::path(&mark)
    )))
}

/// The configuration names another directory: restores in place would go on to take that for production's, and backups would
/// not read the files of this one. Returns what is wrong, and the line that mends it.
fn misnamed(context: &ClusterContext, directory: &Path) -> Option<(String, String)> {
    let configured = context.engine.data_directory()?;
    if belongings::is_same(&configured, directory) {
        return None;
    }
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let (configured, directory) = (configured.display(), directory.display());
    Some((
        format!("the configuration says that the data directory is {configured}, not {directory}"),
        format!("write data_dir = \"{directory}\" into [cluster.{}]", context.name),
    ))
}

/// A backup has to come, and who takes it.
fn backup_told(context: &ClusterContext, request: &AdoptRequest) -> String {
    if request.served {
        return "the daemon takes a backup of it if one is needed".to_owned();
    }
    format!(
        "take a backup: everpoint backup {} (where everpoint serve runs, it does that by itself)",
        context.name
    )
}

/// Nobody answers at the configured address: then only a copy is known to be one, and one that runs does so elsewhere.
fn refuse_unseen(context: &ClusterContext, directory: &Path, system: u64) -> Result<(), AppError> {
    // To a role that may only replicate a server does not say in which directory it runs.
    if context.engine.identify().is_ok_and(|server| server.system == system) {
        return Ok(());
    }
    let shown = directory.display();
    if let Life::Alive(reason) = life(&context.engine.life_signs(directory)?) {
        let message =
            format!("a server runs on {shown} ({reason}), but none answers at the configured address");
        return Err(refused(context, &message)
            .hint("start it at that address, or have the configuration name the address at which it runs"));
    }
    let configured =
        context.engine.data_directory().is_some_and(|configured| belongings::is_same(&configured, directory));
    if configured || directory.join(COPY_MARK).exists() {
        return Ok(());
    }
    let message = format!(
        "nothing says that {shown} is a copy ({COPY_MARK} is missing), and nobody answers at the configured address"
    );
    Err(refused(context, &message).hint(
        "start the server at that address first, then run this again; or name the directory in data_dir",
    ))
}

fn elsewhere(context: &ClusterContext, directory: &Path) -> AppError {
    let message = format!("the server at the configured address does not run in {}", directory.display());
    refused(context, &message)
        .hint("start the copy at that address, or have the configuration name the address of the copy")
}

fn refused(context: &ClusterContext, message: &str) -> AppError {
    AppError::new("adopt.refused", FailureClass::Usage, "adopt for", &context.name, message)
}
