//! The command line: names and arguments that users and scripts rely on.

mod archive;
mod document;
mod help;
mod key;
mod mock_offsite;
mod offsite;
mod pairs;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use everpoint_core::{BranchChoice, BranchId};

pub(crate) use archive::{ArchiveGet, ArchivePrefetch, ArchivePush};
pub(crate) use document::documented;
pub(crate) use key::{Key, KeyAge, KeyConfirm, KeyRotate};
pub(crate) use mock_offsite::MockOffsite;
pub(crate) use offsite::{
    Offsite, OffsiteFetch, OffsiteList, OffsitePack, OffsitePush, OffsiteStatus, OffsiteUnpack,
};
use pairs::{parse_branch, parse_branch_name, parse_label, parse_map};

/// Continuous backup and point-in-time recovery for PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "everpoint", version, max_term_width = 100, after_help = help::TOP, propagate_version = true,
          disable_help_subcommand = true, subcommand_value_name = "COMMAND", subcommand_help_heading = "Commands")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Understood before and after the command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Configuration file [default: $EVERPOINT_CONFIG, ./everpoint.toml, /etc/everpoint/everpoint.toml]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) config: Option<PathBuf>,
    /// Print one JSON object on standard output, errors too
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Log more to standard error: -v, -vv, -vvv
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub(crate) verbose: u8,
    /// Print nothing but results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub(crate) quiet: bool,
    /// No progress, neither bars nor lines
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) no_progress: bool,
    /// Use this repository: a name from the configuration, or a directory, which needs no configuration
    #[arg(long, global = true, value_name = "NAME|URL", help_heading = "Global options")]
    pub(crate) repo: Option<String>,
    /// File with the repository's key [default: as configured, or $EVERPOINT_KEY]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) key_file: Option<PathBuf>,
    /// Socket of the process that restores and may read the repository: written by it into restore_command
    #[arg(long, global = true, hide = true, value_name = "SOCKET")]
    pub(crate) fetch_via: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Protect a database from nothing: configuration, repository, key, first backup, then capture and schedules
    #[command(after_help = help::PROTECT)]
    Protect(Protect),
    /// Create the repositories of the configuration; again is harmless
    #[command(after_help = help::INIT)]
    Init(Init),
    /// Look at everything that must be right, and say what to do where it is not
    #[command(after_help = help::CHECK)]
    Check(MaybeCluster),
    /// Receive the log of a cluster until stopped
    #[command(after_help = help::CAPTURE)]
    Capture(Capture),
    /// Store one log segment: for archive_command
    #[command(after_help = help::ARCHIVE_PUSH)]
    ArchivePush(ArchivePush),
    /// Fetch one log segment: for restore_command
    #[command(after_help = help::ARCHIVE_GET)]
    ArchiveGet(ArchiveGet),
    /// Keep the segments that follow ready beside the destination: started by archive-get
    #[command(hide = true)]
    ArchivePrefetch(ArchivePrefetch),
    /// Take a backup: incremental if there is one already, else full
    #[command(after_help = help::BACKUP)]
    Backup(Backup),
    /// Join the log of each hour into one object, compressed tighter; list bundles and restore points
    #[command(after_help = help::BUNDLE)]
    Bundle(Bundle),
    /// Remove what the policy does not keep; shows before what can no longer be restored
    #[command(after_help = help::EXPIRE)]
    Expire(Expire),
    /// Keep a backup whatever the policy says, until a moment or until it is released
    #[command(after_help = help::HOLD)]
    Hold(Hold),
    /// Show backups, recovery windows, restore points, branches and gaps; or what packages hold
    #[command(after_help = help::LIST)]
    List(List),
    /// Show health now: capture lag, last backup, windows, gaps
    #[command(after_help = help::STATUS)]
    Status(MaybeCluster),
    /// Bring a cluster back to a moment of its past
    #[command(after_help = help::RESTORE)]
    Restore(Restore),
    /// Make a named restore point
    #[command(after_help = help::RESTORE_POINT)]
    RestorePoint(RestorePoint),
    /// Keep all clusters protected: capture, backups and upkeep by schedule, until stopped
    #[command(after_help = help::SERVE)]
    Serve,
    /// Say that another server is production now: a copy that was restored, or one upgraded with pg_upgrade or made anew
    #[command(after_help = help::ADOPT)]
    Adopt(Adopt),
    /// Stop protecting a cluster: gives up its slot, and keeps what is stored of it
    #[command(after_help = help::FORGET)]
    Forget(Forget),
    /// Manage the key of a repository
    #[command(subcommand, after_help = help::KEY, disable_help_subcommand = true, subcommand_value_name = "COMMAND",
              subcommand_help_heading = "Commands")]
    Key(Key),
    /// Run a service that takes one call a day: to try the daily package against
    #[command(after_help = help::MOCK_OFFSITE)]
    MockOffsite(MockOffsite),
    /// Daily packages: one file that restores every cluster, sent with one call a day
    #[command(subcommand, after_help = help::OFFSITE, disable_help_subcommand = true, subcommand_value_name = "COMMAND",
              subcommand_help_heading = "Commands")]
    Offsite(Offsite),
    /// Print a completion script for a shell
    #[command(after_help = help::COMPLETION)]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Show the help of a command
    #[command(after_help = help::HELP)]
    Help {
        /// The command, such as restore or key rotate
        command: Vec<String>,
    },
    /// Write the manual pages into a directory, or print the main one
    #[command(after_help = help::MAN)]
    Man {
        /// Directory to write them into
        directory: Option<PathBuf>,
    },
}

/// Arguments of `protect`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Protect {
    /// Address of the server: postgres://user@host:5432/dbname
    pub(crate) url: String,
    /// Name of the cluster in the repository [default: from the address]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Data directory of the server, if it can be read here: files are then read in parallel
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Write a second copy of the new key to this file, on another disk or machine
    #[arg(long, value_name = "FILE")]
    pub(crate) escrow: Option<PathBuf>,
    /// The key is stored in a second place already: don't ask
    #[arg(long)]
    pub(crate) key_stored_elsewhere: bool,
    /// Don't encrypt a new repository
    #[arg(long, conflicts_with_all = ["escrow", "key_stored_elsewhere"])]
    pub(crate) no_encryption: bool,
}

/// Arguments of `init`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Init {
    /// Only this repository of the configuration
    pub(crate) repository: Option<String>,
    /// Make an empty one even where one was before that is not there now: what it holds goes no further
    #[arg(long)]
    pub(crate) new: bool,
}

/// Arguments of `adopt`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Adopt {
    /// Name of the cluster
    pub(crate) cluster: String,
    /// Data directory of the copy that becomes production
    pub(crate) directory: Option<PathBuf>,
}

/// Arguments of `forget`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Forget {
    /// Name of the cluster
    pub(crate) cluster: String,
    /// Only show what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Go on even while archive_command of the server calls archive-push for it
    #[arg(long)]
    pub(crate) archive_command_stays: bool,
}

/// A cluster, or all.
#[derive(Debug, Clone, Args)]
pub(crate) struct MaybeCluster {
    /// Name of the cluster [default: all]
    pub(crate) cluster: Option<String>,
}

/// Arguments of `capture`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Capture {
    /// Name of the cluster
    pub(crate) cluster: String,
    /// Return when the server's current end of the log is stored
    #[arg(long)]
    pub(crate) once: bool,
}

/// Arguments of `backup`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Backup {
    /// Name of the cluster
    pub(crate) cluster: String,
    /// Store everything anew
    #[arg(long, conflicts_with = "incremental")]
    pub(crate) full: bool,
    /// Store only what differs from the newest backup
    #[arg(long)]
    pub(crate) incremental: bool,
    /// Label to keep with it, as often as needed
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) label: Vec<(String, String)>,
    /// Let the server spread its checkpoint: gentler, and may take minutes
    #[arg(long)]
    pub(crate) spread_checkpoint: bool,
    /// Take it even from a standby that is late, beside an archive that fails, or with little room
    #[arg(long)]
    pub(crate) skip_checks: bool,
}

/// Arguments of `bundle`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Bundle {
    /// Name of the cluster
    pub(crate) cluster: String,
    /// Bundle what there is of the hour that still runs, too
    #[arg(long)]
    pub(crate) close: bool,
    /// Write all named restore points to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) restore_points: Option<PathBuf>,
}

/// Arguments of `expire`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Expire {
    /// Name of the cluster [default: all]
    pub(crate) cluster: Option<String>,
    /// Only show what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Instead of what the policy does not keep: this branch of the log, which production is not on, and its backups
    #[arg(long, value_name = "NAME", value_parser = parse_branch_name, requires = "cluster", conflicts_with = "now")]
    pub(crate) branch: Option<BranchId>,
    /// Free the space of backups at once instead of after `grace`, if no backup and no restore runs
    #[arg(long)]
    pub(crate) now: bool,
}

/// Arguments of `hold`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Hold {
    /// Name of the cluster
    pub(crate) cluster: String,
    /// Label of the backup
    pub(crate) label: String,
    /// Until when, such as 2033-01-31 or 'in 2 weeks' [default: until it is released]
    #[arg(long, value_name = "TIME", conflicts_with = "release", allow_hyphen_values = true)]
    pub(crate) until: Option<String>,
    /// End the hold
    #[arg(long)]
    pub(crate) release: bool,
}

/// Arguments of `list`.
#[derive(Debug, Clone, Args)]
pub(crate) struct List {
    /// Name of the cluster [default: all]
    pub(crate) cluster: Option<String>,
    /// Show what daily packages hold, without a repository
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) package: Vec<PathBuf>,
    /// Age identity that opens the packages [default: that of the key]
    #[arg(long, value_name = "FILE", requires = "package")]
    pub(crate) identity: Option<PathBuf>,
}

/// Arguments of `restore`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Restore {
    /// Name of the cluster
    pub(crate) cluster: String,
    /// Data directory to make: new or empty, unless --delta
    pub(crate) directory: PathBuf,
    /// latest, a time ('2026-01-29 14:30', 'yesterday 14:30', -2h), lsn:…, xid:…, before-xid:…, name:… or backup:…
    #[arg(long, value_name = "TARGET", default_value = "latest", allow_hyphen_values = true)]
    pub(crate) to: String,
    /// Stop just before the target instead of just after it
    #[arg(long)]
    pub(crate) exclusive: bool,
    /// Follow this timeline, or branch by its name [default: the one that production is on]
    #[arg(long, value_name = "N", value_parser = parse_branch)]
    pub(crate) timeline: Option<BranchChoice>,
    /// Bring a data directory of this cluster to the wanted state; only what differs is written
    #[arg(long)]
    pub(crate) delta: bool,
    /// Put a tablespace (by its path or oid) outside of the directory, as often as needed
    #[arg(long, value_name = "OLD=NEW", value_parser = parse_map)]
    pub(crate) map: Vec<(String, String)>,
    /// Show the plan, every shortfall and what would be removed; make all checks; write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Start PostgreSQL on the directory, follow the replay, return when it accepts connections
    #[arg(long)]
    pub(crate) start: bool,
    /// Restore from daily packages instead of the repository; several in a row reach any second between them, and with
    /// --repo what they lack comes from that repository
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) package: Vec<PathBuf>,
    /// Age identity that opens the packages [default: that of the key]
    #[arg(long, value_name = "FILE", requires = "package")]
    pub(crate) identity: Option<PathBuf>,
    /// TCP port for --start [default: a free one]
    #[arg(long, value_name = "PORT", requires = "start")]
    pub(crate) port: Option<u16>,
    /// Put the log into the directory, so that the server needs neither key nor repository [default: as root, if the
    /// server's user can't read them]
    #[arg(long, conflicts_with = "start")]
    pub(crate) stage_log: bool,
    /// It is to replace the production server: with its own configuration (in its own directory that of now), and its
    /// tablespaces at their own paths
    #[arg(long)]
    pub(crate) replace_production: bool,
    /// No server runs on the directory, whatever its postmaster.pid says; a server that is seen is refused all the same
    #[arg(long)]
    pub(crate) server_is_stopped: bool,
}

/// Arguments of `restore-point`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RestorePoint {
    /// Name of the cluster
    pub(crate) cluster: String,
    /// Name of the restore point
    pub(crate) name: String,
}
