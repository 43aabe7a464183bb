//! One cluster: server, log, backups.

use everpoint_app::facts::{self, Facts};
use everpoint_app::status::{self, StatusReport};
use everpoint_app::{AppError, belongings, list};
use everpoint_core::alert::{self, AlertKey, AlertKind, CaptureHealth, ClusterHealth, Observation};
use everpoint_core::{BackupStatus, Present, StoredBy};

use super::{Look, seconds_of};
use crate::metrics::{Measure, Metrics};
use crate::render::number::{seconds, size};
use crate::session::Opened;

impl Look {
    pub(super) fn cluster(&mut self, opened: &Opened) -> Result<(), AppError> {
        let context = &opened.context;
        let name = context.name.as_str();
        let facts = facts::load(context)?;
        let report = status::of(context, &facts, &opened.slot);
        let good = facts.listings.iter().filter(|listing| facts::status(listing) == BackupStatus::Ok).count();
        let (failures, last_failure) = self.failures(name, &report);
        measure(&self.metrics, &report, good, failures);
        let health = ClusterHealth {
            settling: self.is_settling(),
            server_error: report.server_error.clone(),
            capture: report.capture.as_ref().map(|capture| CaptureHealth {
                nobody: capture.stored_by == StoredBy::Nobody,
                lag_bytes: capture.lag_bytes,
                lag_seconds: capture.lag_seconds,
            }),
            capture_error: self.daemon.capture_error(name),
            failures,
            last_failure,
            backup_age_seconds: report.last_backup_age_seconds,
            gap: self.lost(name, &facts),
            slot_given_up: self.daemon.slot_given_up(name),
            orphaned_slot: report.orphans.first().cloned(),
            incomplete: report.lacks(),
            two_servers: report.two_servers.clone(),
            misplaced: belongings::of(context).first().map(belongings::Misplaced::told),
        };
        self.outbox.tell(alert::cluster(name, &health, &self.outbox.config().thresholds));
        self.tell_new_backup(name, &report);
        Ok(())
    }

    /// Why no backup leads to the present, if there are any. Seen twice, one is asked for: a backup, or a failover, may just
    /// be about to be stored.
    fn lost(&mut self, name: &str, facts: &Facts) -> Option<String> {
        let Present::Lost(why) = facts.present() else {
            self.lost.remove(name);
            return None;
        };
        if !self.lost.insert(name.to_owned()) {
            self.daemon.needs_backup(name, &format!("the present can't be brought back: {why}"));
        }
        facts.has_usable_backup().then_some(why)
    }

    /// A good backup that was not there at the last look.
    fn tell_new_backup(&mut self, name: &str, report: &StatusReport) {
        let newest = report.last_backup.as_ref();
        let label = newest.map(|backup| backup.label.clone());
        let before = self.newest.insert(name.to_owned(), label.clone());
        if let (Some(before), Some(backup)) = (before, newest)
            && before != label
        {
            let message = told(backup);
            let key = AlertKey::new(AlertKind::BackupDone, name);
            self.outbox.tell([Observation::Happened(key, message)]);
        }
    }
}

fn told(backup: &list::BackupLine) -> String {
    let took = seconds(backup.duration_seconds.unwrap_or_default());
    format!(
        "{} backup {}: {}, {} stored, in {took}",
        backup.kind,
        backup.label,
        size(backup.size_bytes),
        size(backup.stored_bytes)
    )
}

fn measure(metrics: &Metrics, report: &StatusReport, good: usize, failures: u32) {
    let labels = [report.name.as_str()];
    let set = |measure, value: Option<f64>| metrics.set_known(measure, &labels, value);
    let yes = |is: bool| Some(f64::from(u8::from(is)));
    let capture = report.capture.as_ref();
    set(Measure::ServerUp, yes(report.server.is_some()));
    set(Measure::CaptureRunning, yes(capture.is_some_and(|capture| capture.running)));
    set(Measure::LagSeconds, capture.and_then(|capture| capture.lag_seconds));
    set(Measure::LagBytes, capture.and_then(|capture| capture.lag_bytes).map(|bytes| bytes as f64));
    set(Measure::Gaps, Some(report.gaps.len() as f64));
    let window = report.windows.last();
    set(Measure::WindowStart, window.and_then(|window| seconds_of(&window.from)));
    set(Measure::WindowEnd, window.and_then(|window| seconds_of(&window.to)));
    let backup = report.last_backup.as_ref();
    set(Measure::BackupsKept, Some(good as f64));
    set(Measure::BackupLastSuccess, backup.and_then(|backup| seconds_of(backup.stopped_at.as_deref()?)));
    set(Measure::BackupDuration, backup.and_then(|backup| backup.duration_seconds));
    set(Measure::BackupSize, backup.map(|backup| backup.size_bytes as f64));
    set(Measure::BackupStored, backup.map(|backup| backup.stored_bytes as f64));
    set(Measure::BackupFailures, Some(f64::from(failures)));
    let proof = backup.and_then(|backup| seconds_of(backup.proof.at.as_deref()?));
    set(Measure::ProofAge, proof.map(|at| super::seconds_now() - at));
}
