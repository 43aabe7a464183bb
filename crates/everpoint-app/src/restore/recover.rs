//! From a written image to a server that recovers to the target.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use everpoint_engine::{RecoveryEvent, RecoveryReached, RecoverySettings, StartOptions, StopAt};

use super::tree::Tree;
use super::{Job, StartRequest, salvage, stage};
use crate::{AppError, Event};

impl Job<'_> {
    /// Says that the directory is a copy, so that nothing that its server writes passes for production's.
    pub(super) fn mark_copy(&self, tree: &Tree) -> Result<(), AppError> {
        let mark = tree.root().join(salvage::COPY_MARK);
        let text =
            format!("A copy of {}, restored by everpoint. Its own log is not captured.\n", self.context.name);
        std::fs::write(&mark, text)
            .and_then(|()| std::fs::set_permissions(&mark, Permissions::from_mode(0o600)))
            .map_err(|error| AppError::io("write", &mark, error))?;
        tree.own(&mark)
    }

    const fn stop_at(&self) -> StopAt {
        StopAt { record: self.plan.stop.record, inclusive: self.plan.stop.inclusive }
    }

    /// What the server has to know to recover.
    pub(super) fn settings(&self, tree: &Tree, libraries: Vec<String>) -> RecoverySettings {
        let branch = format!("{}/{}", self.plan.identity, self.plan.branch);
        let fetch_command = if self.request.stage_log {
            stage::FETCH_COMMAND.to_owned()
        } else {
            let program = &self.request.fetch_program;
            let name = &self.context.name;
            // The last piece that replay reads: nothing behind it is fetched ahead.
            let until = self
                .plan
                .pieces
                .last()
                .map_or(String::new(), |piece| format!(" --until {}", piece.span.to.0));
            format!("{program} archive-get {name} %f \"%p\" --branch {branch} --in-place-tablespaces{until}")
        };
        let created = self.plan.created_tablespaces.iter();
        let mut facts = self.record.facts.clone();
        facts.push(("server_version".to_owned(), self.record.server_version.to_string()));
        facts.extend(self.plan.limits.iter().cloned());
        RecoverySettings {
            directory: tree.root().to_owned(),
            stop: Some(self.stop_at()),
            timeline: self.plan.timeline,
            fetch_command,
            facts,
            links: new_links(tree),
            unfinished: created.filter(|space| !space.finished).map(|space| space.oid).collect(),
            libraries,
            kept: tree.kept().paths().to_vec(),
            keep_configuration: self.request.replace_production,
            copy_of: (!self.request.replace_production)
                .then(|| format!("{} of repository {}", self.context.name, self.context.repository.id())),
            promote: self.request.start.is_none(),
        }
    }

    /// Starts the server, and follows it until it is promoted.
    pub(super) fn start(
        &self,
        tree: &Tree,
        settings: &RecoverySettings,
        (start, programs): (&StartRequest, Option<&Path>),
    ) -> Result<RecoveryReached, AppError> {
        self.events.emit(Event::Step("starting the server and replaying the log".to_owned()));
        let options = StartOptions {
            directory: tree.root().to_owned(),
            port: start.port,
            programs: programs.map(Path::to_owned).or_else(|| start.programs.clone()),
            stop: Some(self.stop_at()),
            settings: self.context.engine.start_settings(settings),
            stop_flag: self.request.stop.clone(),
        };
        let target = Some(self.plan.stop.record);
        let mut tell = |event| match event {
            RecoveryEvent::Started { port } => {
                self.events.emit(Event::Info(format!("the server runs on port {port}")))
            }
            RecoveryEvent::Replaying { position, time } => {
                self.events.emit(Event::Replaying { position, target, time })
            }
            RecoveryEvent::Warning(text) => self.events.emit(Event::Warning(text)),
            RecoveryEvent::Promoting => {
                self.events.emit(Event::Info("the target is reached; promoting".to_owned()))
            }
        };
        self.context
            .engine
            .start(&options, &mut tell)
            .map_err(|error| salvage::with_fetch_error(error.into(), tree.root()))
    }
}

/// Places of tablespaces that the log creates after the image, unless they lie inside.
fn new_links(tree: &Tree) -> Vec<(u32, PathBuf)> {
    let created = tree.outside().filter(|(_, _, created)| *created);
    created.map(|(oid, place, _)| (oid, place.to_owned())).collect()
}
