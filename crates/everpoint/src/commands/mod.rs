//! One file a command: arguments in, use-case called, result rendered.

pub(crate) mod adopt;
pub(crate) mod archive_get;
pub(crate) mod archive_prefetch;
pub(crate) mod archive_push;
pub(crate) mod backup;
pub(crate) mod bundle;
pub(crate) mod capture;
pub(crate) mod check;
mod check_offsite;
pub(crate) mod completion;
pub(crate) mod expire;
pub(crate) mod help;
pub(crate) mod hold;
pub(crate) mod init;
pub(crate) mod key;
pub(crate) mod list;
mod list_packages;
pub(crate) mod man;
pub(crate) mod mock_offsite;
pub(crate) mod offsite;
pub(crate) mod protect;
pub(crate) mod restore;
pub(crate) mod restore_below;
pub(crate) mod restore_point;
pub(crate) mod status;

use serde::Serialize;

/// Answers about several clusters.
#[derive(Debug, Serialize)]
pub(crate) struct Clusters<T> {
    pub(crate) clusters: Vec<T>,
}
