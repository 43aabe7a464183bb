//! What can be wrong, or worth telling.

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Look at it today.
    Warning,
    /// Look at it now: what happens now may be lost.
    Critical,
}

impl Severity {
    /// A stable word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident = $word:literal, $severity:ident, $title:literal;)*) => {
        /// What an alert tells.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum AlertKind { $($(#[doc = $doc])* $name,)* }

        impl AlertKind {
            /// All of them.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$name),*];

            /// A stable word for it, as in the configuration and in messages.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// How bad it is.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// A few words for a subject line.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

kinds! {
    /// The newest backup failed.
    BackupFailed = "backup_failed", Warning, "backup failed";
    /// Several backups failed in a row.
    BackupFailing = "backup_failing", Critical, "backups keep failing";
    /// The newest good backup is old, or there is none.
    BackupOld = "backup_old", Warning, "no recent backup";
    /// The newest good backup lacks something of the server.
    BackupIncomplete = "backup_incomplete", Warning, "backup is less than whole";
    /// The server does not answer.
    ServerDown = "server_down", Critical, "server does not answer";
    /// The log is not being stored.
    ArchivingFailed = "archiving_failed", Critical, "log is not being stored";
    /// The log is stored, but late.
    ArchivingLag = "archiving_lag", Warning, "log is stored late";
    /// Another server stores log as this cluster's, or the address leads to an old primary.
    TwoServers = "two_servers", Critical, "two servers write as one cluster";
    /// Part of the log is missing, and no backup was taken since.
    Gap = "gap", Critical, "gap in the log";
    /// The replication slot was given up to keep the server alive.
    SlotGivenUp = "slot_given_up", Critical, "slot given up";
    /// A slot of a cluster that is not configured any more keeps its server from removing log.
    SlotOrphaned = "slot_orphaned", Warning, "slot that nobody uses";
    /// Little space is left in a repository.
    SpaceLow = "space_low", Warning, "little space left";
    /// A repository can't be reached or read.
    RepositoryFailed = "repository_failed", Critical, "repository can't be used";
    /// The configuration has changed and can't be used.
    ConfigurationFailed = "configuration_failed", Critical, "configuration can't be used";
    /// Everpoint's own files lie inside of the server's directories.
    Misplaced = "misplaced", Critical, "backups lie inside the database";
    /// A package was not delivered.
    UploadFailed = "upload_failed", Critical, "package was not delivered";
    /// A package went without something that should be in it.
    PackageShort = "package_short", Warning, "package is not complete";
    /// The day's call was not made when it was due.
    BudgetUnspent = "budget_unspent", Warning, "the day's call was not made";
    /// A call was refused: the budget is spent, or a clock is wrong.
    BudgetRefused = "budget_refused", Warning, "a call was refused";
    /// Another job failed: a bundle, a check, an expiry.
    JobFailed = "job_failed", Warning, "job failed";
    /// A backup was taken.
    BackupDone = "backup_done", Info, "backup taken";
    /// A package arrived.
    PackageDone = "package_done", Info, "package delivered";
}

impl AlertKind {
    /// The kind of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// It may be seen for a moment without being wrong: a key that is being replaced, a connection that is made anew. It is
    /// told when it is seen twice in a row.
    #[must_use]
    pub const fn may_pass(self) -> bool {
        matches!(
            self,
            Self::RepositoryFailed
                | Self::ServerDown
                | Self::ArchivingFailed
                | Self::SlotOrphaned
                | Self::TwoServers
        )
    }

    /// It tells a success: told only where that is wanted.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self.severity(), Severity::Info)
    }
}
