//! The ledger of calls to an offsite provider: `offsite/<provider>/<n>`, `<n>.sending`, `<n>.outcome`.
//!
//! Each object is create-only, so of two who want the same step of the same call one succeeds. Nothing is ever removed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use everpoint_core::{CallOutcome, CallStatus, ClockReading, LedgerEntry, Micros};
use everpoint_format::FormatError;
use everpoint_format::offsite::{OffsiteClaim, OffsiteOutcome, OffsiteSending};
use everpoint_format::seal::ObjectKind;

use crate::error::code;
use crate::object::{Shared, format_error, hex, random};
use crate::{RepoError, names};

/// Under it lie the ledgers.
pub(crate) const OFFSITE: &str = "offsite/";
const SENDING: &str = ".sending";
const OUTCOME: &str = ".outcome";

/// The ledger of one provider. Clones share everything.
#[derive(Clone)]
pub struct OffsiteLedger {
    shared: Arc<Shared>,
    provider: String,
    /// `offsite/<provider>/`.
    base: String,
}

/// What the ledger holds of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsiteCall {
    /// From 1 on.
    pub number: u32,
    /// Who claimed it.
    pub claim: Option<OffsiteClaim>,
    /// When and what was about to be sent.
    pub sending: Option<OffsiteSending>,
    /// How it ended.
    pub outcome: Option<OffsiteOutcome>,
}

impl OffsiteCall {
    /// What counts for the budget; `None` for a number of which nothing is known.
    #[must_use]
    pub fn entry(&self) -> Option<LedgerEntry> {
        let sending = self.sending.as_ref().map(|sending| ClockReading::from(&sending.clock));
        let claimed = self.claim.as_ref().map(|claim| ClockReading::from(&claim.clock));
        let outcome = self.outcome.as_ref().map(|outcome| CallOutcome {
            status: outcome.call_status(),
            at: ClockReading::from(&outcome.clock),
            provider_date: outcome.provider_date.map(Micros),
        });
        let claimed = claimed.or_else(|| sending.clone())?;
        Some(LedgerEntry { number: self.number, claimed, sending, outcome })
    }

    /// Whether it sends a file, and does not ask for something.
    #[must_use]
    pub fn is_upload(&self) -> bool {
        self.sending.as_ref().is_none_or(|sending| sending.request.is_empty())
    }

    /// Whether its file is known to have arrived.
    #[must_use]
    pub fn arrived(&self) -> bool {
        self.is_upload()
            && self.outcome.as_ref().is_some_and(|outcome| outcome.call_status() == CallStatus::Arrived)
    }
}

impl OffsiteLedger {
    pub(crate) fn new(shared: Arc<Shared>, provider: &str) -> Self {
        Self { shared, provider: provider.to_owned(), base: format!("{OFFSITE}{provider}/") }
    }

    /// The provider's name.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// A random word by which a claimant or sender knows its own record.
    ///
    /// # Errors
    /// If the operating system gives no random bytes.
    pub fn token() -> Result<String, RepoError> {
        Ok(hex(&random::<16>()?))
    }

    /// All calls, by number. Each object that exists when this begins is seen.
    ///
    /// # Errors
    /// If the store can't be read, or an object is damaged: then nobody may call.
    pub fn calls(&self) -> Result<Vec<OffsiteCall>, RepoError> {
        let mut found: BTreeMap<u32, OffsiteCall> = BTreeMap::new();
        for (number, part) in self.parts()? {
            let name = format!("{}{number}{part}", self.base);
            let call = found.entry(number).or_insert(OffsiteCall {
                number,
                claim: None,
                sending: None,
                outcome: None,
            });
            match part {
                SENDING => {
                    call.sending =
                        Some(self.read(&name, ObjectKind::OffsiteSending, OffsiteSending::decode)?);
                }
                OUTCOME => {
                    call.outcome =
                        Some(self.read(&name, ObjectKind::OffsiteOutcome, OffsiteOutcome::decode)?);
                }
                _ => call.claim = Some(self.read(&name, ObjectKind::OffsiteClaim, OffsiteClaim::decode)?),
            }
        }
        Ok(found.into_values().collect())
    }

    /// What counts for the budget, by number.
    ///
    /// # Errors
    /// As [`OffsiteLedger::calls`].
    pub fn entries(&self) -> Result<Vec<LedgerEntry>, RepoError> {
        Ok(self.calls()?.iter().filter_map(OffsiteCall::entry).collect())
    }

    /// The last call whose file arrived.
    ///
    /// # Errors
    /// As [`OffsiteLedger::calls`].
    pub fn last_arrived(&self) -> Result<Option<OffsiteCall>, RepoError> {
        Ok(self.calls()?.into_iter().rev().find(OffsiteCall::arrived))
    }

    /// Claims a number. `false`: somebody else has it.
    ///
    /// # Errors
    /// If the store can't be written; whether the claim is there is not known then.
    pub fn claim(&self, number: u32, claim: &OffsiteClaim) -> Result<bool, RepoError> {
        self.create(number, "", ObjectKind::OffsiteClaim, &claim.encode())
    }

    /// Marks a call as about to be sent. `true`, and nothing else, allows its first byte. `false`: somebody else may.
    ///
    /// # Errors
    /// If the store can't be written; whether the mark is there is not known then, and the call must not be made.
    pub fn sending(&self, number: u32, sending: &OffsiteSending) -> Result<bool, RepoError> {
        self.create(number, SENDING, ObjectKind::OffsiteSending, &sending.encode())
    }

    /// Writes down how a call ended. `false`: somebody else has done so.
    ///
    /// # Errors
    /// If the store can't be written; the call counts as spent all the same.
    pub fn outcome(&self, number: u32, outcome: &OffsiteOutcome) -> Result<bool, RepoError> {
        self.create(number, OUTCOME, ObjectKind::OffsiteOutcome, &outcome.encode())
    }

    /// Creates an object; an answer that was lost is looked up.
    fn create(&self, number: u32, part: &str, kind: ObjectKind, bytes: &[u8]) -> Result<bool, RepoError> {
        let name = format!("{}{number}{part}", self.base);
        let Err(error) = self.shared.put(&name, kind, bytes) else {
            return Ok(true);
        };
        let taken = error.code == code::EXISTS;
        if !taken && !error.retryable {
            return Err(error);
        }
        match self.shared.get(&name, kind) {
            Ok(Some(found)) => Ok(found == bytes),
            // What is damaged is there all the same.
            Err(unreadable) if taken && unreadable.is_damaged() => Ok(false),
            Err(unreadable) if taken => Err(unreadable),
            _ => Err(error),
        }
    }

    /// Number and kind of each object.
    fn parts(&self) -> Result<Vec<(u32, &'static str)>, RepoError> {
        let mut found = Vec::new();
        self.shared.store.list(&self.base, None, &mut |info| {
            if let Some(rest) = info.name.strip_prefix(&self.base) {
                let part =
                    [SENDING, OUTCOME].into_iter().find(|part| rest.ends_with(part)).unwrap_or_default();
                let number = names::parse_number(rest.strip_suffix(part).unwrap_or(rest));
                found.extend(number.map(|number| (number, part)));
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    fn read<T>(
        &self,
        name: &str,
        kind: ObjectKind,
        decode: impl Fn(&[u8]) -> Result<T, FormatError>,
    ) -> Result<T, RepoError> {
        decode(&self.shared.need(name, kind)?).map_err(|error| format_error("read", name, error))
    }
}
