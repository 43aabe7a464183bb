//! Makes a restored directory ready to recover.

use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use everpoint_engine::{EngineError, RecoverySettings};

use super::configuration::{self, MARK};
use super::copy::{with_setting, without_setting};
use super::ending::SETTINGS;
use super::owner::give_like_parent;
use super::{ending, failed, major_version, outside};
use crate::control::{CONTROL_FILE, Control};
use crate::files::SOCKET;

/// Production's files are kept under their name and this.
const KEPT: &str = "production";

/// What the old server left behind, what would make a standby of the new one, and the list from which a server makes its
/// links to tablespaces anew: it names production's directories, while the links that are there lead where they should.
const REMOVED: [&str; 5] =
    ["postmaster.pid", "postmaster.opts", "standby.signal", "promote", "tablespace_map"];

/// Makes a restored directory ready to recover: links of tablespaces to come, no slots, recovery settings; unless the
/// production's own configuration is to be kept, generated configuration that can't touch production, production's
/// files beside it with `.production` at the end of their names.
///
/// Doing it again is harmless.
///
/// # Errors
/// If a file can't be written, or the directory is no data directory.
pub fn prepare_recovery(settings: &RecoverySettings) -> Result<(), EngineError> {
    let directory = settings.directory.as_path();
    let major = major_version(directory)?;
    for name in REMOVED {
        remove(&directory.join(name))?;
    }
    remove_locks(directory)?;
    empty(&directory.join("pg_replslot"))?;
    outside::settle(settings)?;
    for (oid, place) in &settings.links {
        link(directory, *oid, place)?;
    }
    if settings.keep_configuration {
        // The image may be one of a copy.
        let before = ending::without_recovery(directory)?.map(|text| without_setting(&text));
        ending::append(settings, major, before)?;
    } else {
        generate(settings, major)?;
    }
    write(&directory.join("recovery.signal"), b"", 0o600)?;
    fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| failed("make durable", directory, error))
}

fn remove(path: &Path) -> Result<(), EngineError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

/// Of sockets in the directory, which older images hold: a process that has the old server's number would keep this one from
/// starting.
fn remove_locks(directory: &Path) -> Result<(), EngineError> {
    let entries = fs::read_dir(directory).map_err(|error| failed("list", directory, error))?;
    for entry in entries {
        let path = entry.map_err(|error| failed("list", directory, error))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        if name.starts_with(SOCKET) && name.ends_with(".lock") {
            remove(&path)?;
        }
    }
    Ok(())
}

fn empty(directory: &Path) -> Result<(), EngineError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("empty", directory, error)),
    };
    for entry in entries {
        let path = entry.map_err(|error| failed("empty", directory, error))?.path();
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path).map_err(|error| failed("remove", &path, error))?;
        } else {
            remove(&path)?;
        }
    }
    Ok(())
}

/// A tablespace that replay will create: the link is there before, so that its files land at the chosen place.
fn link(directory: &Path, oid: u32, place: &Path) -> Result<(), EngineError> {
    if !place.is_dir() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(place)
            .map_err(|error| failed("make the directory", place, error))?;
        give_like(place, directory)?;
    }
    let link = directory.join(format!("pg_tblspc/{oid}"));
    if fs::read_link(&link).is_ok_and(|target| target == place) {
        return Ok(());
    }
    symlink(place, &link).map_err(|error| failed("link", &link, error))?;
    give_like_parent(&link)
}

/// Gives one directory to the owner of another, if we may.
fn give_like(path: &Path, example: &Path) -> Result<(), EngineError> {
    use std::os::unix::fs::MetadataExt as _;
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let metadata = fs::metadata(example).map_err(|error| failed("look at", example, error))?;
    std::os::unix::fs::chown(path, Some(metadata.uid()), Some(metadata.gid()))
        .map_err(|error| failed("change the owner of", path, error))
}

fn read(path: &Path) -> Result<String, EngineError> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(failed("read", path, error)),
    }
}

/// Writes a file whole: under another name first, so that a crash leaves the old or the new one.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), EngineError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".everpoint-new");
    let new = Path::new(&name);
    let fail = |error| failed("write", path, error);
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(new).map_err(fail)?;
    file.write_all(content).map_err(fail)?;
    // Set, not asked for: the caller's umask has no say.
    file.set_permissions(fs::Permissions::from_mode(mode)).and_then(|()| file.sync_all()).map_err(fail)?;
    give_like_parent(new)?;
    fs::rename(new, path).map_err(fail)
}

/// Where a file of production's is kept.
pub(super) fn aside(path: &Path) -> PathBuf {
    let mut kept = path.as_os_str().to_owned();
    kept.push(".");
    kept.push(KEPT);
    PathBuf::from(kept)
}

/// Puts a file of production's aside, unless the file at its place is one of ours; returns production's text.
fn put_aside(path: &Path) -> Result<String, EngineError> {
    let kept = aside(path);
    let text = read(path)?;
    if text.starts_with(MARK) || !path.exists() {
        return read(&kept);
    }
    fs::rename(path, &kept).map_err(|error| failed("put aside", path, error))?;
    Ok(text)
}

fn generate(settings: &RecoverySettings, major: u32) -> Result<(), EngineError> {
    let directory = settings.directory.as_path();
    let control = fs::read(directory.join(CONTROL_FILE)).ok().and_then(|bytes| Control::parse(&bytes).ok());
    let text = configuration::copy(settings, major, control.as_ref(), free_port());
    let inside = put_aside(&directory.join("pg_hba.conf"))?;
    let access = if inside.is_empty() { outside::access(settings) } else { inside };
    for name in ["postgresql.conf", SETTINGS, "pg_ident.conf"] {
        put_aside(&directory.join(name))?;
    }
    let mark = format!("{MARK}\n").into_bytes();
    let mut own = mark.clone();
    if let Some(of) = &settings.copy_of {
        own.extend(with_setting(b"", of));
        // Also when production's configuration is put back: until `adopt` it is a copy.
        let kept = aside(&directory.join(SETTINGS));
        if let Some(found) = ending::read(&kept)? {
            write(&kept, &with_setting(&found, of), ending::mode_of(&kept))?;
        }
    }
    write(&directory.join("postgresql.conf"), text.as_bytes(), 0o600)?;
    write(&directory.join("pg_hba.conf"), configuration::access(&access).as_bytes(), 0o600)?;
    write(&directory.join("pg_ident.conf"), &mark, 0o600)?;
    ending::append(settings, major, Some(own))
}

/// A port that is free now.
fn free_port() -> u16 {
    // Without the loopback interface there is nothing to choose from: PostgreSQL's own default then.
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map_or(5432, |address| address.port())
}
