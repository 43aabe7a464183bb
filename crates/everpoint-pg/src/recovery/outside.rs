//! Links and keys of a restored directory become what the server accepts.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use everpoint_core::name::to_path;
use everpoint_engine::{EngineError, RecoverySettings};

use super::failed;
use super::layout::{fact, facts, is_there, put_aside};
use super::owner::give_like_parent;
use crate::outside::{DATA_DIRECTORY, LINK, is_own_place};

/// Permissions that the server takes for a private key: of its own user's, and of root's.
const KEY_OF_USER: u32 = 0o700;
const KEY_OF_ROOT: u32 = 0o740;

/// Makes links again that stay inside of the directory, and where production is replaced also those that led out of it, if what they lead to is there; else the
/// files with their content stay. Closes private keys for everybody whom the server does not accept.
pub(super) fn settle(settings: &RecoverySettings) -> Result<(), EngineError> {
    for (path, target) in facts(settings, LINK) {
        let (place, target) = (to_path(path), to_path(target));
        if stays(settings, &place, &target) {
            continue;
        }
        match inside(settings, &place, &target) {
            // It leads to a directory that has come with the image under its own name.
            Some(relative) if fs::symlink_metadata(settings.directory.join(&place)).is_err() => {
                link(&settings.directory, path, &relative)?;
            }
            Some(_) => {}
            None if settings.keep_configuration => link(&settings.directory, path, &target)?,
            None => {}
        }
    }
    let Some(key) = fact(settings, "ssl_key_file").map(to_path) else { return Ok(()) };
    let key = key.as_path();
    let data = to_path(fact(settings, DATA_DIRECTORY).unwrap_or("/"));
    let inside = if key.is_absolute() { key.strip_prefix(data).ok() } else { Some(key) };
    close(&inside.map_or_else(|| put_aside(settings, key), |inside| settings.directory.join(inside)))
}

/// Whether production's own stays in the place of a link: unless what the link leads to says the same.
fn stays(settings: &RecoverySettings, place: &Path, target: &Path) -> bool {
    let kept = settings.kept.iter().any(|kept| place.starts_with(kept) || kept.starts_with(place));
    let here = settings.directory.join(place);
    let there = here.parent().unwrap_or(&here).join(target);
    kept && !(here.is_file()
        && fs::read(here).ok().is_some_and(|text| fs::read(there).is_ok_and(|it| it == text)))
}

/// Where a link leads that stays inside of the data directory, by a path relative to the link's own.
fn inside(settings: &RecoverySettings, place: &Path, target: &Path) -> Option<PathBuf> {
    let data = to_path(fact(settings, DATA_DIRECTORY).unwrap_or("/"));
    let named = if target.is_absolute() {
        target.strip_prefix(&data).ok()?.to_owned()
    } else {
        place.parent()?.join(target)
    };
    let mut inner = PathBuf::new();
    for part in named.components() {
        match part {
            Component::Normal(name) => inner.push(name),
            Component::CurDir => {}
            Component::ParentDir if inner.pop() => {}
            _ => return None,
        }
    }
    // Such a link would lead to itself, or to a directory above it.
    if inner.as_os_str().is_empty() || place.starts_with(&inner) || !settings.directory.join(&inner).is_dir()
    {
        return None;
    }
    let up = place.components().count().saturating_sub(1);
    Some(std::iter::repeat_n(Path::new(".."), up).chain([inner.as_path()]).collect())
}

fn link(directory: &Path, path: &str, target: &Path) -> Result<(), EngineError> {
    let name = to_path(path);
    let inside = name.components().all(|part| matches!(part, Component::Normal(_)));
    if !inside || is_own_place(path) {
        return Ok(());
    }
    let place = directory.join(name);
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
    let file = fact(settings, "hba_file").map(|file| put_aside(settings, &to_path(file)));
    let bytes = file.and_then(|file| fs::read(file).ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::configuration;

    #[test]
    fn links_come_back_where_what_they_lead_to_is_there_and_production_is_replaced() {
        let scratch = tempfile::tempdir().unwrap();
        let (data, etc) = (scratch.path().join("data"), scratch.path().join("etc"));
        for directory in [&data, &etc, &data.join("log"), &data.join("pg_wal")] {
            fs::create_dir(directory).unwrap();
        }
        fs::write(etc.join("main.conf"), "in etc").unwrap();
        for name in ["postgresql.conf", "gone.conf", "outside"] {
            fs::write(data.join(name), "content").unwrap();
        }
        let link = |path: &str, target: &Path| (format!("{LINK}{path}"), target.display().to_string());
        let facts = vec![
            link("postgresql.conf", &etc.join("main.conf")),
            link("gone.conf", &etc.join("gone.conf")),
            link("log", &etc),
            link("../outside", &etc.join("main.conf")),
            link("pg_wal", &etc),
            link("later", &etc.join("later")),
        ];
        let mut settings = configuration::tests::settings();
        settings.facts = facts;
        settings.directory.clone_from(&data);
        settle(&settings).unwrap();
        assert!(!data.join("postgresql.conf").is_symlink(), "a copy has no link out of it");
        settings.keep_configuration = true;
        for _ in 0..2 {
            settle(&settings).unwrap();
            assert_eq!(fs::read_link(data.join("postgresql.conf")).unwrap(), etc.join("main.conf"));
            assert_eq!(fs::read_to_string(data.join("gone.conf")).unwrap(), "content");
            assert!(!data.join("log").is_symlink() && !data.join("pg_wal").is_symlink());
            assert_eq!(fs::read_link(data.join("later")).unwrap(), etc.join("later"));
        }
        assert_eq!(fs::read_to_string(etc.join("main.conf")).unwrap(), "in etc");
        // What has come in the place of a link since is production's, unless it says the same.
        let conf = data.join("postgresql.conf");
        settings.kept = vec![PathBuf::from("postgresql.conf")];
        for (text, linked) in [("of now", false), ("in etc", true)] {
            fs::remove_file(&conf).unwrap();
            fs::write(&conf, text).unwrap();
            settle(&settings).unwrap();
            assert_eq!((conf.is_symlink(), fs::read_to_string(&conf).unwrap().as_str()), (linked, text));
        }
        assert!(!scratch.path().join("outside").exists());
    }

    #[test]
    fn links_that_stay_inside_come_back_in_a_copy() {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        for directory in ["certs.2", "sub/deep", "there"] {
            fs::create_dir_all(data.join(directory)).unwrap();
        }
        let fact = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut settings = configuration::tests::settings();
        settings.directory.clone_from(&data);
        settings.facts = vec![
            fact(DATA_DIRECTORY, "/srv/main"),
            fact("link certs", "certs.2"),
            fact("link sub/up", "/srv/main/sub/deep"),
            fact("link there", "certs.2"),
            fact("link loop", "."),
            fact("link out", "../elsewhere"),
            fact("link gone", "nowhere"),
        ];
        settle(&settings).unwrap();
        assert_eq!(fs::read_link(data.join("certs")).unwrap(), Path::new("certs.2"));
        assert_eq!(
            fs::canonicalize(data.join("sub/up")).unwrap(),
            fs::canonicalize(data.join("sub/deep")).unwrap()
        );
        assert!(data.join("there").symlink_metadata().unwrap().is_dir());
        for none in ["loop", "out", "gone"] {
            assert!(data.join(none).symlink_metadata().is_err(), "{none}");
        }
    }

    #[test]
    fn a_key_is_closed_and_never_opened() {
        let scratch = tempfile::tempdir().unwrap();
        let mut settings = configuration::tests::settings();
        settings.directory = scratch.path().to_owned();
        settings.facts = vec![("ssl_key_file".to_owned(), "server.key".to_owned())];
        let key = scratch.path().join("server.key");
        fs::write(&key, "").unwrap();
        std::os::unix::fs::chown(&key, Some(1), None).ok();
        let owned_by_root = fs::metadata(&key).unwrap().uid() == 0;
        for (before, after) in [(0o644, 0o600), (0o640, 0o600), (0o600, 0o600), (0o400, 0o400)] {
            fs::set_permissions(&key, fs::Permissions::from_mode(before)).unwrap();
            settle(&settings).unwrap();
            let after = if owned_by_root { before & KEY_OF_ROOT } else { after };
            assert_eq!(fs::metadata(&key).unwrap().mode() & 0o7777, after);
        }
    }
}
