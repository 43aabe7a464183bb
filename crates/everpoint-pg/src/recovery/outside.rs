//! Links and keys of a restored directory become what the server accepts.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use everpoint_engine::{EngineError, RecoverySettings};

use super::failed;
use super::layout::{fact, facts, is_there, put_aside};
use super::owner::give_like_parent;
use crate::outside::{DATA_DIRECTORY, LINK, is_own_place};

/// Permissions that the server takes for a private key: of its own user's, and of root's.
const KEY_OF_USER: u32 = 0o700;
const KEY_OF_ROOT: u32 = 0o740;

/// Where production is replaced, makes links again that led out of the directory, if what they lead to is there; else the
/// files with their content stay. Closes private keys for everybody whom the server does not accept.
pub(super) fn settle(settings: &RecoverySettings) -> Result<(), EngineError> {
    if settings.keep_configuration {
        for (path, target) in facts(settings, LINK) {
            link(&settings.directory, path, target)?;
        }
    }
    let Some(key) = fact(settings, "ssl_key_file").map(Path::new) else { return Ok(()) };
    let data = fact(settings, DATA_DIRECTORY).unwrap_or("/");
    let inside = if key.is_absolute() { key.strip_prefix(data).ok() } else { Some(key) };
    close(&inside.map_or_else(|| put_aside(settings, key), |inside| settings.directory.join(inside)))
}

fn link(directory: &Path, path: &str, target: &str) -> Result<(), EngineError> {
    let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if !inside || is_own_place(path) {
        return Ok(());
    }
    let place = directory.join(path);
    let Some(parent) = place.parent().filter(|parent| parent.is_dir()) else { return Ok(()) };
    let here = fs::symlink_metadata(&place).ok();
    let leads = is_there(&parent.join(target));
    // A directory with content of its own is never given up for a link.
    if here.as_ref().is_some_and(|here| here.is_dir() || here.is_symlink()) || !leads && here.is_some() {
        return Ok(());
    }
    let mut name = place.clone().into_os_string();
    name.push(".everpoint-new");
    let new = PathBuf::from(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &new, error)),
        _ => {}
    }
    symlink(target, &new).map_err(|error| failed("link", &new, error))?;
    give_like_parent(&new)?;
    fs::rename(&new, &place).map_err(|error| failed("link", &place, error))
}

fn close(key: &Path) -> Result<(), EngineError> {
    let Ok(found) = fs::symlink_metadata(key) else { return Ok(()) };
    let mode = found.mode() & 0o7777;
    let closed = mode & if found.uid() == 0 { KEY_OF_ROOT } else { KEY_OF_USER };
    if !found.is_file() || closed == mode {
        return Ok(());
    }
    fs::set_permissions(key, fs::Permissions::from_mode(closed))
        .map_err(|error| failed("set the permissions of", key, error))
}

/// Production's access rules, if they came from outside of its directory.
pub(super) fn access(settings: &RecoverySettings) -> String {
    let file = fact(settings, "hba_file").map(|file| put_aside(settings, Path::new(file)));
    let bytes = file.and_then(|file| fs::read(file).ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
