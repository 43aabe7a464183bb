//! Who uses the place of a tablespace. It has no notes of a server: the links of servers that run tell, and open files.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use super::noted::same_file;
use super::processes::{is_of_postgres, program};

/// What uses a server's part (of this name) of a tablespace's place, in words; `None`: nothing that is seen. Other versions'
/// parts next door may be in use.
#[must_use]
pub fn tablespace_in_use(place: &Path, part: &str) -> Option<String> {
    let found = fs::metadata(place).ok()?;
    let directory = fs::canonicalize(place.join(part)).ok();
    let ours = std::process::id().to_string();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(number) = name.to_str().filter(|name| name.parse::<u32>().is_ok() && *name != ours) else {
            continue;
        };
        let process = entry.path();
        let program = program(&process);
        let is_server = program.as_deref().is_none_or(is_of_postgres);
        let shown =
            || format!("process {number} ({})", program.as_deref().unwrap_or("of an unknown program"));
        if is_server && let Some(link) = linking(&process, part, &found) {
            return Some(format!("{} serves a data directory whose {link} leads there", shown()));
        }
        if let Some(file) = directory.as_deref().and_then(|below| open_below(&process, below, is_server)) {
            return Some(format!("{} has {} open", shown(), file.display()));
        }
    }
    None
}

/// The link to a place, in the data directory in which a process works, of a server of the part's version.
fn linking(process: &Path, part: &str, place: &Metadata) -> Option<String> {
    let data = process.join("cwd");
    let version = fs::read_to_string(data.join("PG_VERSION")).ok()?;
    if !part.starts_with(&format!("PG_{}_", version.trim())) {
        return None;
    }
    let links = data.join("pg_tblspc");
    fs::read_dir(&links).ok()?.flatten().find_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        // In a container of its own it means another place.
        let target = match target.strip_prefix("/") {
            Ok(below) => process.join("root").join(below),
            Err(_) => links.join(target),
        };
        let leads_there = fs::metadata(target).is_ok_and(|it| same_file(&it, place));
        leads_there.then(|| format!("pg_tblspc/{}", entry.file_name().to_string_lossy()))
    })
}

/// A file below a directory that a process has open: a server in any way, others for writing.
fn open_below(process: &Path, directory: &Path, is_server: bool) -> Option<PathBuf> {
    fs::read_dir(process.join("fd")).ok()?.flatten().find_map(|entry| {
        let file = fs::read_link(entry.path()).ok().filter(|file| file.starts_with(directory))?;
        (is_server || writes(&process.join("fdinfo").join(entry.file_name()))).then_some(file)
    })
}

/// Whether the kernel's note of an open file says that it is open for writing.
fn writes(note: &Path) -> bool {
    const ACCESS: u32 = 0o3;
    let note = fs::read_to_string(note).unwrap_or_default();
    let flags = note.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).is_some_and(|it| it & ACCESS != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_writes_below_the_part_uses_it_and_one_next_door_does_not() {
        let home = tempfile::tempdir().unwrap();
        for part in ["PG_15_202209061", "PG_14_202107181"] {
            fs::create_dir(home.path().join(part)).unwrap();
        }
        assert_eq!(tablespace_in_use(home.path(), "PG_15_202209061"), None);
        let file = fs::File::create(home.path().join("PG_15_202209061/1")).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").stdout(file).spawn().unwrap();
        let used = ["PG_15_202209061", "PG_14_202107181"].map(|part| tablespace_in_use(home.path(), part));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(used[0].as_deref().is_some_and(|used| used.contains(&child.id().to_string())), "{used:?}");
        assert_eq!(used[1], None);
        assert_eq!(tablespace_in_use(home.path(), "PG_15_202209061"), None);
    }
}
