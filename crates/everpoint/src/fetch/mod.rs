//! Fetching log for a server that runs as another user.
//!
//! `restore --start` as root starts the server as the owner of the directory, who may read neither the key nor the
//! repository. So the restoring process, which may, serves what `archive-get` asks for over a socket, as long as it
//! follows the recovery. Who asks is told by the system (peer credentials): only root and that owner are served.

mod client;
mod service;

use serde::{Deserialize, Serialize};

pub(crate) use client::get;
pub(crate) use service::FetchService;

/// What is asked for: one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    name: String,
    branch: Option<String>,
    in_place_tablespaces: bool,
    #[serde(default)]
    until: Option<u64>,
}

/// One line of JSON; if `length` is there, as many bytes follow: the file.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    length: Option<u64>,
    error: Option<Refusal>,
}

/// Why it can't be said whether the file is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Refusal {
    code: String,
    object: String,
    message: String,
    damaged: bool,
}
