//! `init`: makes a repository; again is harmless.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use everpoint_core::anew::{Trace, forbids};
use everpoint_core::{FailureClass, shell};
use everpoint_format::keyslot::KeyText;
use everpoint_repo::Repository;
use everpoint_store::Store;
use serde::Serialize;

use crate::AppError;
use crate::restore::mounts::{Mounts, not_mounted};

/// The error of a place where a repository was before.
pub const WAS_THERE: &str = "repo.was_there";

/// What is there now.
#[derive(Debug, Clone, Serialize)]
pub struct InitReport {
    /// Where it is.
    pub repository: String,
    /// Its id, in hex.
    pub id: String,
    /// It was made now; else it was there already.
    pub created: bool,
    /// Its contents are encrypted.
    pub encrypted: bool,
    /// Bytes free there, if the store can tell.
    pub free_bytes: Option<u64>,
}

/// Makes the repository in `store`, encrypted if there is a key, unless it is there already.
///
/// # Errors
/// If the store can't be written, or holds a repository that the key does not open.
pub fn run(store: Arc<dyn Store>, key: Option<&KeyText>) -> Result<(Repository, InitReport), AppError> {
    let existed =
        store.head("config").map_err(|error| store_error("look into", &store.describe(), error))?.is_some();
    let repository = Repository::create(Arc::clone(&store), key)?;
    let report = InitReport {
        repository: store.describe(),
        id: repository.id().to_string(),
        created: !existed,
        encrypted: repository.is_encrypted(),
        // Not knowing how much is free is no reason to fail; `check` says it.
        free_bytes: store.space().ok().flatten().map(|space| space.free),
    };
    Ok((repository, report))
}

/// The mount point at or above a place that should have a file system, by this machine's table, and has none.
#[must_use]
pub fn unmounted(place: &Path) -> Option<PathBuf> {
    Mounts::read().bare(place).map(Path::to_owned)
}

/// Refuses to make a repository at `place` if something tells of one that was there before; `by_word`: the operator wants a
/// new one, `word`: the command that says so.
///
/// # Errors
/// [`WAS_THERE`].
pub fn refuse_anew(
    place: &str,
    traces: impl IntoIterator<Item = Trace>,
    by_word: bool,
    word: &str,
) -> Result<(), AppError> {
    let Some(trace) = forbids(traces, by_word) else { return Ok(()) };
    let (message, hint) = match trace {
        Trace::Unmounted(point) => {
            let hint = format!(
                "nothing was written; mount it, then run the same command again: what is put there now is hidden by the next \
                 mount. If nothing shall be mounted there any more, take its line out of /etc/fstab ({})",
                shell::path(&point)
            );
            return Err(was_there(place, not_mounted(&point), hint));
        }
        Trace::Held { cluster, slot, by } => {
            let (message, hint) = crate::held::told(&cluster, &slot, &by);
            let hint = format!(
                "nothing was written; {hint}. Where the other one is to be given up, and a new one wanted here: {word}"
            );
            return Err(was_there(place, message, hint));
        }
        Trace::Served { cluster } => (
            format!(
                "there is none, but the daemon of this configuration has read backups of {cluster} there"
            ),
            "the log",
        ),
        Trace::Slot { cluster, slot } => (
            format!(
                "there is none, but the server of {cluster} keeps its log by the slot {slot}, as for one that was there"
            ),
            "the slot",
        ),
    };
    let hint = format!(
        "nothing was written; if its disk is away, mount it, or mend the path, and run the same command again: a new repository \
         would take {hint} over, and the old one get a gap. If it is lost, or a new one wanted for another reason: {word}"
    );
    Err(was_there(place, message, hint))
}

fn was_there(place: &str, message: String, hint: String) -> AppError {
    AppError::new(WAS_THERE, FailureClass::Usage, "make a repository at", place, message).hint(hint)
}

/// A failed call of a store, as a use-case's error.
#[must_use]
pub fn store_error(operation: &str, object: &str, error: everpoint_store::StoreError) -> AppError {
    use everpoint_store::StoreErrorKind;
    let (code, class, hint) = match error.kind {
        StoreErrorKind::NotFound => (
            "store.not_found",
            FailureClass::Usage,
            "if it was there before, mount its disk, or mend the path, and run this again; one that never was is made with: \
             everpoint init",
        ),
        StoreErrorKind::Denied => (
            "store.denied",
            FailureClass::Failed,
            "run it as a user who may read and write there, or change its owner",
        ),
        StoreErrorKind::Full => {
            ("store.full", FailureClass::Failed, "free some space there, then run it again")
        }
        StoreErrorKind::Unavailable => {
            ("store.unavailable", FailureClass::Failed, "it may pass; run it again")
        }
        StoreErrorKind::BadName | StoreErrorKind::Usage => {
            ("store.usage", FailureClass::Usage, "a repository is a directory, such as /backup/everpoint")
        }
        StoreErrorKind::Unsupported => {
            ("store.failed", FailureClass::Failed, "put the repository on another file system")
        }
        StoreErrorKind::AlreadyExists | StoreErrorKind::Other => {
            ("store.failed", FailureClass::Failed, "see the cause; the repository is unchanged")
        }
    };
    let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
    let mut made = AppError::new(code, class, operation, object, reason).hint(hint);
    made.retryable = error.retryable();
    made.cause(error)
}
