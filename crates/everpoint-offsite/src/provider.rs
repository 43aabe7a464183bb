//! What a provider can do.

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};

use crate::{ProviderError, ProviderErrorKind};

/// Which requests the provider counts besides uploads, which always count. None of these is made unasked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Fetching a file.
    pub download: bool,
    /// Asking what is there.
    pub list: bool,
    /// Asking whether it is well.
    pub health: bool,
}

/// What the provider said of a file that arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Time of the provider's clock when it answered (its `Date`), microseconds since 1970 UTC, if it gave one.
    pub provider_date: Option<i64>,
    /// Where the file lies, without anything secret.
    pub url: Option<String>,
}

/// A file that the provider has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name, as it was uploaded.
    pub name: String,
    /// Its size in bytes, if the provider tells it.
    #[serde(default)]
    pub size: Option<u64>,
}

/// A service that takes one file a call.
///
/// To add one: implement this in a file of its own, give it a `type` in the configuration, describe it in docs/CONFIG.md.
pub trait Provider: Send + Sync {
    /// What and where it is, without anything secret.
    fn describe(&self) -> String;

    /// Which requests count besides uploads.
    fn counts(&self) -> Counts;

    /// Sends one file in one request. `size` is the number of bytes that `body` gives.
    ///
    /// # Errors
    /// If it did not arrive, or nobody knows. [`ProviderError::sent`] is `false` only if no byte of a request can have
    /// reached the provider.
    fn upload(&self, name: &str, size: u64, body: Box<dyn Read + Send>) -> Result<Receipt, ProviderError>;

    /// Fetches a file; returns its size in bytes.
    ///
    /// # Errors
    /// Kind `NotFound` if it is not there, `Unsupported` if the provider can't give anything back.
    fn download(&self, name: &str, into: &mut dyn Write) -> Result<u64, ProviderError>;

    /// What is there, oldest first as far as the provider knows; `None` if it can't be asked.
    ///
    /// # Errors
    /// If it can't be reached or its answer can't be understood.
    fn list(&self) -> Result<Option<Vec<Entry>>, ProviderError>;

    /// Asks whether it is well; `Ok` too if it can't be asked.
    ///
    /// # Errors
    /// If it can't be reached or says that it is not.
    fn health(&self) -> Result<(), ProviderError>;

    /// Whether it can be asked for free what has arrived: then a call without an answer can be cleared up.
    fn asks(&self) -> bool;
    /// How many packages it is to keep, if it lets go of older ones at all. It does so only when it is told to
    /// [`Provider::remove`] one: which ones can go is known to the ledger alone.
    fn keeps(&self) -> Option<usize> {
        None
    }

    /// Removes a package that it has.
    ///
    /// # Errors
    /// Kind `Unsupported` if it never lets go of anything, `Usage` if the name is not that of a package.
    fn remove(&self, name: &str) -> Result<(), ProviderError> {
        Err(ProviderError::new("remove", name, ProviderErrorKind::Unsupported).unsent())
    }
}
