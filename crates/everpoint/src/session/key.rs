//! The key of a repository: where it comes from, and whether a second copy of it is known to exist.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use everpoint_app::AppError;
use everpoint_app::check::KeyPlace;
use everpoint_core::FailureClass;
use everpoint_engine::beside::{self, Hands};
use everpoint_format::keyslot::KeyText;

use crate::commands::anew;
use crate::config::secret::{self, Secret};
use crate::config::{KeySource, RepositoryConfig};

/// Holds the key of a repository whose configuration names neither file nor command.
pub(crate) const VARIABLE: &str = "EVERPOINT_KEY";

/// Reads the key; `None` if the repository has none as far as the configuration says.
///
/// # Errors
/// Class `Usage`: the source gives nothing, or something that can't be a key.
pub(crate) fn read(
    repository: &RepositoryConfig,
    warn: &mut dyn FnMut(String),
) -> Result<Option<KeyText>, AppError> {
    let secret = match &repository.key {
        KeySource::File(path) => {
            let read = from_file(path, warn);
            Some(read.map_err(|error| before_init(error, path, &repository.url))?)
        }
        KeySource::Command(command) => Some(secret::from_command("the key", command)?),
        KeySource::Environment => std::env::var(VARIABLE).ok().filter(|key| !key.is_empty()).map(Secret::new),
    };
    secret.map(|secret| parse(&secret, &repository.name)).transpose()
}

fn from_file(path: &Path, warn: &mut dyn FnMut(String)) -> Result<Secret, AppError> {
    secret::from_file("the key", path, warn).map_err(|mut error| {
        let missing = path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound);
        error.hint = error.hint.or_else(|| others_beside(path).filter(|_| missing));
        error
    })
}

/// Before `init` there is neither key nor repository, and what lacks is told by what makes both.
fn before_init(error: AppError, path: &Path, url: &str) -> AppError {
    let missing = path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound);
    if error.hint.is_some() || !missing || anew::is_made(url) {
        return error;
    }
    let place = everpoint_store::shown_url(url);
    error.hint(format!(
        "nor is there a repository at {place}: if both were there before, mount their disk, and run this again; to make both: \
         everpoint init"
    ))
}

/// What lies beside a key that is missing and may be it: the one from before a rotation, or a copy.
pub(crate) fn others_beside(path: &Path) -> Option<String> {
    let (name, marker) = (path.file_name()?.as_encoded_bytes(), marker(path));
    let found = std::fs::read_dir(beside::directory_of(path)).ok()?.filter_map(Result::ok);
    let mut others: Vec<String> = found
        .map(|entry| entry.path())
        .filter(|other| {
            let of = other.file_name().unwrap_or_default().as_encoded_bytes();
            of.len() > name.len() && of.starts_with(name) && other.file_name() != marker.file_name()
        })
        .map(|other| other.display().to_string())
        .collect();
    others.sort();
    let all = others.join(", ");
    (!others.is_empty())
        .then(|| format!("beside it lies {all}: look whether that is the key, and copy it back if so"))
}

fn parse(secret: &Secret, repository: &str) -> Result<KeyText, AppError> {
    KeyText::parse(secret.expose()).map_err(|error| {
        AppError::new("key.invalid", FailureClass::Usage, "use the key of", repository, error.to_string())
            .hint("a key begins with everpoint-key-1-; a passphrase has at least 12 characters")
    })
}

/// A new random key.
///
/// # Errors
/// If the system gives no random bytes.
pub(crate) fn generate() -> Result<KeyText, AppError> {
    let mut random = [0_u8; 32];
    let mut filled = 0;
    while let Some(rest) = random.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let got = rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()).map_err(|error| {
            AppError::new("io", FailureClass::Failed, "make", "a new key", "the system gives no random bytes")
                .cause(std::io::Error::from(error))
        })?;
        filled += got;
    }
    Ok(KeyText::generate(random))
}

/// Writes a secret into a new file that only its owner can read, durably. A file that is there is never overwritten. Made by
/// root, it belongs to whom its directory belongs, or in one of root to `service`: to whom the repository belongs.
///
/// # Errors
/// If it exists or can't be written.
pub(crate) fn write_new(path: &Path, text: &str, service: Option<Hands>) -> Result<(), AppError> {
    let wrap = |error| AppError::io("write", path, error);
    let directory = beside::directory_of(path);
    beside::make_directories_for(&directory, 0o755, service).map_err(wrap)?;
    let mut file = beside::create_new(path, 0o600).map_err(wrap)?;
    beside::give_for(&file, &directory, service).map_err(wrap)?;
    writeln!(file, "{text}").map_err(wrap)?;
    file.sync_all().map_err(wrap)?;
    sync_parent(path)
}

/// Makes the name of a file durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), AppError> {
    let parent = beside::directory_of(path);
    beside::sync_directory(&parent).map_err(|error| AppError::io("make durable", &parent, error))
}

/// To whom a repository in a directory belongs: its service has to read all that is made for it.
pub(crate) fn service(repository: &RepositoryConfig) -> Option<Hands> {
    let place = repository.url.strip_prefix("file://").unwrap_or(&repository.url);
    let place = Some(Path::new(place)).filter(|place| place.is_absolute())?;
    // The directory may be a mount point, which belongs to somebody else.
    Hands::of(&place.join("config")).or_else(|| Hands::of(place))
}

/// Where the key lies, for `check`.
pub(crate) fn place(repository: &RepositoryConfig, encrypted: bool) -> KeyPlace {
    if !encrypted {
        return KeyPlace::None;
    }
    match &repository.key {
        KeySource::Command(_) | KeySource::Environment => KeyPlace::Managed,
        KeySource::File(path) if is_confirmed(path) => KeyPlace::Confirmed,
        KeySource::File(path) => KeyPlace::OnlyHere(path.clone()),
    }
}

/// The file beside a key that says that a second copy of it exists. It names the key by a fingerprint, so that a new
/// key is asked for again.
fn marker(key_file: &Path) -> PathBuf {
    let mut name = key_file.file_name().unwrap_or_default().to_owned();
    name.push(".stored-elsewhere");
    key_file.with_file_name(name)
}

fn fingerprint(key_file: &Path) -> Option<String> {
    let key = secret::from_file("the key", key_file, &mut |_| {}).ok()?;
    // Under a context of its own the hash says nothing of the keys that are derived from the text.
    let hash = blake3::derive_key("everpoint 2026 fingerprint of a key in a file", key.expose().as_bytes());
    Some(hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

fn is_confirmed(key_file: &Path) -> bool {
    let noted = std::fs::read_to_string(marker(key_file)).unwrap_or_default();
    fingerprint(key_file).is_some_and(|wanted| noted.trim() == wanted)
}

/// Notes that a second copy of the key exists.
///
/// # Errors
/// If the key can't be read, or the note not be written.
pub(crate) fn confirm(key_file: &Path) -> Result<(), AppError> {
    let wanted = fingerprint(key_file).ok_or_else(|| {
        let object = key_file.display().to_string();
        AppError::new(
            "config.secret",
            FailureClass::Usage,
            "read the key from",
            object,
            "there is no key in it",
        )
    })?;
    let path = marker(key_file);
    let write = || {
        let mut note = beside::open_or_create(&path, 0o644)?;
        if let Some(of_key) = Hands::of(key_file) {
            beside::give_for(&note, &beside::directory_of(&path), Some(of_key))?;
        }
        note.set_len(0)?;
        note.write_all(format!("{wanted}\n").as_bytes())
    };
    write().map_err(|error| AppError::io("write", &path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_that_is_missing_is_looked_for_beside() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("local.key");
        let hint = || from_file(&file, &mut |_| {}).unwrap_err().hint;
        for other in ["local.key.stored-elsewhere", "local", "other.key"] {
            std::fs::write(directory.path().join(other), "x").unwrap();
        }
        assert_eq!(hint(), None);
        std::fs::write(directory.path().join("local.key.old"), "x").unwrap();
        assert!(hint().unwrap().contains("local.key.old: look whether"));
        std::fs::write(&file, "\n").unwrap();
        assert_eq!(hint(), None, "it is there, and empty");
    }

    #[test]
    fn a_confirmation_holds_for_one_key_only() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        let repository = RepositoryConfig {
            name: "local".into(),
            url: "/x".into(),
            key: KeySource::File(file.clone()),
            retention: crate::config::Retention::default(),
        };
        write_new(&file, "a passphrase of mine", None).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(write_new(&file, "other", None).is_err(), "a key must never be overwritten");
        assert_eq!(place(&repository, true), KeyPlace::OnlyHere(file.clone()));
        confirm(&file).unwrap();
        assert_eq!(place(&repository, true), KeyPlace::Confirmed);
        std::fs::write(&file, "another passphrase").unwrap();
        assert_eq!(place(&repository, true), KeyPlace::OnlyHere(file));
        assert_eq!(place(&repository, false), KeyPlace::None);
    }
}
