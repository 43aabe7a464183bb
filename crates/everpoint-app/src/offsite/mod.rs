//! The offsite provider: spending its calls, and what its ledger tells.

pub mod call;
pub mod clock;
mod covered;
mod fetch;
mod push;
mod settle;
mod status;
#[cfg(test)]
mod tests;
mod thin;
mod turn;

pub use call::{CallContext, CallReport, Parcel, spend};
pub use clock::{Clock, SystemClock};
pub use covered::{contents, needs};
pub use fetch::{FetchReport, FetchRequest, RemoteList, fetch, list_remote};
pub use push::{PushReport, PushRequest, push};
pub use status::{CallLine, CoveredLine, OffsiteStatus, period, status};
pub use turn::turn;

use everpoint_offsite::Provider;

/// Whether the provider has the whole file. One that can't be asked now, or does not tell sizes, is believed not to.
fn has(provider: &dyn Provider, name: &str, size: u64) -> bool {
    let entries = provider.list().ok().flatten().unwrap_or_default();
    entries.iter().any(|entry| entry.name == name && entry.size == Some(size))
}
