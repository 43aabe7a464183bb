//! Records of the calls to an offsite provider: claim, sending, outcome.

use everpoint_core::{BootClock, CallStatus, ClockReading, Micros};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::FormatError;
use crate::records::{from_json, json_record, to_json};

/// The clocks of the machine that wrote a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockRecord {
    /// Wall clock, microseconds since 1970 UTC.
    pub wall: i64,
    /// Id of the boot, if the machine tells it.
    #[serde(default)]
    pub boot: Option<String>,
    /// Microseconds since that boot.
    #[serde(default)]
    pub since_boot: Option<i64>,
}

impl From<&ClockReading> for ClockRecord {
    fn from(reading: &ClockReading) -> Self {
        let boot = reading.boot.as_ref();
        Self {
            wall: reading.wall.0,
            boot: boot.map(|boot| boot.id.clone()),
            since_boot: boot.map(|boot| boot.elapsed.0),
        }
    }
}

impl From<&ClockRecord> for ClockReading {
    fn from(record: &ClockRecord) -> Self {
        let boot = record.boot.clone().zip(record.since_boot);
        let boot = boot.map(|(id, elapsed)| BootClock { id, elapsed: Micros(elapsed) });
        Self { wall: Micros(record.wall), boot }
    }
}

/// Who wants to make a call, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsiteClaim {
    /// When.
    pub clock: ClockRecord,
    /// Who, in words.
    pub holder: String,
    /// Host and process.
    pub host: String,
    /// See `host`.
    pub process: u32,
    /// Random, so that a claimant knows its own.
    pub token: String,
    /// Name of the file that is to be sent.
    pub name: String,
}
json_record!(OffsiteClaim, "a claim of an offsite call");

/// The first byte of a call is about to go out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsiteSending {
    /// When.
    pub clock: ClockRecord,
    /// Host and process that send.
    pub host: String,
    /// See `host`.
    pub process: u32,
    /// Random, so that a sender knows its own.
    pub token: String,
    /// Name of the file.
    pub name: String,
    /// Its size in bytes; 0 where none is sent.
    pub size: u64,
    /// Its SHA-256, 64 hex digits; empty where none is sent.
    pub sha256: String,
    /// What is asked for, if it is not that the file is taken: `download` or `list`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request: String,
    /// What the file holds, as in the outcome: for the case that only the provider can tell it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub contents: Map<String, Value>,
}
json_record!(OffsiteSending, "the beginning of an offsite call");

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsiteOutcome {
    /// `arrived`, `failed`, `unknown` or `unsent`; another word counts as `unknown`.
    pub status: String,
    /// When that was known.
    pub clock: ClockRecord,
    /// What the provider's answer gave as the time, microseconds since 1970 UTC.
    #[serde(default)]
    pub provider_date: Option<i64>,
    /// Why it failed, in words; never holds a secret.
    #[serde(default)]
    pub message: String,
    /// Name of the file.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, 64 hex digits.
    pub sha256: String,
    /// What it holds, as its maker describes it: from which position to which, by cluster.
    #[serde(default)]
    pub contents: Map<String, Value>,
}
json_record!(OffsiteOutcome, "the outcome of an offsite call");

impl OffsiteOutcome {
    /// The word for a status.
    #[must_use]
    pub const fn word(status: CallStatus) -> &'static str {
        match status {
            CallStatus::Arrived => "arrived",
            CallStatus::Failed => "failed",
            CallStatus::Unknown => "unknown",
            CallStatus::Unsent => "unsent",
        }
    }

    /// The status that the record names.
    #[must_use]
    pub fn call_status(&self) -> CallStatus {
        [CallStatus::Arrived, CallStatus::Failed, CallStatus::Unsent]
            .into_iter()
            .find(|status| Self::word(*status) == self.status)
            .unwrap_or(CallStatus::Unknown)
    }
}
