//! Every measure, once: name, kind, labels, help. The documentation and the shipped rules are checked against it.

/// How a measure behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows, as long as the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Sum and number of what was observed.
    Summary,
}

impl Kind {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
        }
    }
}

macro_rules! measures {
    ($($variant:ident = $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)*) => {
        /// What is measured.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Measure { $($variant,)* }

        impl Measure {
            /// All of them.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            pub(crate) const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }

            pub(crate) const fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($label),*],)* }
            }

            pub(crate) const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

measures! {
    BuildInfo = "everpoint_build_info", Gauge, ["version"], "Version that runs; always 1";
    StartTime = "everpoint_start_time_seconds", Gauge, [], "When the process began, in seconds since 1970";
    LookTime = "everpoint_last_look_timestamp_seconds", Gauge, [], "When clusters and repositories were looked at last, in seconds since 1970";
    ServerUp = "everpoint_server_up", Gauge, ["cluster"], "1 if the server answers";
    CaptureRunning = "everpoint_capture_running", Gauge, ["cluster"], "1 if something receives the log now";
    LagSeconds = "everpoint_archive_lag_seconds", Gauge, ["cluster"], "At most so many seconds of changes would be lost with the server now";
    LagBytes = "everpoint_archive_lag_bytes", Gauge, ["cluster"], "Bytes of log that only the server has";
    Gaps = "everpoint_gaps", Gauge, ["cluster"], "Gaps in the stored log";
    WindowStart = "everpoint_recovery_window_start_timestamp_seconds", Gauge, ["cluster"], "First moment of the newest recovery window, in seconds since 1970";
    WindowEnd = "everpoint_recovery_window_end_timestamp_seconds", Gauge, ["cluster"], "Last moment of the newest recovery window, in seconds since 1970";
    BackupsKept = "everpoint_backups_kept", Gauge, ["cluster"], "Good backups in the repository";
    BackupLastSuccess = "everpoint_backup_last_success_timestamp_seconds", Gauge, ["cluster"], "When the newest good backup ended, in seconds since 1970";
    BackupDuration = "everpoint_backup_last_duration_seconds", Gauge, ["cluster"], "How long the newest good backup took";
    BackupSize = "everpoint_backup_last_size_bytes", Gauge, ["cluster"], "Size of the image of the newest good backup";
    BackupStored = "everpoint_backup_last_stored_bytes", Gauge, ["cluster"], "Bytes that the newest good backup added to the repository";
    BackupFailures = "everpoint_backup_failures_in_a_row", Gauge, ["cluster"], "Failed backups since the last good one";
    ProofAge = "everpoint_proof_age_seconds", Gauge, ["cluster"], "Seconds since a restore was last proven; absent until then";
    RepositoryUsed = "everpoint_repository_used_bytes", Gauge, ["repository"], "Bytes of all objects in the repository";
    RepositoryFree = "everpoint_repository_free_bytes", Gauge, ["repository"], "Free bytes where the repository is";
    RepositorySize = "everpoint_repository_size_bytes", Gauge, ["repository"], "Size of the filesystem where the repository is";
    OffsiteCallsLeft = "everpoint_offsite_calls_left", Gauge, ["provider"], "Calls that the budget allows now";
    OffsiteFailed = "everpoint_offsite_failed_calls", Gauge, ["provider"], "Calls since the last package that arrived which did not";
    OffsiteLastArrived = "everpoint_offsite_last_arrived_timestamp_seconds", Gauge, ["provider"], "When the last package arrived, in seconds since 1970";
    OffsiteLastSize = "everpoint_offsite_last_size_bytes", Gauge, ["provider"], "Size of the last package that arrived";
    OffsiteUploadSeconds = "everpoint_offsite_last_upload_seconds", Gauge, ["provider"], "How long the upload of the last package took that arrived";
    Jobs = "everpoint_jobs_total", Counter, ["kind", "cluster", "result"], "Jobs that ended, by result";
    JobSeconds = "everpoint_job_duration_seconds", Summary, ["kind", "cluster"], "How long jobs took";
    JobsRunning = "everpoint_jobs_running", Gauge, ["kind"], "Jobs that run now";
    JobLastSuccess = "everpoint_job_last_success_timestamp_seconds", Gauge, ["kind", "cluster"], "When a job of this kind last went well, in seconds since 1970";
    AlertsFiring = "everpoint_alerts_firing", Gauge, ["kind", "subject", "severity"], "1 for each condition that holds now";
    AlertMessages = "everpoint_alert_messages_total", Counter, ["sink", "result"], "Messages about alerts, by sink and result";
    Requests = "everpoint_api_requests_total", Counter, ["endpoint", "status"], "Requests to the HTTP API";
}
