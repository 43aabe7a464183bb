//! `global/pg_control` of PostgreSQL 13 to 18.

use everpoint_core::{LogOffset, Micros};

use crate::fields::Fields;

/// Where it lies in a data directory.
pub const CONTROL_FILE: &str = "global/pg_control";

/// Bytes of the file; those after the checksum are zeros.
pub const CONTROL_FILE_BYTES: usize = 8192;

/// What a cluster was doing when the file was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// Starting.
    Starting,
    /// Shut down cleanly.
    ShutDown,
    /// Shut down cleanly while recovering.
    ShutDownInRecovery,
    /// Shutting down.
    ShuttingDown,
    /// Recovering from a crash.
    CrashRecovery,
    /// Recovering from an archive, or a standby.
    ArchiveRecovery,
    /// In production.
    Production,
}

impl ClusterState {
    const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Starting),
            1 => Some(Self::ShutDown),
            2 => Some(Self::ShutDownInRecovery),
            3 => Some(Self::ShuttingDown),
            4 => Some(Self::CrashRecovery),
            5 => Some(Self::ArchiveRecovery),
            6 => Some(Self::Production),
            _ => None,
        }
    }
}

/// The content of `pg_control`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// System identifier.
    pub system: u64,
    /// Version of the file's layout: 1300 (13 to 16), 1700, 1800.
    pub control_version: u32,
    /// Version of the system catalogs.
    pub catalog_version: u32,
    /// What the cluster was doing.
    pub state: ClusterState,
    /// When the file was written (whole seconds).
    pub written_at: Micros,
    /// Start of the last checkpoint's record.
    pub checkpoint: LogOffset,
    /// Where replay begins from it.
    pub redo: LogOffset,
    /// Timeline of the last checkpoint.
    pub timeline: u32,
    /// When the last checkpoint was made (whole seconds).
    pub checkpoint_at: Micros,
    /// Recovery has to come at least this far; 0 when not recovering.
    pub minimum_recovery: LogOffset,
    /// Timeline of `minimum_recovery`.
    pub minimum_recovery_timeline: u32,
    /// Start of the backup that is being recovered; 0 when none is or its end was reached.
    pub backup_start: LogOffset,
    /// End of the backup that is being recovered, if it was taken from a standby; 0 otherwise.
    pub backup_end: LogOffset,
    /// The end of the backup must still be found in the log.
    pub backup_end_required: bool,
    /// `wal_level`: 0 minimal, 1 replica, 2 logical.
    pub wal_level: u32,
    /// max_connections, max_worker_processes, max_wal_senders, max_prepared_xacts, max_locks_per_xact.
    pub limits: [i32; 5],
    /// Bytes of a data page.
    pub page_size: u32,
    /// Pages of a relation in one file.
    pub pages_per_file: u32,
    /// Bytes of a page of the log.
    pub log_page_size: u32,
    /// Bytes of a segment of the log.
    pub segment_size: u32,
    /// Data checksums: 0 off, 1 on.
    pub checksum_version: u32,
}

/// A `pg_control` that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It is too short.
    #[error("cannot read pg_control: it has only {0} bytes")]
    Short(usize),
    /// Of a version that is not known.
    #[error("cannot read pg_control: its layout is version {0}, known are those of PostgreSQL 13 to 18")]
    Version(u32),
    /// Its checksum is wrong: torn while it was written, or damaged.
    #[error("cannot read pg_control: its checksum is wrong, it was being written or is damaged")]
    Checksum,
    /// It says something impossible.
    #[error("cannot read pg_control: {0} is not a state of a cluster")]
    State(u32),
}

impl Control {
    /// Reads the content of the file.
    ///
    /// # Errors
    /// If it is too short, of an unknown version, or its checksum is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        let short = ControlError::Short(bytes.len());
        let version = bytes.get(8..).and_then(|rest| Fields::new(rest).u32()).ok_or(short.clone())?;
        // 18 put one flag before the last field.
        let covered = match version {
            1300 | 1700 => 288,
            1800 => 292,
            other => return Err(ControlError::Version(other)),
        };
        let (body, rest) = bytes.split_at_checked(covered).ok_or(short.clone())?;
        let stored = Fields::new(rest).u32().ok_or(short.clone())?;
        if crc32c::crc32c(body) != stored {
            return Err(ControlError::Checksum);
        }
        Self::fields(body).unwrap_or(Err(short))
    }

    fn fields(body: &[u8]) -> Option<Result<Self, ControlError>> {
        let at = |offset: usize| body.get(offset..).map(Fields::new);
        let number = |offset| at(offset)?.u32();
        let position = |offset| Some(LogOffset(at(offset)?.u64()?));
        let seconds = |offset| Some(Micros(at(offset)?.i64()?.saturating_mul(1_000_000)));
        let limit = |offset| at(offset)?.i32();
        let state_number = number(16)?;
        let Some(state) = ClusterState::from_number(state_number) else {
            return Some(Err(ControlError::State(state_number)));
        };
        Some(Ok(Self {
            system: at(0)?.u64()?,
            control_version: number(8)?,
            catalog_version: number(12)?,
            state,
            written_at: seconds(24)?,
            checkpoint: position(32)?,
            redo: position(40)?,
            timeline: number(48)?,
            checkpoint_at: seconds(104)?,
            minimum_recovery: position(136)?,
            minimum_recovery_timeline: number(144)?,
            backup_start: position(152)?,
            backup_end: position(160)?,
            backup_end_required: at(168)?.u8()? != 0,
            wal_level: number(172)?,
            limits: [limit(180)?, limit(184)?, limit(188)?, limit(192)?, limit(196)?],
            page_size: number(216)?,
            pages_per_file: number(220)?,
            log_page_size: number(224)?,
            segment_size: number(228)?,
            checksum_version: number(252)?,
        }))
    }
}
