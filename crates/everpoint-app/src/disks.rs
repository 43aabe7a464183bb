//! Which disks a path lies on: through partitions, volumes, subvolumes and files that are mounted as disks.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Volumes lie on volumes, but not deeper than this.
const DEEPEST: usize = 8;

/// Where a path lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file system's own number.
    pub device: u64,
    /// Disks below it, or what stands for one: a pool, a server's export. Empty where it is not known.
    pub disks: BTreeSet<String>,
}

/// What two places share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shared {
    /// One file system: what fills it fills it for both.
    FileSystem,
    /// A disk.
    Disk(String),
}

/// What two places have in common; `None` also where that is not known.
#[must_use]
pub fn shared(one: &Place, other: &Place) -> Option<Shared> {
    if one.device == other.device {
        return Some(Shared::FileSystem);
    }
    one.disks.intersection(&other.disks).next().cloned().map(Shared::Disk)
}

/// What this machine says of its disks.
#[derive(Debug, Clone)]
pub struct Machine {
    /// `/sys`.
    sys: PathBuf,
    /// `/proc/self/mountinfo`.
    mounts: String,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        Self {
            sys: PathBuf::from("/sys"),
            mounts: fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
        }
    }

    /// Where a path lies, or will lie; `None` if that can't be asked.
    #[must_use]
    pub fn place(&self, path: &Path) -> Option<Place> {
        self.place_at(path, 0)
    }

    fn place_at(&self, path: &Path, depth: usize) -> Option<Place> {
        let there = path.ancestors().find_map(|path| path.canonicalize().ok())?;
        let device = fs::metadata(&there).ok()?.dev();
        let mut disks = BTreeSet::new();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        if major != 0 {
            self.below(&format!("{major}:{minor}"), depth, &mut disks);
        } else if let Some((kind, source)) = self.mounted(&there) {
            self.of_source(&kind, &source, depth, &mut disks);
        }
        Some(Place { device, disks })
    }

    /// File systems without a device of their own: what they were mounted from.
    fn of_source(&self, kind: &str, source: &str, depth: usize, disks: &mut BTreeSet<String>) {
        match kind {
            "zfs" => {
                disks.insert(format!("pool {}", source.split('/').next().unwrap_or(source)));
            }
            "nfs" | "nfs4" | "cifs" | "smb3" => {
                disks.insert(source.to_owned());
            }
            _ if source.starts_with("/dev/") => {
                let Ok(found) = fs::metadata(source) else { return };
                let number =
                    format!("{}:{}", rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
                self.below(&number, depth, disks);
            }
            _ => {}
        }
    }

    /// Kind and source of the file system that is mounted nearest above a path.
    fn mounted(&self, path: &Path) -> Option<(String, String)> {
        let mounts = self.mounts.lines().filter_map(|line| {
            let (front, back) = line.split_once(" - ")?;
            let point = unescaped(front.split(' ').nth(4)?);
            let mut back = back.split(' ');
            Some((point, back.next()?.to_owned(), unescaped(back.next()?)))
        });
        // Of two at one place the later one counts.
        let nearest =
            mounts.filter(|(point, ..)| path.starts_with(point)).max_by_key(|(point, ..)| point.len());
        nearest.map(|(_, kind, source)| (kind, source))
    }

    /// The disks below a block device: a partition's disk, a volume's parts, the disk of a file that is mounted.
    fn below(&self, number: &str, depth: usize, disks: &mut BTreeSet<String>) {
        let Ok(block) = self.sys.join("dev/block").join(number).canonicalize() else { return };
        self.below_block(&block, depth, disks);
    }

    fn below_block(&self, block: &Path, depth: usize, disks: &mut BTreeSet<String>) {
        if depth > DEEPEST {
            return;
        }
        let slaves: Vec<PathBuf> = fs::read_dir(block.join("slaves"))
            .map(|entries| entries.flatten().filter_map(|entry| entry.path().canonicalize().ok()).collect())
            .unwrap_or_default();
        if !slaves.is_empty() {
            slaves.iter().for_each(|slave| self.below_block(slave, depth + 1, disks));
            return;
        }
        if let Ok(file) = fs::read_to_string(block.join("loop/backing_file")) {
            let place = self.place_at(Path::new(file.trim_end()), depth + 1);
            disks.extend(place.into_iter().flat_map(|place| place.disks));
            return;
        }
        let disk = if block.join("partition").exists() { block.parent() } else { Some(block) };
        let name = disk.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        disks.extend(name);
    }
}

/// mountinfo writes a space as `\040`.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A machine with the disks sda (partitions 1 and 2), sdb, a volume over sda2 and sdb, and one over sdb alone.
    fn machine() -> (tempfile::TempDir, Machine) {
        let root = tempfile::tempdir().unwrap();
        let sys = root.path().join("sys");
        let devices = sys.join("devices");
        let make = |path: &str| fs::create_dir_all(devices.join(path)).unwrap();
        for path in ["sda/sda1", "sda/sda2", "sdb", "virtual/dm-0/slaves", "virtual/dm-1/slaves"] {
            make(path);
        }
        for part in ["sda/sda1", "sda/sda2"] {
            fs::write(devices.join(part).join("partition"), "1").unwrap();
        }
        for (volume, part) in [("dm-0", "sda/sda2"), ("dm-0", "sdb"), ("dm-1", "sdb")] {
            let name = Path::new(part).file_name().unwrap();
            symlink(devices.join(part), devices.join("virtual").join(volume).join("slaves").join(name))
                .unwrap();
        }
        fs::create_dir_all(sys.join("dev/block")).unwrap();
        for (number, path) in [
            ("8:1", "sda/sda1"),
            ("8:2", "sda/sda2"),
            ("8:16", "sdb"),
            ("253:0", "virtual/dm-0"),
            ("253:1", "virtual/dm-1"),
        ] {
            symlink(devices.join(path), sys.join("dev/block").join(number)).unwrap();
        }
        let mounts = "30 1 0:30 / / rw - ext4 /dev/sda1 rw\n\
                      31 30 0:31 / /tank/data rw - zfs tank/pg rw\n\
                      32 30 0:32 / /tank/repo\\040two rw - zfs tank/repo rw\n\
                      33 30 0:33 / /nfs rw - nfs4 nas:/backup rw\n"
            .to_owned();
        (root, Machine { sys, mounts })
    }

    fn disks(machine: &Machine, number: &str) -> Vec<String> {
        let mut found = BTreeSet::new();
        machine.below(number, 0, &mut found);
        found.into_iter().collect()
    }

    #[test]
    fn partitions_and_volumes_lead_to_their_disks() {
        let (_root, machine) = machine();
        assert_eq!(disks(&machine, "8:1"), ["sda"]);
        assert_eq!(disks(&machine, "8:16"), ["sdb"]);
        assert_eq!(disks(&machine, "253:0"), ["sda", "sdb"]);
        assert_eq!(disks(&machine, "253:1"), ["sdb"]);
        assert_eq!(disks(&machine, "9:9"), Vec::<String>::new());
        let place =
            |device, number: &str| Place { device, disks: disks(&machine, number).into_iter().collect() };
        assert_eq!(shared(&place(1, "8:1"), &place(2, "253:0")), Some(Shared::Disk("sda".to_owned())));
        assert_eq!(shared(&place(1, "8:1"), &place(2, "8:16")), None);
        assert_eq!(shared(&place(7, "9:9"), &place(7, "9:9")), Some(Shared::FileSystem));
        assert_eq!(shared(&place(7, "9:9"), &place(8, "9:9")), None, "what is not known is not said");
    }

    #[test]
    fn what_has_no_device_is_known_by_its_source() {
        let (_root, machine) = machine();
        let of = |path: &str| {
            let (kind, source) = machine.mounted(Path::new(path)).unwrap();
            let mut found = BTreeSet::new();
            machine.of_source(&kind, &source, 0, &mut found);
            found.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(of("/tank/data/15/main"), ["pool tank"]);
        assert_eq!(of("/tank/repo two/x"), ["pool tank"]);
        assert_eq!(of("/nfs/x"), ["nas:/backup"]);
    }

    #[test]
    fn two_directories_of_one_file_system_share_it() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        let machine = Machine::this();
        let (one, other) = (
            machine.place(&root.path().join("a")).unwrap(),
            machine.place(&root.path().join("b/not/yet")).unwrap(),
        );
        assert_eq!(shared(&one, &other), Some(Shared::FileSystem));
    }
}
