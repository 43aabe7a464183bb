//! What a copy has to load to replay its log.

use everpoint_core::RestorePlan;
use everpoint_format::manifest::BackupRecord;

use super::RestoreRequest;
use crate::{AppError, ClusterContext};

impl RestoreRequest {
    /// The libraries that a copy must load to replay the log; production's own configuration names its own.
    ///
    /// # Errors
    /// `Shortfall` if no server here could replay it.
    pub(super) fn libraries(
        &self,
        context: &ClusterContext,
        plan: &RestorePlan,
        record: &BackupRecord,
    ) -> Result<Vec<String>, AppError> {
        if self.replace_production {
            return Ok(Vec::new());
        }
        let programs = self.start.as_ref().and_then(|start| start.programs.as_deref());
        let engine = &context.engine;
        Ok(engine.replay_libraries(programs, record.server_version, &plan.extensions, &record.facts)?)
    }
}
