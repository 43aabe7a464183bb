//! Arguments of `offsite`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::help;

/// What to do with daily packages.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Offsite {
    /// Make a package of all clusters and keep it here; no call is spent
    #[command(after_help = help::OFFSITE_PACK)]
    Pack(OffsitePack),
    /// Open a package and compare it with its sums
    #[command(after_help = help::OFFSITE_UNPACK)]
    Unpack(OffsiteUnpack),
}

/// Arguments of `offsite pack`.
#[derive(Debug, Clone, Args)]
pub(crate) struct OffsitePack {
    /// Where to put it [default: the directory for scratch files]
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// Encrypt it to this age recipient, as often as needed [default: that of the key]
    #[arg(long, value_name = "AGE1…")]
    pub(crate) recipient: Vec<String>,
    /// Most bytes that it may have
    #[arg(long, value_name = "BYTES")]
    pub(crate) limit: Option<u64>,
}

/// Arguments of `offsite unpack`.
#[derive(Debug, Clone, Args)]
pub(crate) struct OffsiteUnpack {
    /// The package
    pub(crate) file: PathBuf,
    /// An empty directory, or one to make
    pub(crate) directory: PathBuf,
    /// Age identity that opens it [default: that of the key]
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
}
