//! Names of owners.

use std::fs;

/// `user:group` by name; numbers where this machine has no name for them.
pub(super) fn names(uid: u32, gid: u32) -> String {
    format!("{}:{}", name("/etc/passwd", uid), name("/etc/group", gid))
}

fn name(file: &str, wanted: u32) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(wanted)).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| wanted.to_string())
}
