//! Names and bytes: what a repository needs of the place that holds it.
//!
//! Calls block; a store that lives across a network keeps its own runtime inside (docs/adr/0002).

mod error;
mod store;

pub use error::{StoreError, StoreErrorKind};
pub use store::{ObjectInfo, ObjectReader, ObjectWriter, Space, Store};
