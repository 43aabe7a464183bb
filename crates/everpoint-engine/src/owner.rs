//! Whom a restored directory belongs to. Servers refuse to run as root, and refuse a directory that is not their user's.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use everpoint_core::FailureClass;

use crate::EngineError;

/// Names the user that runs servers when the directory belongs to root.
const USER: &str = "EVERPOINT_PG_USER";
const DEFAULT_USER: &str = "postgres";

/// Exit code of `getent` for a name that nobody knows.
const UNKNOWN: i32 = 2;

/// A user and its main group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its number.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Name of the user; empty if the system has none for it.
    pub name: String,
}

/// The user to whom the files of a restored directory belong, and as whom its server runs: its owner, or, if that is root
/// or there is no directory yet, `$EVERPOINT_PG_USER` or `postgres`. `None`: we are not root, all is done as we are.
///
/// # Errors
/// Class `Usage` if the system knows no such user: root's files would be of no use to any server.
pub fn owner_of(directory: &Path) -> Result<Option<Owner>, EngineError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let shown = directory.display().to_string();
    let refused = |message: String| EngineError::new("pg.user", "find the owner of", shown.clone(), message);
    let found = match fs::metadata(directory) {
        Ok(found) => Some(found).filter(|found| found.uid() != 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(refused("the file system refused it".to_owned()).cause(error)),
    };
    if let Some(found) = found {
        let known = look_up(&found.uid().to_string()).ok().flatten();
        let name = known.map_or(String::new(), |known| known.name);
        return Ok(Some(Owner { uid: found.uid(), gid: found.gid(), name }));
    }
    let wanted = std::env::var(USER).ok().filter(|user| !user.is_empty());
    let wanted = wanted.unwrap_or_else(|| DEFAULT_USER.to_owned());
    let known = look_up(&wanted)
        .map_err(|error| refused(format!("whether there is a user {wanted:?} can't be told")).cause(error))?;
    known.filter(|owner| owner.uid != 0).map(Some).ok_or_else(|| {
        refused(format!("servers refuse to run as root, and the system knows no other user {wanted:?}"))
            .class(FailureClass::Usage)
            .hint(format!(
                "set {USER} to an existing user, or give the directory to the user that shall run the server"
            ))
    })
}

/// What to call a user: its name, where the system knows it, else its number.
#[must_use]
pub fn user_name(uid: u32) -> String {
    let known = look_up(&uid.to_string()).ok().flatten();
    known.map_or_else(|| uid.to_string(), |known| known.name)
}

/// The user of this name or number, whatever source the system has it from (files, LDAP, ...); `None` if none knows it.
fn look_up(user: &str) -> io::Result<Option<Owner>> {
    match Command::new("getent").args(["passwd", "--", user]).output() {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).lines().find_map(parse))
        }
        Ok(output) if output.status.code() == Some(UNKNOWN) => Ok(None),
        Ok(output) => Err(io::Error::other(format!("getent passwd ended with {}", output.status))),
        // A system without it has no other source than this file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let users = fs::read_to_string("/etc/passwd")?;
            let is_wanted = |owner: &Owner| owner.name == user || owner.uid.to_string() == user;
            Ok(users.lines().filter_map(parse).find(is_wanted))
        }
        Err(error) => Err(error),
    }
}

fn parse(line: &str) -> Option<Owner> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(Owner { uid, gid, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number_and_strangers_are_not() {
        let root = look_up("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid, root.name.as_str()), (0, 0, "root"));
        assert_eq!(look_up("0").unwrap(), Some(root));
        assert_eq!(look_up("nobody-has-this-name").unwrap(), None);
        assert_eq!([user_name(0), user_name(70_007)], ["root", "70007"]);
        assert_eq!(parse("nss:x:70000:70001:from LDAP:/:/bin/sh").unwrap().gid, 70001);
        assert_eq!(parse("broken:x"), None);
    }

    #[test]
    fn a_directory_of_somebody_is_theirs() {
        let place = tempfile::tempdir().unwrap();
        if !rustix::process::geteuid().is_root() {
            assert_eq!(owner_of(place.path()).unwrap(), None);
            return;
        }
        std::os::unix::fs::chown(place.path(), Some(70000), Some(70001)).unwrap();
        let owner = owner_of(place.path()).unwrap().unwrap();
        assert_eq!((owner.uid, owner.gid, owner.name.as_str()), (70000, 70001, ""));
    }
}
