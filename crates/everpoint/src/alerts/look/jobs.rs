//! Jobs: what ended since the last look, what fails.

use std::collections::BTreeMap;

use everpoint_app::status::StatusReport;
use everpoint_core::alert::AlertKind;

use super::{Look, seconds_of};
use crate::api::{Job, JobFilter};
use crate::metrics::Measure;

/// Jobs that are looked at.
const LATEST: u32 = 200;
/// Kinds that have alerts of their own, and one whose end is known to who asked for it.
const TOLD_ELSEWHERE: [&str; 3] = ["backup", "package", "restore"];

/// Jobs that were counted already; `None`: none was looked at yet.
#[derive(Debug, Default)]
pub(super) struct Seen {
    counted: Option<Vec<i64>>,
}

fn ended(job: &Job) -> bool {
    job.ended_at.is_some()
}

fn why(job: &Job) -> String {
    let message =
        job.error.as_ref().and_then(|error| error.pointer("/error/message")?.as_str().map(str::to_owned));
    message.unwrap_or_else(|| "it does not say why".to_owned())
}

/// Of what it was: a cluster or a provider.
fn of(job: &Job) -> &str {
    job.cluster.as_deref().or(job.provider.as_deref()).unwrap_or_default()
}

impl Look {
    pub(super) fn latest(&self, kind: Option<&str>, cluster: Option<&str>) -> Vec<Job> {
        let filter = JobFilter {
            kind: kind.map(str::to_owned),
            cluster: cluster.map(str::to_owned),
            limit: LATEST,
            ..JobFilter::default()
        };
        self.daemon.jobs(&filter).unwrap_or_else(|error| {
            tracing::warn!("alerts: the history of jobs can't be read: {error}");
            Vec::new()
        })
    }

    /// Backups that failed since the last good one, however that was taken; and why the last of them failed.
    pub(super) fn failures(&self, cluster: &str, report: &StatusReport) -> (u32, Option<String>) {
        let good = report.last_backup.as_ref().and_then(|backup| seconds_of(backup.stopped_at.as_deref()?));
        let jobs = self.latest(Some("backup"), Some(cluster));
        let failed: Vec<&Job> = jobs
            .iter()
            .filter(|job| ended(job))
            .take_while(|job| job.state != "ok")
            .filter(|job| job.state == "failed")
            .filter(|job| good.is_none_or(|good| seconds_of(&job.started_at).is_some_and(|at| at > good)))
            .collect();
        (u32::try_from(failed.len()).unwrap_or(u32::MAX), failed.first().map(|job| why(job)))
    }

    pub(super) fn look_at_jobs(&mut self, names: &[String]) {
        let jobs = self.latest(None, None);
        self.metrics.clear(Measure::JobsRunning);
        let mut running: BTreeMap<&str, f64> = BTreeMap::new();
        for job in jobs.iter().filter(|job| job.state == "running") {
            *running.entry(&job.kind).or_default() += 1.0;
        }
        running
            .into_iter()
            .for_each(|(kind, number)| self.metrics.set(Measure::JobsRunning, &[kind], number));
        let newly: Vec<i64> = jobs.iter().filter(|job| ended(job)).map(|job| job.id).collect();
        // What ended before this process began was counted by the one before.
        let before = self.jobs.counted.replace(newly.clone()).unwrap_or(newly);
        for job in jobs.iter().filter(|job| ended(job) && !before.contains(&job.id)) {
            self.count(job);
        }
        self.judge(&jobs, names);
    }

    fn count(&self, job: &Job) {
        let cluster = of(job);
        self.metrics.count(Measure::Jobs, &[&job.kind, cluster, &job.state]);
        let end = job.ended_at.as_deref().and_then(seconds_of);
        if let (Some(begun), Some(end)) = (seconds_of(&job.started_at), end) {
            self.metrics.observe(Measure::JobSeconds, &[&job.kind, cluster], (end - begun).max(0.0));
        }
    }

    /// The last job of each kind tells how that kind stands.
    fn judge(&self, jobs: &[Job], names: &[String]) {
        let mut last: BTreeMap<(&str, &str), &Job> = BTreeMap::new();
        for job in jobs.iter().rev().filter(|job| ended(job)) {
            let cluster = of(job);
            last.insert((&job.kind, cluster), job);
            if let (true, Some(end)) = (job.state == "ok", job.ended_at.as_deref().and_then(seconds_of)) {
                self.metrics.set(Measure::JobLastSuccess, &[&job.kind, cluster], end);
            }
        }
        for ((kind, cluster), job) in last {
            // Of a cluster that is not configured any more nobody will ever run another one.
            if TOLD_ELSEWHERE.contains(&kind) || !names.iter().any(|name| name == cluster) {
                continue;
            }
            let subject = if cluster.is_empty() { kind.to_owned() } else { format!("{kind} of {cluster}") };
            match job.state.as_str() {
                "failed" => self.wrong(AlertKind::JobFailed, &subject, why(job)),
                "ok" => self.right(AlertKind::JobFailed, &subject),
                _ => {}
            }
        }
    }
}
