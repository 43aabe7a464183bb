//! Arguments of `offsite`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::help;

/// What to do with daily packages.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Offsite {
    /// Show the budget, the calls, and up to where packages hold the log; the provider is not asked
    #[command(after_help = help::OFFSITE_STATUS)]
    Status(OffsiteStatus),
    /// Make the package of all clusters and send it: spends a call
    #[command(after_help = help::OFFSITE_PUSH)]
    Push(OffsitePush),
    /// List the packages that were sent
    #[command(after_help = help::OFFSITE_LIST)]
    List(OffsiteList),
    /// Fetch a package from the provider
    #[command(after_help = help::OFFSITE_FETCH)]
    Fetch(OffsiteFetch),
    /// Make a package of all clusters and keep it here; no call is spent
    #[command(after_help = help::OFFSITE_PACK)]
    Pack(OffsitePack),
    /// Open a package and compare it with its sums
    #[command(after_help = help::OFFSITE_UNPACK)]
    Unpack(OffsiteUnpack),
}

/// Arguments of `offsite status`.
#[derive(Debug, Clone, Args)]
pub(crate) struct OffsiteStatus {
    /// Only this provider of the configuration [default: all]
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
}

/// Arguments of `offsite push`.
#[derive(Debug, Clone, Args)]
pub(crate) struct OffsitePush {
    /// Provider of the configuration [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
    /// Spend the call without asking
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Arguments of `offsite list`.
#[derive(Debug, Clone, Args)]
pub(crate) struct OffsiteList {
    /// Only this provider of the configuration [default: all]
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
    /// Ask the provider what it has
    #[arg(long)]
    pub(crate) remote: bool,
    /// Spend a call on asking without asking first, if the provider counts that
    #[arg(long, requires = "remote")]
    pub(crate) yes: bool,
}

/// Arguments of `offsite fetch`.
#[derive(Debug, Clone, Args)]
pub(crate) struct OffsiteFetch {
    /// Name of the package, number of its call, or `latest`
    pub(crate) reference: String,
    /// Where to put it: a file that is not there yet
    pub(crate) file: PathBuf,
    /// Provider of the configuration [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
    /// Spend a call without asking, if the provider counts downloads
    #[arg(long)]
    pub(crate) yes: bool,
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
