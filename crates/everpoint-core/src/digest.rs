//! The log map: what a piece of the log did, known without reading the piece again.

use crate::position::{LogOffset, Micros, Span};

/// What one piece of the log (a segment, or a tail of one) contains.
///
/// A record belongs to the piece in which it **ends**. Digests of consecutive pieces of a branch form a hash chain:
/// `previous_hash` of one is `content_hash` of the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Identifies the cluster that wrote the log (PostgreSQL: system identifier); 0 if the piece does not say.
    pub system: u64,
    /// Timeline number on which the piece was written.
    pub timeline: u32,
    /// Format of the log (PostgreSQL: the page magic, e.g. 0xD110 for 15).
    pub log_format: u32,
    /// The bytes described. A whole segment spans its full size.
    pub span: Span,
    /// BLAKE3 of the raw bytes of `span`.
    pub content_hash: [u8; 32],
    /// `content_hash` of the whole segment before this one, if it was known when the digest was made;
    /// [`crate::join::NOTHING_BEFORE`] if what is stored there is none of this log.
    pub previous_hash: Option<[u8; 32]>,
    /// Whether all records were intact, and where the log broke if not.
    pub verdict: Verdict,
    /// Start of the first record that begins in `span`.
    pub first_record: Option<LogOffset>,
    /// The last whole record that ends in `span`.
    pub last_record: Option<RecordSpan>,
    /// The previous link (`xl_prev`) that the first whole record beginning in `span` carries: start of the record
    /// before it. 0 marks a break of the log (pg_resetwal).
    pub first_previous: Option<LogOffset>,
    /// The head of a record that began before `span` could not be seen when the digest was made, so that record is
    /// missing from `events`.
    pub head_unknown: bool,
    /// Nothing was committed up to this moment beyond what `span` and its predecessors hold. `None`: not known.
    pub covered_until: Option<Micros>,
    /// Number of whole records that end in `span`.
    pub records: u64,
    /// What happened, in log order.
    pub events: Vec<LogEvent>,
}

/// Start of a record and first byte after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordSpan {
    /// First byte of the record's header. PostgreSQL compares recovery targets with this.
    pub start: LogOffset,
    /// First byte after the record (not aligned).
    pub end: LogOffset,
}

/// Result of checking every record of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every record that ends in the piece has its checksum and links to the one before.
    Intact,
    /// Intact up to `at`, where the log ends in zeros or in a record that continues in the next piece.
    EndsAt {
        /// First byte that holds no whole record.
        at: LogOffset,
    },
    /// Broken: a checksum, a length or a link is wrong.
    Broken {
        /// Start of the record (or page) that is wrong.
        at: LogOffset,
        /// What is wrong with it, in words.
        reason: String,
    },
}

/// The end of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionEnd {
    /// Transaction id as the log has it (PostgreSQL: 32-bit xid, which repeats after 2^32).
    pub xid: u64,
    /// When it ended, as its session's clock said.
    pub time: Micros,
    /// The commit or abort record.
    pub record: RecordSpan,
    /// Ids of its subtransactions.
    pub subxids: Vec<u64>,
    /// It had been prepared before (COMMIT PREPARED, ROLLBACK PREPARED).
    pub prepared: bool,
}

/// One thing that the log says happened. Rows, relations and changed blocks get variants of their own later; readers
/// skip kinds that they don't know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    /// A transaction committed.
    Commit(TransactionEnd),
    /// A transaction was rolled back (sessions that wrote nothing leave no record).
    Abort(TransactionEnd),
    /// A transaction was prepared and is open until its COMMIT or ROLLBACK PREPARED.
    Prepare {
        /// Transaction id.
        xid: u64,
        /// The name given by PREPARE TRANSACTION.
        gid: String,
        /// The record.
        record: RecordSpan,
    },
    /// A named restore point.
    RestorePoint {
        /// Its name.
        name: String,
        /// When it was made.
        time: Micros,
        /// The record.
        record: RecordSpan,
    },
    /// A checkpoint.
    Checkpoint {
        /// Where replay has to begin to have everything of this checkpoint.
        redo: LogOffset,
        /// Made while shutting down, or at the end of recovery.
        shutdown: bool,
        /// When it was made (whole seconds).
        time: Micros,
        /// Timeline in force after it, and the one before.
        timeline: u32,
        /// See `timeline`.
        previous_timeline: u32,
        /// The record.
        record: RecordSpan,
    },
    /// Recovery ended here and a new timeline began.
    EndOfRecovery {
        /// When.
        time: Micros,
        /// Timeline in force after it.
        timeline: u32,
        /// The one before.
        previous_timeline: u32,
        /// The record.
        record: RecordSpan,
    },
    /// Settings that a replaying server must match.
    Parameters {
        /// `minimal` if true: the log can't be replayed over a backup across this record.
        minimal: bool,
        /// max_connections, max_worker_processes, max_wal_senders, max_prepared_xacts, max_locks_per_xact.
        limits: [i32; 5],
        /// The record.
        record: RecordSpan,
    },
    /// A database was created (as copy of files or by logged blocks).
    DatabaseCreate {
        /// The transaction that did it; 0 if the record does not say.
        xid: u64,
        /// Oid of the database.
        database: u32,
        /// Oid of its tablespace.
        tablespace: u32,
        /// The record.
        record: RecordSpan,
    },
    /// A database's directory was removed. Replaying it deletes files, before the commit of the DROP. Or, without
    /// `tablespaces`: the database was marked as unusable, which comes first and which nothing undoes.
    DatabaseDrop {
        /// The transaction that did it; 0 if the record does not say.
        xid: u64,
        /// Oid of the database; of a mark 0 if the record does not tell.
        database: u32,
        /// Oids of the tablespaces from which it was removed.
        tablespaces: Vec<u32>,
        /// The record.
        record: RecordSpan,
    },
    /// A tablespace was created at a literal path.
    TablespaceCreate {
        /// The transaction that did it; 0 if the record does not say.
        xid: u64,
        /// Its oid.
        tablespace: u32,
        /// The directory that the record names.
        path: String,
        /// The record.
        record: RecordSpan,
    },
    /// A tablespace was dropped.
    TablespaceDrop {
        /// The transaction that did it; 0 if the record does not say.
        xid: u64,
        /// Its oid.
        tablespace: u32,
        /// The record.
        record: RecordSpan,
    },
    /// The rest of the segment is unused.
    SegmentSwitch {
        /// The record.
        record: RecordSpan,
    },
    /// A backup ended (PostgreSQL's XLOG_BACKUP_END): consistent from here on.
    BackupEnd {
        /// Start position of the backup that it belongs to.
        start: LogOffset,
        /// The record.
        record: RecordSpan,
    },
    /// A record of a kind that an extension of the server brings: replay needs the extension. Of each piece the first and
    /// the last of a kind are told.
    Extension {
        /// Number of the kind (PostgreSQL: resource manager, 128 and above).
        manager: u32,
        /// The record.
        record: RecordSpan,
    },
}

impl LogEvent {
    /// The record that says it.
    #[must_use]
    pub const fn record(&self) -> RecordSpan {
        match self {
            Self::Commit(end) | Self::Abort(end) => end.record,
            Self::Prepare { record, .. }
            | Self::RestorePoint { record, .. }
            | Self::Checkpoint { record, .. }
            | Self::EndOfRecovery { record, .. }
            | Self::Parameters { record, .. }
            | Self::DatabaseCreate { record, .. }
            | Self::DatabaseDrop { record, .. }
            | Self::TablespaceCreate { record, .. }
            | Self::TablespaceDrop { record, .. }
            | Self::SegmentSwitch { record }
            | Self::BackupEnd { record, .. }
            | Self::Extension { record, .. } => *record,
        }
    }
}

/// The unfinished record at the end of a piece: what a decoder needs to go on in the next piece.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Carry {
    /// Start of the record that is unfinished at `position`; equals `position` when none is.
    pub record_start: LogOffset,
    /// Where the next byte belongs.
    pub position: LogOffset,
    /// The record's first bytes, without page headers: all `received` of them, or, of a long record, as many as a
    /// decoder needs of its kind.
    pub bytes: Vec<u8>,
    /// How many bytes of the record lie before `position`, without page headers. 0 together with some `bytes` means:
    /// as many as there are `bytes`. More than 0 without any `bytes`: how many are still to come of a record whose
    /// head nobody saw; `u64::MAX` where not even that is known.
    pub received: u64,
    /// Format of the log, as in [`Digest::log_format`]; 0 if unknown.
    pub log_format: u32,
    /// Checksum so far of the bytes counted by `received`, as the engine defines it; read only where `bytes` holds
    /// fewer of them.
    pub checksum: u32,
    /// Start of the last whole record before `record_start`; 0 if unknown.
    pub previous: LogOffset,
}
