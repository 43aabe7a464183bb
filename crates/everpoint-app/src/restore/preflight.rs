//! All that can refuse a restore, before its first byte: the same for a dry run, for a restore that is asked for over HTTP,
//! and for the restore itself.

use std::path::{Path, PathBuf};

use everpoint_core::{FailureClass, RestorePlan, shell};
use everpoint_engine::Unstartable;
use everpoint_format::manifest::BackupRecord;

use super::image::CONTROL;
use super::known::Known;
use super::machine::Machine;
use super::mark::MARKER;
use super::prove::{self, Proof};
use super::survey::{Survey, Walker};
use super::{RestoreRequest, tree::Tree};
use super::{kept, live};
use crate::belongings::Places;
use crate::{AppError, ClusterContext, belongings};

/// A restore that may begin.
pub struct Prepared {
    /// The proven places.
    pub proof: Proof,
    /// The paths of the image, if something of an earlier state is there.
    pub known: Known,
    /// What lies there.
    pub survey: Survey,
    /// Libraries without which the log can't be replayed.
    pub libraries: Vec<String>,
    /// The programs with which the server is started: what the directory says of them goes with the first byte.
    pub programs: Option<PathBuf>,
    /// In a dry run: what refuses it as things stand now, and will not when it has passed.
    pub refused: Option<AppError>,
    /// What else the operator should know.
    pub(super) told: Vec<String>,
}

impl RestoreRequest {
    /// All that can refuse, for a dry run, for [`check`] and for the restore itself. `None`: only a plan is wanted, of no
    /// directory.
    pub(super) fn preflight(
        &self,
        context: &ClusterContext,
        plan: &RestorePlan,
        record: &BackupRecord,
    ) -> Result<Option<Prepared>, AppError> {
        if self.directory.as_os_str().is_empty() {
            return Ok(None);
        }
        run(context, self, plan, record).map(Some)
    }
}

/// Checks everything; writes nothing. A dry run goes on where a server runs: all of the plan is shown, and then what refuses it.
///
/// # Errors
/// `Usage` if a place is not proven, a server runs on it, or something is in the way.
pub fn run(
    context: &ClusterContext,
    request: &RestoreRequest,
    plan: &RestorePlan,
    record: &BackupRecord,
) -> Result<Prepared, AppError> {
    let root = std::path::absolute(&request.directory)
        .map_err(|error| AppError::io("find", &request.directory, error))?;
    let (word, runs) = match live::refuse(context.engine.as_ref(), &root, request.server_is_stopped) {
        Err(runs) if request.dry_run => (None, Some(runs)),
        looked => (looked?, None),
    };
    match (looked_at(context, request, plan, record, (&root, word)), runs) {
        // What moves while one looks at it may be in the way, too.
        (Err(_), Some(runs)) => Err(runs),
        (prepared, None) => prepared,
        (Ok(mut prepared), Some(runs)) => {
            prepared.told.extend(prepared.proof.own.then(|| unsaved(&root)));
            Ok(Prepared { refused: Some(runs), ..prepared })
        }
    }
}

fn unsaved(root: &Path) -> String {
    let log = root.join("pg_wal");
    format!(
        "what only {} holds once its server has stopped is saved first when this is done: the plan does not know it yet",
        log.display()
    )
}

fn looked_at(
    context: &ClusterContext,
    request: &RestoreRequest,
    plan: &RestorePlan,
    record: &BackupRecord,
    (root, word): (&Path, Option<String>),
) -> Result<Prepared, AppError> {
    refuse_ours(context, root)?;
    let mapped: Vec<PathBuf> = request.map.iter().map(|(_, new)| PathBuf::from(new)).collect();
    let mut proof = prove::run(context, request, plan, record)?;
    let spaces: Vec<PathBuf> = proof.tree.outside().map(|(_, place, _)| place.to_owned()).collect();
    let placing = |path: &str| proof.tree.place(path);
    let machine = Machine {
        context,
        request,
        root: proof.tree.root(),
        spaces: &spaces,
        mapped: &mapped,
        placing: &placing,
        delta: proof.occupied,
    };
    let mut warnings: Vec<String> = word.into_iter().collect();
    warnings.extend(proof.told.iter().cloned());
    warnings.extend(kept::told(&proof.tree));
    warnings.extend(becomes_a_copy(context, request, root));
    warnings.extend(machine.places()?);
    let start = request.start.as_ref();
    let marked = proof.tree.marked_programs();
    let programs = start.map(|start| {
        let named = start.programs.as_deref();
        context.engine.programs(named, (proof.tree.root(), marked.as_deref()), record.server_version)
    });
    let programs = programs.transpose()?.flatten();
    let (known, survey) = if proof.occupied {
        let known = Known::read(&context.cluster, &plan.backup, &proof.tree, &request.stop)?;
        let is_log_name = |name: &str| context.engine.is_log_name(name);
        let survey = Walker::new(&proof.tree, &known, &is_log_name, &request.stop).look()?;
        (known, survey)
    } else {
        (Known::default(), Survey::default())
    };
    warnings.extend(kept::told_of_files(&proof.tree, &known));
    // Log that is saved first may lie on the same disk afterwards: then this is asked again before anything is removed.
    warnings.extend(machine.room(plan, &survey.freed)?);
    let libraries = request.libraries(context, plan, record)?;
    proof.tree = proof.tree.with_programs(programs.as_deref().or(marked.as_deref()));
    Ok(Prepared { proof, known, survey, libraries, programs, refused: None, told: warnings })
}

/// What refuses a data directory whatever the plan is; returns what to warn of.
///
/// # Errors
/// `Usage`: a server that runs is told before anything else that speaks against the place.
pub(super) fn ground(
    context: &ClusterContext,
    request: &RestoreRequest,
    root: &Path,
) -> Result<Option<String>, AppError> {
    let word = live::refuse(context.engine.as_ref(), root, request.server_is_stopped)?;
    refuse_ours(context, root).map(|()| word)
}

fn refuse_ours(context: &ClusterContext, root: &Path) -> Result<(), AppError> {
    let servers = context.engine.directories();
    belongings::refuse_places(&Places { root, spaces: &[], mapped: &[] }, context, &servers)
}

/// In production's own directory a copy takes production's place, which looks like it and is not.
fn becomes_a_copy(context: &ClusterContext, request: &RestoreRequest, root: &Path) -> Option<String> {
    let production = context.engine.data_directory()?;
    let own = belongings::is_same(root, &production);
    (own && !request.replace_production).then(|| {
        format!(
            "{} is the data directory of {} in the configuration, and without --replace-production only a copy comes into \
             it: on another port, without archiving, and what is written there is never backed up; add \
             --replace-production if it is to be production again",
            root.display(),
            context.name
        )
    })
}

impl Prepared {
    /// With what no server would start. It refuses a start; else it is told, unless the restore itself ends with it.
    pub(super) fn unstartable(
        &mut self,
        request: &RestoreRequest,
        found: Unstartable,
    ) -> Result<(), AppError> {
        let Unstartable { reason, remedy, now } = found;
        let root = self.proof.tree.root().display().to_string();
        if request.start.is_none() {
            let told = format!("as it is, no server will start on {root}: {reason}; {remedy}");
            self.told.extend((now || request.dry_run).then_some(told));
            return Ok(());
        }
        let hint = if now {
            format!("{remedy}; then run the same command again")
        } else {
            format!("leave out --start; {remedy}")
        };
        let (code, operation) = ("pg.configuration", "start a server on");
        let error = AppError::new(code, FailureClass::Usage, operation, root, reason).hint(hint);
        if !request.dry_run {
            return Err(error);
        }
        self.refused.get_or_insert(error);
        Ok(())
    }

    /// What the operator should know of the places, in words.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.told.clone();
        for path in &self.survey.left {
            warnings.push(format!("{} is left alone: it is not of this data directory", path.display()));
        }
        let part = self.proof.tree.part().unwrap_or_default();
        for place in self.proof.left.iter().filter(|place| place.join(part).exists()) {
            let (path, mark) = (place.join(part), super::mark::space_name(part));
            // The mark is written when the restore begins; without its tablespace it would speak for another one.
            warnings.push(format!(
                "{0} holds a tablespace to which this directory leads no more once it is restored; it is left there. When the \
                 restore has ended and is right, remove it with: rm -r {1} {2}",
                path.display(),
                shell::path(&path),
                shell::path(&place.join(mark))
            ));
        }
        warnings
    }

    /// The directories that are written to.
    #[must_use]
    pub fn writes(&self) -> Vec<String> {
        let tree = &self.proof.tree;
        let part = tree.part().unwrap_or_default();
        let outside = tree.outside().filter(|(_, place, _)| !place.starts_with(tree.root()));
        std::iter::once(tree.root().display().to_string())
            .chain(outside.map(|(_, place, _)| place.join(part).display().to_string()))
            .collect()
    }
}

/// Adds to an error in what state the directory is.
pub(super) fn with_state(mut error: AppError, request: &RestoreRequest, tree: &Tree) -> AppError {
    if !is_marked(tree.root()) {
        return error;
    }
    error.message.push_str(&format!("; {} is unfinished and marked so", tree.root().display()));
    if !tree.root().join(CONTROL).exists() {
        error.message.push_str(", no server can start on it");
    }
    if !request.confined && error.class != FailureClass::Damaged {
        let again = "run the same command again: it goes on";
        error.hint = Some(match error.hint {
            Some(hint) if hint.contains("same command again") => hint,
            Some(hint) => format!("{hint}; {again}"),
            None => again.to_owned(),
        });
    }
    error
}

fn is_marked(root: &Path) -> bool {
    root.join(MARKER).exists()
}
