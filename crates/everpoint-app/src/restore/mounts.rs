//! Places whose file system should be mounted, and is not: what this machine's table of file systems says.

use std::fs;
use std::path::{Path, PathBuf};

use everpoint_core::mount::{bare, mounted, wanted_mounts};

use super::spaces::real;

/// What should be mounted, and what is.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    wanted: Vec<PathBuf>,
    mounted: Vec<PathBuf>,
}

impl Mounts {
    /// Asks the machine. What can't be read says nothing.
    pub(crate) fn read() -> Self {
        let text = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        match (text("/etc/fstab"), text("/proc/self/mountinfo")) {
            (Ok(fstab), Ok(mountinfo)) => Self {
                wanted: wanted_mounts(&fstab).iter().map(|point| real(point)).collect(),
                mounted: mounted(&mountinfo),
            },
            _ => Self::default(),
        }
    }

    /// The bare mount point at or above a place.
    pub(crate) fn bare(&self, place: &Path) -> Option<&Path> {
        bare(&self.wanted, &self.mounted, &real(place))
    }
}

/// Why nothing is written there.
pub(crate) fn not_mounted(point: &Path) -> String {
    format!("{} is a mount point by /etc/fstab, and nothing is mounted on it", point.display())
}
