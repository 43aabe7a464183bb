//! What a database engine implements, and what it is given to work with.
//!
//! The use-cases of `everpoint-app` know engines only through these traits: [`Engine`] (the cluster as a whole),
//! [`LogSink`] and [`LogDecoder`] (capture), [`ImageSink`] and [`ImageWorker`] (backup), [`recovery`] (restore).

pub mod backup;
pub mod beside;
pub mod capture;
pub mod check;
pub mod engine;
pub mod error;
pub mod fake;
mod identity;
pub mod local;
pub mod owner;
pub mod recovery;
pub mod steps;

pub use backup::{
    BackupBegin, BackupEnd, BackupOptions, FileKind, FileMeta, ImageSink, ImageWorker, PART_BYTES, Part,
    TablespaceLink,
};
pub use capture::{CaptureFrom, CaptureOptions, Decoded, LogDecoder, LogSink, ReadLog, StopFlag};
pub use check::{CheckLine, CheckState};
pub use engine::{Engine, LogHead, Neighbour, ServerIdentity, SlotHolds};
pub use error::EngineError;
pub use local::{DirectoryProof, LocalLog, LocalPlace, LocalTimeline};
pub use owner::{Owner, owner_of, user_name};
pub use recovery::{
    ConfigurationFile, RecoveryEvent, RecoveryReached, RecoverySettings, StartOptions, Stays, StopAt,
};
pub use steps::{NextSteps, Unstartable};
