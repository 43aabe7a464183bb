//! Libraries without which a log can't be replayed: extensions may write records of a kind of their own (15 and later).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use everpoint_core::{FailureClass, LogOffset};
use everpoint_engine::EngineError;

use super::find_programs;
use crate::lsn::Lsn;

/// The setting as it is recorded with a backup.
const SETTING: &str = "shared_preload_libraries";

/// What a library calls to have records of its own: its name stands in the table of what the library needs.
const CALLED: &[u8] = b"RegisterCustomRmgr\0";

/// Of the libraries that production loads those that have records of their own, if the log to be replayed holds such
/// records (resource manager and start of its first one). All others stay away from a copy: one of them may run jobs.
///
/// # Errors
/// Class `Shortfall` with the way out, if a server here could not replay the log.
pub(crate) fn replay_libraries(
    programs: Option<&Path>,
    version: u32,
    records: &[(u32, LogOffset)],
    facts: &[(String, String)],
) -> Result<Vec<String>, EngineError> {
    let Some((manager, first)) = records.iter().min_by_key(|(_, first)| *first) else {
        return Ok(Vec::new());
    };
    let position = Lsn::from(*first);
    let refused = |message: String, install: &str| {
        let object =
            format!("the log from {position}, which needs resource manager {manager} of an extension");
        EngineError::new("pg.resource_manager", "replay", object, message)
            .class(FailureClass::Shortfall)
            .hint(format!("{install}, or stop before it: --to lsn:{position} --exclusive"))
    };
    let programs = find_programs(programs, version / 10_000)
        .map_err(|error| refused(error.message, "install the server and the extension here"))?;
    let Some((_, setting)) = facts.iter().find(|(name, _)| name == SETTING) else {
        let message = "the backup does not say which libraries its server loads".to_owned();
        return Err(refused(
            message,
            "have the backup role read settings (GRANT pg_read_all_settings) and take a backup",
        ));
    };
    let places = places(&programs, version / 10_000);
    let has_records = |name: &&str| places.iter().any(|place| calls(&file_of(place, name)));
    let found: Vec<String> = names(setting).into_iter().filter(has_records).map(str::to_owned).collect();
    if found.is_empty() {
        let message =
            format!("none of the libraries {setting:?} of its server that are here has such records");
        return Err(refused(message, "install the extension's package here"));
    }
    Ok(found)
}

/// The names of a list setting.
fn names(setting: &str) -> Vec<&str> {
    setting.split(',').map(|name| name.trim().trim_matches('"')).filter(|name| !name.is_empty()).collect()
}

/// Where a server looks for libraries.
fn places(programs: &Path, major: u32) -> Vec<PathBuf> {
    let asked = Command::new(programs.join("pg_config")).arg("--pkglibdir").output();
    let said = asked.ok().map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let mut places: Vec<PathBuf> = said.into_iter().filter(|place| place.is_absolute()).collect();
    // A server that was moved finds them beside its programs; pg_config may be of another version, or not installed.
    places.extend(["../lib", "../lib/postgresql"].map(|place| programs.join(place)));
    places.push(format!("/usr/lib/postgresql/{major}/lib").into());
    places
}

fn file_of(place: &Path, name: &str) -> PathBuf {
    let name = name.strip_prefix("$libdir/").unwrap_or(name);
    let file = if name.ends_with(".so") { name.to_owned() } else { format!("{name}.so") };
    place.join(file)
}

fn calls(library: &Path) -> bool {
    fs::read(library).is_ok_and(|bytes| bytes.windows(CALLED.len()).any(|part| part == CALLED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_files_are_found_as_a_server_finds_them() {
        assert_eq!(names(" pg_cron, \"my lib\" ,$libdir/x"), ["pg_cron", "my lib", "$libdir/x"]);
        assert_eq!(file_of(Path::new("/lib"), "$libdir/x"), Path::new("/lib/x.so"));
        assert_eq!(file_of(Path::new("/lib"), "/opt/x.so"), Path::new("/opt/x.so"));
    }

    #[test]
    fn a_log_without_such_records_needs_nothing() {
        assert_eq!(replay_libraries(None, 150_000, &[], &[]).unwrap(), Vec::<String>::new());
    }
}
