//! Arguments of `key`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::help;

/// What to do with a key.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Key {
    /// Give a repository a new key; nothing is rewritten
    #[command(after_help = help::KEY_ROTATE)]
    Rotate(KeyRotate),
    /// Say that the key is stored in a second place: `check` then stops asking
    #[command(after_help = help::KEY_CONFIRM)]
    Confirm(KeyConfirm),
    /// Print the age identity of the key, with which `age` opens daily packages
    #[command(after_help = help::KEY_AGE)]
    Age(KeyAge),
}

/// Arguments of `key age`.
#[derive(Debug, Clone, Args)]
pub(crate) struct KeyAge {
    /// Name of the repository [default: the only one; none is needed with --key-file]
    pub(crate) repository: Option<String>,
    /// Print only the recipient, which is no secret
    #[arg(long)]
    pub(crate) recipient: bool,
}

/// Arguments of `key rotate`.
#[derive(Debug, Clone, Args)]
pub(crate) struct KeyRotate {
    /// Name of the repository [default: the only one]
    pub(crate) repository: Option<String>,
    /// File for the new key [default: the configured key_file]
    #[arg(long, value_name = "FILE")]
    pub(crate) new_key_file: Option<PathBuf>,
    /// Let the old key still open the repository
    #[arg(long)]
    pub(crate) keep_old: bool,
}

/// Arguments of `key confirm`.
#[derive(Debug, Clone, Args)]
pub(crate) struct KeyConfirm {
    /// Name of the repository [default: the only one]
    pub(crate) repository: Option<String>,
}
