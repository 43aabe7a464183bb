//! Whether an image fits, file system by file system, before its first byte is written.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use everpoint_core::FailureClass;
use everpoint_core::words::size;
use everpoint_format::manifest::{Extent, FileEntry};

use super::survey::is_written_in_place;
use crate::AppError;

/// Blocks of common file systems: files take whole ones.
const BLOCK: u64 = 4096;

/// File systems that may store less than they are given: what they hold can't be told before.
const COMPRESSING: [u32; 3] = [
    0x9123_683e, // btrfs
    0x2fc1_2fc1, // zfs
    0xca45_1a4e, // bcachefs
];

/// Bytes that go to each file system.
#[derive(Debug, Default)]
pub struct Room {
    /// Device → bytes, and a place on it.
    devices: BTreeMap<u64, (u64, PathBuf)>,
    /// Device → bytes that are removed before the first one is written.
    freed: BTreeMap<u64, u64>,
    /// Device → bytes of marks, which come before anything is removed, and a place on it.
    marks: BTreeMap<u64, (u64, PathBuf)>,
    /// Device → bytes of what goes even before these, where there is no room for them.
    spared: BTreeMap<u64, u64>,
    /// Directory → device, as far as asked.
    known: HashMap<PathBuf, Option<u64>>,
}

impl Room {
    /// Nothing is written yet, and before the first byte so many bytes are removed from each device.
    pub fn after(freed: &BTreeMap<u64, u64>) -> Self {
        Self { freed: freed.clone(), ..Self::default() }
    }

    /// Counts a file of the image that goes to `path`, where a delta keeps what is there.
    pub fn file(&mut self, path: &Path, entry: &FileEntry, delta: bool) {
        let stored: u64 = entry
            .extents
            .iter()
            .map(|extent| match extent {
                Extent::Zero { .. } => 0,
                Extent::Stored { length, .. } => u64::from(*length),
            })
            .sum();
        let there = if delta { reused(path) } else { 0 };
        self.bytes(path, stored.next_multiple_of(BLOCK).saturating_sub(there));
        // What lies behind its end goes before anything is written.
        let behind = there.saturating_sub(entry.size.next_multiple_of(BLOCK));
        if behind > 0
            && is_written_in_place(path)
            && let Some(device) = self.device(path)
        {
            add(self.freed.entry(device).or_default(), behind);
        }
    }

    /// Counts bytes that go to a path.
    pub fn bytes(&mut self, path: &Path, bytes: u64) {
        if let Some(device) = self.device(path) {
            let directory = path.parent().unwrap_or(path).to_owned();
            add(&mut self.devices.entry(device).or_insert((0, directory)).0, bytes);
        }
    }

    /// Counts the mark of a place.
    pub fn mark(&mut self, place: &Path) {
        if let Some(device) = device(place) {
            add(&mut self.marks.entry(device).or_insert_with(|| (0, place.to_owned())).0, BLOCK);
        }
    }

    /// Counts a file that goes where there is no room for a mark.
    pub fn spare(&mut self, path: &Path) {
        if let Some(device) = self.device(path) {
            add(self.spared.entry(device).or_default(), reused(path));
        }
    }

    fn device(&mut self, path: &Path) -> Option<u64> {
        let directory = path.parent().unwrap_or(path);
        if let Some(known) = self.known.get(directory) {
            return *known;
        }
        let found = device(directory);
        self.known.insert(directory.to_owned(), found);
        found
    }

    /// Refuses what does not fit; returns what to warn of.
    ///
    /// # Errors
    /// `restore.no_room`, which names the file system. Nothing was written.
    pub fn check(&self) -> Result<Vec<String>, AppError> {
        for (device, (bytes, place)) in &self.marks {
            let spared = self.spared.get(device).copied().unwrap_or_default();
            let Some((free, there)) = free(place) else { continue };
            if *bytes > free.saturating_add(spared) && !compresses(there) {
                let message = format!(
                    "a restore marks a place before it removes anything, and {} are free on the file system of {}",
                    size(free),
                    there.display()
                );
                return Err(no_room(place, message));
            }
        }
        let mut warnings = Vec::new();
        for (device, (bytes, place)) in &self.devices {
            let Some((free, there)) = free(place) else { continue };
            let freed = self.freed.get(device).copied().unwrap_or_default();
            if *bytes <= free.saturating_add(freed) {
                continue;
            }
            let removed = match freed {
                0 => String::new(),
                freed => format!(" ({} more once it has removed what is not wanted)", size(freed)),
            };
            let message = format!(
                "the restore writes {} there, and {} are free on the file system of {}{removed}",
                size(*bytes),
                size(free),
                there.display()
            );
            if compresses(there) {
                warnings.push(format!("{message}; it fits only if the file system compresses it"));
                continue;
            }
            return Err(no_room(place, message));
        }
        Ok(warnings)
    }
}

fn add(to: &mut u64, bytes: u64) {
    *to = to.saturating_add(bytes);
}

fn no_room(place: &Path, message: String) -> AppError {
    let object = place.display().to_string();
    AppError::new("restore.no_room", FailureClass::Failed, "restore into", object, message)
        .hint("free some space there, or restore to another disk; nothing was written")
}

/// Free bytes of the file system of a place, and the directory there that was asked; `None`: it does not tell.
fn free(place: &Path) -> Option<(u64, &Path)> {
    let there = place.ancestors().find(|place| place.exists())?;
    let found = rustix::fs::statvfs(there).ok()?;
    // Root may use what is kept back from others.
    let blocks = if rustix::process::geteuid().is_root() { found.f_bfree } else { found.f_bavail };
    Some((blocks.saturating_mul(found.f_frsize), there))
}

fn compresses(there: &Path) -> bool {
    rustix::fs::statfs(there)
        .is_ok_and(|found| COMPRESSING.contains(&u32::try_from(found.f_type).unwrap_or_default()))
}

/// Bytes of a file that is there and will be written over: it has these blocks already. One that has other names is
/// replaced, and so are links.
fn reused(path: &Path) -> u64 {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_file() && found.nlink() == 1 => found.blocks().saturating_mul(512),
        _ => 0,
    }
}

/// Of the nearest directory that is there.
fn device(directory: &Path) -> Option<u64> {
    directory.ancestors().find_map(|place| std::fs::metadata(place).ok()).map(|found| found.dev())
}

#[cfg(test)]
mod tests {
    use everpoint_format::manifest::{FileKind, PackId};
    use everpoint_format::seal::FrameRef;

    use super::*;

    fn entry(stored: u32, zeros: u64) -> FileEntry {
        let frame = FrameRef { number: 0, offset: 0, stored: 1, raw: stored };
        FileEntry {
            path: "base/5/1".to_owned(),
            kind: FileKind::Pages,
            mode: 0o600,
            modified: 0,
            size: u64::from(stored) + zeros,
            extents: vec![
                Extent::Stored { length: stored, pack: PackId([0; 16]), frame, skip: 0 },
                Extent::Zero { length: zeros },
            ],
            content_hash: None,
            page_hashes: None,
            damaged: Vec::new(),
        }
    }

    fn needed(room: &Room) -> u64 {
        room.devices.values().map(|(bytes, _)| bytes).sum()
    }

    #[test]
    fn what_a_delta_keeps_and_holes_need_no_room() {
        let home = tempfile::tempdir().unwrap();
        let there = home.path().join("there");
        std::fs::write(&there, vec![1; 16384]).unwrap();
        let mut room = Room::default();
        room.file(&there, &entry(16384, 1 << 30), true);
        assert_eq!(needed(&room), 0);
        room.file(&there, &entry(16384, 0), false);
        assert_eq!(needed(&room), 16384);
        room.file(&home.path().join("not/yet"), &entry(100, 0), true);
        assert_eq!(needed(&room), 16384 + BLOCK);
        std::fs::hard_link(&there, home.path().join("twin")).unwrap();
        room.file(&there, &entry(16384, 0), true);
        assert_eq!(needed(&room), 2 * 16384 + BLOCK, "another name keeps the blocks");
        room.check().unwrap();
        room.bytes(&there, u64::MAX);
        let error = room.check().unwrap_err();
        assert_eq!(error.code, "restore.no_room");
    }

    #[test]
    fn what_lies_behind_the_end_of_a_file_makes_room_and_for_marks_only_what_goes_before_them() {
        let home = tempfile::tempdir().unwrap();
        let there = home.path().join("there");
        std::fs::write(&there, vec![1; 1 << 20]).unwrap();
        let device = device(home.path()).unwrap();
        let mut room = Room::default();
        room.file(&there, &entry(16384, 0), true);
        let freed = room.freed.get(&device).copied().unwrap();
        assert!(needed(&room) == 0 && freed >= (1 << 20) - 16384, "{freed}");
        std::fs::hard_link(&there, home.path().join("twin")).unwrap();
        room.file(&there, &entry(16384, 0), true);
        assert_eq!(room.freed.get(&device), Some(&freed), "another name keeps the blocks");

        room.mark(home.path());
        room.check().unwrap();
        room.marks.get_mut(&device).unwrap().0 = 1 << 60;
        room.freed.insert(device, 1 << 61);
        assert_eq!(room.check().unwrap_err().code, "restore.no_room");
        room.spared.insert(device, 1 << 60);
        room.check().unwrap();
    }

    #[test]
    fn what_is_removed_before_the_first_byte_makes_room_on_its_own_disk_only() {
        let home = tempfile::tempdir().unwrap();
        let device = device(home.path()).unwrap();
        let wanted = 1 << 50;
        let check = |freed: &[(u64, u64)]| {
            let mut room = Room::after(&freed.iter().copied().collect());
            room.bytes(&home.path().join("image"), wanted);
            room.check()
        };
        check(&[(device, wanted)]).unwrap();
        let error = check(&[(device, wanted / 2)]).unwrap_err();
        assert!(error.message.contains("512.0 TiB more once it has removed"), "{error}");
        assert_eq!(check(&[(device.wrapping_add(1), wanted)]).unwrap_err().code, "restore.no_room");
    }
}
