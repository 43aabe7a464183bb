//! A cluster before anything of it is made: how its newest moment is reached, and from which image.

use everpoint_core::{FailureClass, RestorePlan, RestoreRequest, Target};
use everpoint_format::manifest::BackupRecord;
use everpoint_repo::code;

use super::base;
use super::build::BuildRequest;
use super::log::{LogRequest, MadeLog};
use super::member::{Made, Workshop};
use crate::facts::{self, Facts};
use crate::{AppError, ClusterContext, text};

/// A cluster before anything of it is made.
pub(super) struct Planned<'a> {
    pub(super) context: &'a ClusterContext,
    pub(super) facts: Facts,
    /// How its newest moment is reached, if it can be.
    pub(super) plan: Option<RestorePlan>,
}

impl<'a> Planned<'a> {
    pub(super) fn of(context: &'a ClusterContext, shortfalls: &mut Vec<String>) -> Result<Self, AppError> {
        let mut planned = Self { context, facts: facts::load(context)?, plan: None };
        planned.plan(Vec::new(), shortfalls)?;
        // What is known to be damaged was not even tried.
        let chosen = planned.plan.as_ref().map(|plan| plan.backup.as_str()).unwrap_or_default();
        for known in planned.facts.left_out(chosen) {
            let name = &context.name;
            shortfalls.push(format!("{name}: {known}; take a new one: everpoint backup {name} --full"));
        }
        Ok(planned)
    }

    /// Plans the way to the newest moment without these images; where nothing leads there, to the last one that can be
    /// reached: an image of yesterday is better than log that no image goes with.
    fn plan(&mut self, skip: Vec<String>, shortfalls: &mut Vec<String>) -> Result<(), AppError> {
        let to = |target| RestoreRequest { target, exclusive: false, timeline: None, skip: skip.clone() };
        let name = &self.context.name;
        let shortfall = match facts::plan(self.context, &self.facts, &to(Target::Latest))? {
            Ok(plan) => {
                self.plan = Some(plan);
                return Ok(());
            }
            Err(shortfall) => shortfall,
        };
        let reason = shortfall.reason;
        let before = shortfall.nearest_before.map(|before| to(Target::Position(before.position)));
        let before = before.map(|before| facts::plan(self.context, &self.facts, &before)).transpose()?;
        self.plan = before.and_then(Result::ok);
        shortfalls.push(match &self.plan {
            Some(plan) => format!(
                "{name}: the newest moment can't be restored: {reason}; base image {} goes in, for what lies before {}; take a \
                 backup: everpoint backup {name}",
                plan.backup,
                text::lsn(plan.reached.position)
            ),
            None => format!("{name}: no base image goes in: {reason}"),
        });
        Ok(())
    }

    /// Makes the newest image that can be read: an older one, or the log alone, is better than an empty day.
    pub(super) fn image(
        &mut self,
        request: &BuildRequest,
        workshop: &mut Workshop,
        shortfalls: &mut Vec<String>,
    ) -> Result<Option<(BackupRecord, Made)>, AppError> {
        let name = &self.context.name;
        let path = format!("clusters/{name}/base.tar.zst");
        let mut unreadable = Vec::new();
        while let Some(plan) = &self.plan {
            let record = facts::record(&self.facts, &plan.backup)?.clone();
            let made = workshop.compressed(&path, &mut |out| {
                base::write(&self.context.cluster, &record.label, &request.stop, out)
            });
            match made {
                Ok(made) => return Ok(Some((record, made))),
                Err(error) if error.class == FailureClass::Damaged || error.code == code::MISSING => {
                    shortfalls.push(format!(
                        "{name}: the base image {} is left out, as it is damaged: {error}; take a new one: \
                         everpoint backup {name} --full",
                        record.label
                    ));
                    unreadable.push(record.label);
                }
                Err(error) => return Err(error),
            }
            self.plan(unreadable.clone(), shortfalls)?;
        }
        Ok(None)
    }

    /// Ends the way where log turned out to be unreadable: no moment behind it is promised. Returns whether the image with
    /// this label still leads anywhere.
    pub(super) fn shorten(
        &mut self,
        label: &str,
        logs: &[MadeLog],
        shortfalls: &mut Vec<String>,
    ) -> Result<bool, AppError> {
        let Some(plan) = &self.plan else { return Ok(false) };
        let mut on_the_way = false;
        for log in logs.iter().filter(|log| log.log.identity == plan.identity) {
            for hole in &log.holes {
                on_the_way |= plan
                    .pieces
                    .iter()
                    .any(|piece| piece.branch.to_string() == log.log.branch && piece.span.meets(*hole));
                let branches = self.facts.log.branches.iter_mut();
                for branch in branches.filter(|branch| log.is_of(branch)) {
                    branch.end_at(hole.from);
                }
            }
        }
        if on_the_way {
            let others = self.facts.backups.iter().filter(|backup| backup.label != label);
            self.plan(others.map(|backup| backup.label.clone()).collect(), shortfalls)?;
        }
        Ok(self.plan.is_some())
    }

    pub(super) fn log<'b>(&'b self, request: &'b BuildRequest) -> LogRequest<'b> {
        LogRequest {
            context: self.context,
            facts: &self.facts,
            plan: self.plan.as_ref(),
            arrived: &request.arrived,
            stop: &request.stop,
        }
    }
}
