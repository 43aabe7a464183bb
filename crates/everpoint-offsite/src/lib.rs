//! Offsite providers: services that take one file a call, and the mock of one.
//!
//! A provider makes exactly one request for one call of [`Provider`], and never tries again by itself: a second try is a
//! second call, which only the caller's budget can allow. What a request that fails means for the budget stands in
//! [`ProviderError::sent`].

mod command;
mod error;
mod filesystem;
mod http;
mod mask;
pub mod mock;
mod provider;
mod s3;
mod template;
mod upload;

pub use command::{CommandOptions, CommandProvider};
pub use error::{ProviderError, ProviderErrorKind, code};
pub use filesystem::FilesystemProvider;
pub use http::{HttpMethod, HttpOptions, HttpProvider};
pub use provider::{Counts, Entry, Provider, Receipt};
pub use s3::{S3Options, S3Provider};
