//! `key`: rotation, and the promise that a second copy exists.

use std::path::{Path, PathBuf};

use everpoint_app::AppError;
use everpoint_app::key::{RotateReport, age_identity, rotate};
use everpoint_core::FailureClass;
use everpoint_engine::beside;
use serde_json::json;

use crate::cli::{Key, KeyAge, KeyConfirm, KeyRotate};
use crate::config::{KeySource, RepositoryConfig};
use crate::render::Done;
use crate::session::{Session, by_hand, key};

pub(crate) fn run(session: &Session, command: &Key) -> Result<Done, AppError> {
    match command {
        Key::Rotate(arguments) => rotation(session, arguments),
        Key::Confirm(arguments) => confirmation(session, arguments),
        Key::Age(arguments) => age(session, arguments),
    }
}

/// On an empty host the key file is all that there is: then no repository is asked for.
fn age(session: &Session, arguments: &KeyAge) -> Result<Done, AppError> {
    let config = match (&session.global.key_file, &arguments.repository, &session.global.repo) {
        (Some(file), None, None) => {
            RepositoryConfig { key: KeySource::File(file.clone()), ..by_hand("the key file") }
        }
        _ => session.repository_config(arguments.repository.as_deref())?,
    };
    let key = key::read(&config, &mut |warning| session.warn(&warning))?;
    let key = key.ok_or_else(|| not_encrypted("make the age identity of", &config))?;
    let (identity, recipient) = age_identity(&key)?;
    if arguments.recipient {
        return Ok(Done::new(&json!({"recipient": recipient}), format!("{recipient}\n")));
    }
    let text = format!("# public key: {recipient}\n{}\n", identity.reveal());
    Ok(Done::new(&json!({"recipient": recipient, "identity": identity.reveal()}), text))
}

fn confirmation(session: &Session, arguments: &KeyConfirm) -> Result<Done, AppError> {
    let repository = session.repository_config(arguments.repository.as_deref())?;
    let KeySource::File(path) = &repository.key else {
        return Err(no_file(&repository)
            .hint("a key that comes from a command or the environment needs no confirmation"));
    };
    key::confirm(path)?;
    let text = format!("noted: the key in {} is stored in a second place", path.display());
    Ok(Done::new(&json!({"repository": repository.name, "confirmed": true}), text))
}

fn no_file(repository: &RepositoryConfig) -> AppError {
    let message = "its key does not come from a file";
    AppError::new(
        "key.no_file",
        FailureClass::Usage,
        "find the key file of",
        repository.name.clone(),
        message,
    )
}

fn rotation(session: &Session, arguments: &KeyRotate) -> Result<Done, AppError> {
    let config = session.repository_config(arguments.repository.as_deref())?;
    let destination = match (&arguments.new_key_file, &config.key) {
        (Some(path), _) => path.clone(),
        (None, KeySource::File(path)) => path.clone(),
        (None, _) => return Err(no_file(&config).hint("say where the new key goes: --new-key-file FILE")),
    };
    let repository = session.open(&config)?;
    let old = key::read(&config, &mut |_| {})?.ok_or_else(|| not_encrypted("rotate the key of", &config))?;
    let new = key::generate()?;
    let waiting = beside(&destination, "new");
    key::write_new(&waiting, &new.reveal(), key::service(&config))?;
    keep_owner(&waiting, &destination)?;
    let mut kept = None;
    let done = rotate(&repository, &old, &new, arguments.keep_old, &mut || {
        kept = put_in_place(&waiting, &destination)?;
        Ok(())
    });
    let report = done.map_err(|error| match error.hint {
        None if waiting.exists() => {
            error.hint(format!("the old key still works; remove {} before you try again", waiting.display()))
        }
        _ => error,
    })?;
    Ok(Done::new(&report, text(&report, &destination, kept.as_deref(), arguments)))
}

fn not_encrypted(operation: &str, config: &RepositoryConfig) -> AppError {
    AppError::new(
        "key.not_encrypted",
        FailureClass::Usage,
        operation,
        config.name.clone(),
        "it is not encrypted",
    )
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

/// Whoever could read the old key has to read the new one.
fn keep_owner(waiting: &Path, destination: &Path) -> Result<(), AppError> {
    let Ok(before) = std::fs::metadata(destination) else { return Ok(()) };
    let kept = std::fs::File::open(waiting).and_then(|made| beside::keep(&made, &before));
    kept.map_err(|error| {
        // Nothing was changed yet.
        let _ = std::fs::remove_file(waiting);
        AppError::io("keep the owner of", destination, error)
            .hint("run it as root, or as the user to whom the key file belongs")
    })
}

/// The key that was there before is kept beside it, see [`place_of_old`]; returns where.
fn put_in_place(waiting: &Path, destination: &Path) -> Result<Option<PathBuf>, AppError> {
    let old = destination.exists().then(|| place_of_old(destination));
    if let Some(old) = &old {
        std::fs::rename(destination, old).map_err(|error| AppError::io("keep the old key as", old, error))?;
    }
    std::fs::rename(waiting, destination)
        .map_err(|error| AppError::io("put the new key into", destination, error))?;
    key::sync_parent(destination)?;
    Ok(old)
}

/// With the ending `.old`, or `.old-2` and so on: packages from before open with the old keys alone, so none is written over.
fn place_of_old(destination: &Path) -> PathBuf {
    let free = |path: &PathBuf| std::fs::symlink_metadata(path).is_err();
    let later = (2_u32..).map(|number| beside(destination, &format!("old-{number}")));
    let first = beside(destination, "old");
    std::iter::once(first.clone()).chain(later).find(free).unwrap_or(first)
}

fn text(report: &RotateReport, destination: &Path, old: Option<&Path>, arguments: &KeyRotate) -> String {
    let place = destination.display();
    let mut out = format!("the new key of {} is in {place}\n", report.repository);
    if arguments.keep_old {
        out.push_str("the old key still opens it\n");
    } else {
        out.push_str("the old key no longer opens it\n");
    }
    if let Some(old) = old {
        out.push_str(&format!(
            "the old key is in {}: packages from before open with it alone, keep it and its copies as long as those\n",
            old.display()
        ));
    }
    if arguments.new_key_file.is_some() {
        out.push_str(&format!("write into the configuration: key_file = \"{place}\"\n"));
    }
    out.push_str("store the new key in a second place, then run: everpoint key confirm\n");
    out
}
