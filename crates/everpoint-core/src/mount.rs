//! Whether a file system that should be mounted is not: what is put into its bare mount point fills another disk, and is hidden
//! as soon as it is mounted again.

use std::path::{Path, PathBuf};

/// The mount points that a table of file systems (`fstab(5)`) names.
#[must_use]
pub fn wanted_mounts(fstab: &str) -> Vec<PathBuf> {
    let lines = fstab.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    paths(lines.filter_map(|line| line.split_whitespace().nth(1)))
}

/// What is mounted, as `/proc/self/mountinfo` says.
#[must_use]
pub fn mounted(mountinfo: &str) -> Vec<PathBuf> {
    paths(mountinfo.lines().filter_map(|line| line.split_whitespace().nth(4)))
}

fn paths<'a>(names: impl Iterator<Item = &'a str>) -> Vec<PathBuf> {
    names.filter(|name| name.starts_with('/')).map(|name| PathBuf::from(plain(name))).collect()
}

/// Blanks and backslashes stand in these tables as octal numbers.
fn plain(name: &str) -> String {
    let mut parts = name.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (octal, rest) = part.split_at_checked(3).unwrap_or((part, ""));
        match u8::from_str_radix(octal, 8).ok().filter(u8::is_ascii) {
            Some(byte) => text.extend([char::from(byte).to_string().as_str(), rest]),
            None => text.extend(["\\", part]),
        }
    }
    text
}

/// The mount point at or above `place` that is wanted and on which nothing is mounted, the deepest one; `None`: the file system
/// of `place` is the one that is wanted, as far as one can tell.
#[must_use]
pub fn bare<'a>(wanted: &'a [PathBuf], mounted: &[PathBuf], place: &Path) -> Option<&'a Path> {
    let above = wanted.iter().filter(|point| place.starts_with(point) && point.as_path() != Path::new("/"));
    let deepest = above.max_by_key(|point| point.components().count())?;
    let has = mounted.iter().any(|point| point.starts_with(deepest) && place.starts_with(point));
    (!has).then_some(deepest)
}

/// Whether a file may go while what is kept in a directory stays: it lies elsewhere, and on no file system of its own but that
/// of the machine, which is a container's own.
#[must_use]
pub fn goes_alone(mounted: &[PathBuf], file: &Path, directory: &Path) -> bool {
    let above = mounted.iter().filter(|point| file.starts_with(point));
    let deepest = above.max_by_key(|point| point.components().count());
    !file.starts_with(directory) && deepest.is_none_or(|point| point.as_path() == Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FSTAB: &str = "# a comment /mnt/not\n\nUUID=1 / ext4 defaults 0 1\n/dev/sdb1\t/mnt/fast  xfs noauto 0 0\n\
         UUID=2 none swap sw 0 0\n/dev/sdc /mnt/with\\040blank ext4 defaults\ntmpfs /mnt/fast/deep tmpfs rw";
    const MOUNTS: &str = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
         23 22 8:9 / /mnt/with\\040blank rw - ext4 /dev/sdc rw";

    fn found(mounts: &str, place: &str) -> Option<String> {
        let wanted = wanted_mounts(FSTAB);
        bare(&wanted, &mounted(mounts), Path::new(place)).map(|point| point.display().to_string())
    }

    #[test]
    fn a_wanted_mount_point_without_its_file_system_is_bare() {
        for place in ["/mnt/fast", "/mnt/fast/ts/a"] {
            assert_eq!(found(MOUNTS, place).as_deref(), Some("/mnt/fast"));
        }
        assert_eq!(found(MOUNTS, "/mnt/fast/deep/ts").as_deref(), Some("/mnt/fast/deep"));
        for place in ["/mnt/faster", "/mnt", "/srv/ts", "/mnt/with blank/ts", "/mnt/not/ts"] {
            assert_eq!(found(MOUNTS, place), None, "{place}");
        }
    }

    #[test]
    fn what_is_mounted_at_or_below_it_is_what_was_wanted() {
        let more = |point: &str| format!("{MOUNTS}\n24 22 8:3 / {point} rw - xfs /dev/sdb1 rw");
        assert_eq!(found(&more("/mnt/fast"), "/mnt/fast/ts"), None);
        assert_eq!(found(&more("/mnt/fast/ts"), "/mnt/fast/ts/a"), None, "another one, nearer");
        assert_eq!(found(&more("/mnt/fast/other"), "/mnt/fast/ts").as_deref(), Some("/mnt/fast"));
        assert_eq!(found("", "/srv"), None);
    }
    #[test]
    fn a_file_on_the_containers_own_disk_goes_alone() {
        let mounted: Vec<PathBuf> = ["/", "/backup", "/keys"].map(PathBuf::from).into();
        let goes = |file: &str| goes_alone(&mounted, Path::new(file), Path::new("/backup"));
        assert!(
            goes("/app/k") && goes("/backups/k") && goes_alone(&[], Path::new("/k"), Path::new("/backup"))
        );
        assert!(!goes("/backup/k") && !goes("/keys/k"));
    }
}
