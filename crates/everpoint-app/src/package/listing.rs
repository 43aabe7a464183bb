//! What a package says of itself: its manifest stands in front, so that nothing else is read.

use everpoint_core::{LogOffset, Micros};
use everpoint_format::package::{PackageManifest, PackagedCluster};
use serde::Serialize;

use crate::text;

/// One package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackageListing {
    /// Its name.
    pub name: String,
    /// When it was made, RFC 3339.
    pub made_at: String,
    /// The clusters in it.
    pub clusters: Vec<ClusterInPackage>,
    /// What should have been in it and is not, in words.
    pub shortfalls: Vec<String>,
}

/// A cluster in a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterInPackage {
    /// Its name.
    pub name: String,
    /// The base image in it; absent: only log.
    pub base: Option<BaseInPackage>,
    /// The log in it.
    pub log: Vec<LogInPackage>,
    /// The last position to which it restores by itself; absent: not without the packages before it.
    pub to_lsn: Option<String>,
}

/// A base image in a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BaseInPackage {
    /// Label of its backup.
    pub label: String,
    /// When that ended, RFC 3339.
    pub stopped_at: String,
    /// Bytes of the image.
    pub size_bytes: u64,
}

/// An unbroken stretch of log in a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogInPackage {
    /// Its branch.
    pub branch: String,
    /// Its timeline.
    pub timeline: u32,
    /// First position.
    pub from_lsn: String,
    /// First position after it.
    pub to_lsn: String,
    /// Until when nothing was committed behind it, RFC 3339.
    pub covered_until: Option<String>,
}

impl PackageListing {
    /// What a manifest says, of one cluster or of all.
    #[must_use]
    pub fn of(manifest: &PackageManifest, cluster: Option<&str>) -> Self {
        let wanted = manifest.clusters.iter().filter(|it| cluster.is_none_or(|name| it.name == name));
        Self {
            name: manifest.name.clone(),
            made_at: text::time(Micros(manifest.made_at)),
            clusters: wanted.map(ClusterInPackage::of).collect(),
            shortfalls: manifest.shortfalls.clone(),
        }
    }
}

impl ClusterInPackage {
    fn of(cluster: &PackagedCluster) -> Self {
        let base = cluster.base.as_ref().map(|base| BaseInPackage {
            label: base.record.label.clone(),
            stopped_at: text::time(Micros(base.record.stopped_at)),
            size_bytes: base.record.size_bytes,
        });
        let log = cluster.log.iter().flat_map(|log| {
            log.ranges.iter().map(|range| LogInPackage {
                branch: log.branch.clone(),
                timeline: log.timeline,
                from_lsn: text::lsn(LogOffset(range.from)),
                to_lsn: text::lsn(LogOffset(range.to)),
                covered_until: log
                    .covered
                    .filter(|(at, _)| *at <= range.to)
                    .map(|(_, until)| text::time(Micros(until))),
            })
        });
        Self {
            name: cluster.name.clone(),
            base,
            log: log.collect(),
            to_lsn: cluster.newest.as_ref().map(|newest| text::lsn(LogOffset(newest.record))),
        }
    }
}
