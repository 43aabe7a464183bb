//! Recovery settings come and go: they stand at the end of `postgresql.auto.conf`, and the server takes them out itself
//! when its recovery has ended. Left there they would break every standby that is cloned from it.
//!
//! PostgreSQL runs `recovery_end_command` when the signal file is gone and the new timeline is on disk, before anybody
//! can write: from then on nothing reads the settings. What the file held before lies beside, so that it comes back byte
//! for byte; where ALTER SYSTEM has written the file meanwhile, only lines that are exactly ours go.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use everpoint_engine::{EngineError, RecoverySettings};

use super::owner::give_like_parent;
use super::prepare::write;
use super::{configuration, failed, layout, limits};
use crate::outside::settings_in;

/// The file of ALTER SYSTEM is read last, whatever file the rest of the configuration is in.
pub(super) const SETTINGS: &str = "postgresql.auto.conf";

/// Holds what the end of the recovery needs, until then.
pub(crate) const DIRECTORY: &str = "everpoint-recovery";

/// An exit above 125 (the script is gone: 127) would end the server; 1 is a warning in its log. 13 cuts longer commands.
const END_COMMAND: &str = "sh everpoint-recovery/end || exit 1";

const SCRIPT: &str = include_str!("end_of_recovery.sh");

const BEGIN: &str = "# Everpoint: recovery, begin. These lines may go once the server has been promoted.";
const END: &str = "# Everpoint: recovery, end.";

/// What a recovery leaves in the data directory when the server could not tidy up itself.
const LEFT: [&str; 5] =
    [DIRECTORY, "everpoint-log", "promote", "pg_wal/everpoint-spool", "pg_wal/everpoint-fetch-error.json"];

/// Writes the recovery settings behind `before`, the text that the file shall have again afterwards; `None`: there shall
/// be no such file.
///
/// # Errors
/// If a file can't be written.
pub(super) fn append(
    settings: &RecoverySettings,
    major: u32,
    before: Option<Vec<u8>>,
) -> Result<(), EngineError> {
    let directory = settings.directory.as_path();
    let own = directory.join(DIRECTORY);
    // The way back from the settings of an earlier recovery goes after these themselves.
    if let Some(before) = &before
        && read(&directory.join(SETTINGS))?.is_some_and(|found| found != *before)
    {
        write(&directory.join(SETTINGS), before, mode_of(&directory.join(SETTINGS)))?;
    }
    remove_any(&own)?;
    fs::DirBuilder::new().mode(0o700).create(&own).map_err(|error| failed("make", &own, error))?;
    give_like_parent(&own)?;
    let lines = block(settings, major, before.as_deref().unwrap_or_default());
    let mut written = before.clone().unwrap_or_default();
    if written.last().is_some_and(|byte| *byte != b'\n') {
        written.push(b'\n');
    }
    written.extend_from_slice(lines.as_bytes());
    let conf = directory.join(SETTINGS);
    let mode = mode_of(&conf);
    if let Some(before) = &before {
        write(&own.join("before"), before, mode)?;
    }
    write(&own.join("written"), &written, 0o600)?;
    write(&own.join("lines"), lines.as_bytes(), 0o600)?;
    let unfinished: String = settings.unfinished.iter().map(|oid| format!("{oid}\n")).collect();
    write(&own.join("unfinished"), unfinished.as_bytes(), 0o600)?;
    write(&own.join("end"), SCRIPT.as_bytes(), 0o600)?;
    // The settings come last: whoever finds them finds the way back too.
    write(&conf, &written, mode)
}

pub(super) fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).map_or(0o600, |found| found.permissions().mode() & 0o777)
}

/// `before`: what the file of ALTER SYSTEM says otherwise.
fn block(settings: &RecoverySettings, major: u32, before: &[u8]) -> String {
    let mut text = format!("{BEGIN}\n{}", configuration::recovery(settings, major, END_COMMAND));
    if settings.keep_configuration {
        let mut says = layout::says(settings);
        says.extend(settings_in(before));
        for (name, value) in limits::lacking(&settings.facts, &says) {
            text.push_str(&format!("{name} = '{value}'\n"));
        }
        // Neither the limits that are lent nor a recovery from an archive go with it; the log was written with more.
        if says.get("wal_level").is_some_and(|level| level.trim().eq_ignore_ascii_case("minimal")) {
            text.push_str("wal_level = 'replica'\n");
        }
    }
    text.push_str(END);
    text.push('\n');
    text
}

/// The file of ALTER SYSTEM as it is without the settings of this or an earlier recovery; `None`: there is none.
///
/// # Errors
/// If it can't be read.
pub(super) fn without_recovery(directory: &Path) -> Result<Option<Vec<u8>>, EngineError> {
    let own = directory.join(DIRECTORY);
    let found = read(&directory.join(SETTINGS))?;
    let before = read(&own.join("before"))?;
    let text = match (found, read(&own.join("written"))?) {
        (None, _) => return Ok(None),
        // An earlier recovery's settings were taken out, and no others have come.
        (Some(found), Some(_)) if before.as_ref() == Some(&found) => return Ok(before),
        (Some(found), Some(written)) if found == written => match before {
            Some(before) => before,
            None => return Ok(None),
        },
        (Some(found), Some(_)) => {
            let lines = read(&own.join("lines"))?.unwrap_or_default();
            drop_lines(&found, &lines)
        }
        (Some(found), None) => found,
    };
    Ok(Some(drop_marked(&text)))
}

/// Tidies up after a recovery that has ended: what the server did itself is not done again. Returns whether there was
/// anything left of the settings.
///
/// # Errors
/// If a file can't be written or removed.
pub(super) fn settle(directory: &Path) -> Result<bool, EngineError> {
    let left = directory.join(DIRECTORY).exists();
    if left {
        let conf = directory.join(SETTINGS);
        let mode = mode_of(&conf);
        match without_recovery(directory)? {
            Some(text) => write(&conf, &text, mode)?,
            None => remove_any(&conf)?,
        }
        remove_unfinished(directory)?;
    }
    for name in LEFT {
        remove_any(&directory.join(name))?;
    }
    Ok(left)
}

/// Of a tablespace that was being created when replay stopped only an empty directory is there, or a link to one.
fn remove_unfinished(directory: &Path) -> Result<(), EngineError> {
    let named = read(&directory.join(DIRECTORY).join("unfinished"))?.unwrap_or_default();
    for oid in String::from_utf8_lossy(&named).lines().filter(|oid| oid.parse::<u32>().is_ok()) {
        let place = directory.join("pg_tblspc").join(oid);
        for part in fs::read_dir(&place).into_iter().flatten().flatten() {
            // What is not empty is somebody's, and stays.
            let _ = fs::remove_dir(part.path());
        }
        let _ = fs::remove_dir(&place).or_else(|_| fs::remove_file(&place));
    }
    Ok(())
}

/// `pg_ctl restart` starts a server with the arguments that it had before: of ours only the port that was asked for stays.
///
/// # Errors
/// If the file can't be written.
pub(super) fn forget_arguments(directory: &Path, port: Option<u16>) -> Result<(), EngineError> {
    let path = directory.join("postmaster.opts");
    let Some(found) = read(&path)? else { return Ok(()) };
    let text = String::from_utf8_lossy(&found);
    let Some((kept, ours)) = text.split_once(" \"-c\" \"logging_collector=off\"") else { return Ok(()) };
    let named = ours.split(" \"-c\" ").find(|setting| setting.trim_end().starts_with("\"port="));
    let port =
        named.filter(|_| port.is_some()).map_or(String::new(), |it| format!(" \"-c\" {}", it.trim_end()));
    write(&path, format!("{kept}{port}\n").as_bytes(), 0o600)
}

/// All lines of `text` but those that are exactly one of `lines`.
fn drop_lines(text: &[u8], lines: &[u8]) -> Vec<u8> {
    let ours: Vec<&[u8]> = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let kept = text.split_inclusive(|byte| *byte == b'\n');
    kept.filter(|line| !ours.contains(&line.strip_suffix(b"\n").unwrap_or(line))).collect::<Vec<_>>().concat()
}

/// All lines of `text` but those between our marks, marks included.
fn drop_marked(text: &[u8]) -> Vec<u8> {
    let (mut kept, mut inside) = (Vec::new(), false);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        inside |= bare == BEGIN.as_bytes();
        if !inside {
            kept.extend_from_slice(line);
        }
        inside &= bare != END.as_bytes();
    }
    kept
}

/// What a file holds; `None`: there is none.
///
/// # Errors
/// If it can't be read.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, EngineError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, error)),
    }
}

fn remove_any(path: &Path) -> Result<(), EngineError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::configuration::tests::settings;
    use super::*;

    /// Whatever production's file is like.
    const FILES: [&[u8]; 6] = [
        b"",
        b"work_mem = '4MB'\n",
        b"work_mem = '4MB'",
        b"# caf\xe9 (Latin-1)\r\napplication_name = 'caf\xe9'\r\n\r\n# end\r\n",
        b"restore_command = 'mine %f'\nmax_connections = '70'\n\n\n# last, without an end",
        b"\n\n",
    ];

    fn prepared(before: Option<&[u8]>) -> (tempfile::TempDir, RecoverySettings) {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("pg_wal")).unwrap();
        let mut settings = settings();
        settings.directory = place.path().to_owned();
        settings.keep_configuration = true;
        settings.facts = [("max_connections", "100"), ("max_connections", "300")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
        if let Some(before) = before {
            fs::write(place.path().join(SETTINGS), before).unwrap();
        }
        append(&settings, 15, before.map(<[u8]>::to_vec)).unwrap();
        (place, settings)
    }

    fn by_script(directory: &Path) {
        let done = Command::new("sh").arg("-c").arg(END_COMMAND).current_dir(directory).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    fn by_us(directory: &Path) {
        assert!(settle(directory).unwrap());
        assert!(!settle(directory).unwrap());
    }

    #[test]
    fn the_file_comes_back_byte_for_byte() {
        for end in [by_script, by_us] {
            for before in FILES.map(Some).into_iter().chain([None]) {
                let (place, again) = prepared(before);
                let conf = place.path().join(SETTINGS);
                assert!(
                    String::from_utf8_lossy(&fs::read(&conf).unwrap()).contains("max_connections = '300'")
                );
                fs::write(place.path().join("pg_wal/everpoint-fetch-error.json"), "{}").unwrap();
                // A second preparation finds what was there at first.
                append(&again, 15, without_recovery(place.path()).unwrap()).unwrap();
                end(place.path());
                assert_eq!(fs::read(&conf).ok().as_deref(), before);
                assert!(!place.path().join(DIRECTORY).exists());
                assert!(!place.path().join("pg_wal/everpoint-fetch-error.json").exists());
            }
        }
    }

    #[test]
    fn what_alter_system_wrote_meanwhile_stays() {
        for end in [by_script, by_us] {
            let (place, settings) = prepared(Some(b"# mine\nwork_mem = '4MB'\nx.y = 'caf\xe9'\n"));
            // It writes all settings anew, without comments.
            let mut text = b"# Do not edit this file manually!\nwork_mem = '4MB'\nx.y = 'caf\xe9'\n".to_vec();
            text.extend(
                block(&settings, 15, b"")
                    .lines()
                    .filter(|line| !line.starts_with('#'))
                    .flat_map(|line| format!("{line}\n").into_bytes()),
            );
            text.extend_from_slice(b"log_min_messages = 'debug1'\n");
            fs::write(place.path().join(SETTINGS), text).unwrap();
            end(place.path());
            let left = fs::read(place.path().join(SETTINGS)).unwrap();
            let expected: &[u8] = b"# Do not edit this file manually!\nwork_mem = '4MB'\nx.y = 'caf\xe9'\nlog_min_messages = 'debug1'\n";
            assert_eq!(left, expected, "{}", String::from_utf8_lossy(&left));
        }
    }

    #[test]
    fn before_the_end_nothing_is_touched_and_no_failure_ends_the_server() {
        let (place, _) = prepared(Some(b"a = 1\n"));
        let written = fs::read(place.path().join(SETTINGS)).unwrap();
        let run = || {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(END_COMMAND).current_dir(place.path()).output().unwrap().status.code()
        };
        fs::write(place.path().join("recovery.signal"), "").unwrap();
        assert_eq!(run(), Some(1));
        assert_eq!(fs::read(place.path().join(SETTINGS)).unwrap(), written);
        fs::remove_dir_all(place.path().join(DIRECTORY)).unwrap();
        assert_eq!(run(), Some(1));
    }

    #[test]
    fn a_restart_has_no_arguments_of_ours() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("postmaster.opts");
        let ours =
            "\"-c\" \"logging_collector=off\" \"-c\" \"log_destination=stderr\" \"-c\" \"lc_messages=C\"";
        for (port, expected) in [(None, ""), (Some(5433), " \"-c\" \"port=5433\"")] {
            fs::write(&path, format!("/bin/postgres \"-D\" \"/srv/x y\" {ours} \"-c\" \"port=5433\"\n"))
                .unwrap();
            forget_arguments(place.path(), port).unwrap();
            let left = fs::read_to_string(&path).unwrap();
            assert_eq!(left, format!("/bin/postgres \"-D\" \"/srv/x y\"{expected}\n"));
            forget_arguments(place.path(), port).unwrap();
        }
    }

    #[test]
    fn marks_of_earlier_versions_are_understood() {
        let place = tempfile::tempdir().unwrap();
        let text = format!("a = 1\r\n{BEGIN}\nrestore_command = 'x'\n{END}\nb = '\u{e9}'\n");
        fs::write(place.path().join(SETTINGS), text).unwrap();
        let found = without_recovery(place.path()).unwrap().unwrap();
        assert_eq!(found, "a = 1\r\nb = '\u{e9}'\n".as_bytes());
    }
}
