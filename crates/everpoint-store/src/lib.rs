//! Names and bytes: what a repository needs of the place that holds it.
//!
//! Calls block; a store that lives across a network keeps its own runtime inside (docs/adr/0002).
//!
//! Stores: [`LocalStore`] (a directory), [`MemoryStore`] (tests). Wrappers, each a store over a store: [`RetryStore`],
//! [`LimitStore`], [`ReadOnlyStore`], [`LayeredStore`] (one over another), [`FaultyStore`] (tests). [`conformance`] is the suite that all of them pass.

pub mod conformance;
mod error;
mod faulty;
mod layered;
mod limit;
mod local;
mod memory;
mod name;
mod readonly;
mod retry;
mod store;
mod url;

pub use error::{StoreError, StoreErrorKind};
pub use faulty::{Fault, FaultKind, FaultyStore};
pub use layered::LayeredStore;
pub use limit::{LimitStore, Rates};
pub use local::LocalStore;
pub use memory::MemoryStore;
pub use name::check_name;
pub use readonly::ReadOnlyStore;
pub use retry::{RetryPolicy, RetryStore};
pub use store::{ObjectInfo, ObjectReader, ObjectWriter, Space, Store};
pub use url::{create_url, open_url, shown_url};
