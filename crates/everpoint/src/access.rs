//! Whether another user of this machine can read something.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Bits of a mode for owner, group and others.
const READ: u32 = 0o4;
const ENTER: u32 = 0o1;

/// Whether a user, with this group alone, can read a file, or list a directory. A guess on the safe side: other groups and
/// access lists are not looked at.
pub(crate) fn readable(path: &Path, uid: u32, gid: u32) -> bool {
    let Ok(path) = path.canonicalize() else {
        return false;
    };
    let above = path.ancestors().skip(1).all(|directory| allows(directory, uid, gid, ENTER));
    let needed = if path.is_dir() { READ | ENTER } else { READ };
    above && allows(&path, uid, gid, needed)
}

fn allows(path: &Path, uid: u32, gid: u32, needed: u32) -> bool {
    let Ok(found) = std::fs::metadata(path) else {
        return false;
    };
    let shift = if found.uid() == uid {
        6
    } else if found.gid() == gid {
        3
    } else {
        0
    };
    (found.mode() >> shift) & needed == needed
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn modes_decide_for_owner_group_and_others() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("key");
        std::fs::write(&file, "x").unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let found = std::fs::metadata(&file).unwrap();
        let (uid, gid) = (found.uid(), found.gid());
        mode(home.path(), 0o755);
        mode(&file, 0o640);
        assert!(readable(&file, uid, gid + 1));
        assert!(readable(&file, uid + 1, gid));
        assert!(!readable(&file, uid + 1, gid + 1));
        mode(&file, 0o644);
        assert!(readable(&file, uid + 1, gid + 1));
        mode(home.path(), 0o700);
        assert!(!readable(&file, uid + 1, gid + 1), "the directory can't be entered");
        assert!(!readable(&home.path().join("none"), uid, gid));
    }
}
