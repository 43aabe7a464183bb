//! Bytes: the layout of every object of a repository, with its version. docs/FORMAT.md describes it byte by byte.

pub mod bundle;
pub mod codec;
pub mod digest;
pub mod error;
pub mod hex;
pub mod keys;
pub mod keyslot;
pub mod manifest;
pub mod offsite;
pub mod pack;
pub mod package;
pub mod records;
pub mod seal;
pub mod stream;
pub mod varint;

pub use error::FormatError;
pub use {records as attempt, records as config, records as identity, records as lease, records as gap};
