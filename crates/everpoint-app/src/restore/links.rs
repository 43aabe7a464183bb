//! Where the links of a data directory lead.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use everpoint_core::shell;

use super::mark::same_place;
use super::spaces::real;

/// Tablespaces that are directories, as in a copy that became production.
pub(super) fn directories(root: &Path) -> BTreeSet<u32> {
    let entries = fs::read_dir(root.join("pg_tblspc")).into_iter().flatten().flatten();
    let found = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    found.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Links to tablespaces and where they lead, those into the directory itself by its own name.
pub(super) fn links(root: &Path) -> BTreeMap<u32, PathBuf> {
    let links = root.join("pg_tblspc");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(&links).into_iter().flatten().flatten() {
        let oid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let (Some(oid), Ok(target)) = (oid, fs::read_link(entry.path())) else { continue };
        let target = links.join(target);
        let inside = real(&target).strip_prefix(real(root)).map(|inside| root.join(inside));
        found.insert(oid, inside.unwrap_or(target));
    }
    found
}

pub(super) fn leads_to(link: &Path, place: &Path) -> bool {
    link == place || same_place(link, place)
}

/// The commands that move a data directory aside, and what its tablespaces hold: left there it would be in the way of the
/// next one. Its links go aside, too: a server that is started on it would reach the tablespaces of the next one.
pub(super) fn aside(root: &Path, part: Option<&str>) -> String {
    let places: BTreeSet<PathBuf> = links(root).into_values().collect();
    let outside = places.iter().filter(|place| !place.starts_with(root));
    let parts = outside.filter_map(|place| part.map(|part| (place, part)));
    let mut commands: Vec<String> = parts
        .filter(|(place, part)| place.join(part).exists())
        .map(|(place, part)| part_aside(place, part))
        .collect();
    if !commands.is_empty() {
        commands.push(moved_aside(&root.join("pg_tblspc")));
    }
    commands.push(moved_aside(root));
    commands.join(" && ")
}

/// The command that moves a server's part of a tablespace's place aside.
pub(super) fn part_aside(place: &Path, part: &str) -> String {
    moved_aside(&place.join(part))
}

fn moved_aside(path: &Path) -> String {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".aside");
    format!("mv {} {}", shell::path(path), shell::path(Path::new(&aside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_aside_is_typed_as_it_is_said() {
        let scratch = tempfile::tempdir().unwrap();
        let (root, place) = (scratch.path().join("it's a data"), scratch.path().join("fast disk"));
        fs::create_dir_all(root.join("pg_tblspc")).unwrap();
        fs::create_dir_all(place.join("PG_15_1")).unwrap();
        std::os::unix::fs::symlink(&place, root.join("pg_tblspc/7")).unwrap();
        let commands = aside(&root, Some("PG_15_1"));
        assert!(std::process::Command::new("sh").args(["-c", &commands]).status().unwrap().success());
        let aside = scratch.path().join("it's a data.aside");
        assert!(
            !root.exists()
                && aside.join("pg_tblspc.aside/7").is_symlink()
                && !aside.join("pg_tblspc").exists()
        );
        assert!(place.join("PG_15_1.aside").is_dir() && !place.join("PG_15_1").exists());
    }
}
