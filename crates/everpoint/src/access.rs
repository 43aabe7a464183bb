//! Whether another user of this machine can read something.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Bits of a mode for owner, group and others.
const READ: u32 = 0o4;
const ENTER: u32 = 0o1;
const EXECUTE: u32 = 0o1;

/// Whether a user, with this group alone, can read a file, or list a directory. A guess on the safe side: other groups and
/// access lists are not looked at.
pub(crate) fn readable(path: &Path, uid: u32, gid: u32) -> bool {
    let Ok(path) = path.canonicalize() else {
        return false;
    };
    let needed = if path.is_dir() { READ | ENTER } else { READ };
    closed_above(&path, uid, gid).is_none() && allows(&path, uid, gid, needed)
}

/// Whether a user can run a program; guessed like [`readable`].
pub(crate) fn runnable(program: &Path, uid: u32, gid: u32) -> bool {
    program
        .canonicalize()
        .is_ok_and(|path| closed_above(&path, uid, gid).is_none() && allows(&path, uid, gid, EXECUTE))
}

/// The nearest existing directory above a path that a user can't enter; guessed like [`readable`].
pub(crate) fn closed_above(path: &Path, uid: u32, gid: u32) -> Option<PathBuf> {
    let nearest = path.ancestors().skip(1).find_map(|directory| directory.canonicalize().ok())?;
    nearest.ancestors().find(|directory| !allows(directory, uid, gid, ENTER)).map(Path::to_owned)
}

/// Whether a user with this group alone gets into a directory, tried in a process of theirs: access lists count too.
pub(crate) fn enters(directory: &Path, uid: u32, gid: u32) -> bool {
    let mut shell = Command::new("sh");
    shell.args(["-c", "cd -- \"$0\""]).arg(directory).current_dir("/").uid(uid).gid(gid);
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.status().is_ok_and(|status| status.success())
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
    fn who_gets_into_a_directory_is_tried() {
        let home = tempfile::tempdir().unwrap();
        let found = std::fs::metadata(home.path()).unwrap();
        // Root gets in everywhere, and so tries as somebody else.
        let (uid, gid) = if found.uid() == 0 { (1, 1) } else { (found.uid(), found.gid()) };
        for (mode, gets_in) in [(0o755, true), (0o000, false)] {
            std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(enters(home.path(), uid, gid), gets_in, "{mode:o}");
        }
    }

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
        assert!(!runnable(&file, uid, gid));
        mode(&file, 0o755);
        assert!(runnable(&file, uid + 1, gid + 1));
        assert_eq!(closed_above(&home.path().join("not/yet"), uid + 1, gid + 1), None);
        mode(home.path(), 0o700);
        assert!(!readable(&file, uid + 1, gid + 1), "the directory can't be entered");
        assert!(!runnable(&file, uid + 1, gid + 1), "the directory can't be entered");
        let closed = home.path().canonicalize().unwrap();
        assert_eq!(closed_above(&home.path().join("not/yet"), uid + 1, gid + 1), Some(closed));
        assert!(!readable(&home.path().join("none"), uid, gid));
    }
}
