//! A repository opened with a key: what is stored of clusters, backups and logs, and in which order it is written.
//!
//! Order of writing (docs/FORMAT.md, invariants): objects are created under new names and never modified; data before
//! reference (packs and page hashes before the map, a segment before its digest); what replaces other objects is read back
//! and verified before those go. So a crash between any two steps leaves a valid repository.

mod backup;
mod cluster;
mod config;
mod error;
mod expire;
mod holds;
mod lease;
mod log;
mod names;
mod object;
mod offsite;
mod pack;
mod pages;
mod process;
mod production;
mod repository;

pub use backup::{BackupListing, BackupWriter, ImageReader};
pub use cluster::ClusterRepo;
pub use error::{RepoError, code};
pub use lease::{KeptLease, Lease, LeaseState};
pub use log::{Bundle, BundleMade, Freed, LogStore, Piece, PieceKind, SegmentWriter, Stored};
pub use offsite::{OffsiteCall, OffsiteLedger};
pub use pack::{PackReader, PackRunInput, PackWriter};
pub use pages::PagesReader;
pub use repository::Repository;

#[cfg(test)]
mod tests;
