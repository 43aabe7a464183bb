//! Where the daemon keeps what it remembers.

use std::fs::File;
use std::path::{Path, PathBuf};

use everpoint_app::AppError;
use everpoint_core::FailureClass;
use everpoint_engine::beside::{self, Locked};

use crate::session::Session;

/// The directory of what the daemon remembers: that of the configuration, that of systemd, one of the user, or for a user
/// without a home one beside the configuration. It is made if missing.
///
/// # Errors
/// If it can't be made.
pub(crate) fn state_dir(session: &Session) -> Result<PathBuf, AppError> {
    let directory = state_place(session.config()?);
    beside::make_directories_for(&directory, 0o755, session.service()).map_err(|error| {
        AppError::io("make the state directory", &directory, error)
            .hint("name one that this user may write to: state_dir in [serve], or $STATE_DIRECTORY")
    })?;
    Ok(directory)
}

/// Where [`state_dir`] is, or would be made.
pub(crate) fn state_place(config: &crate::config::Config) -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    config.serve.state_dir.clone().or_else(|| set("STATE_DIRECTORY")).unwrap_or_else(|| {
        let home = || set("HOME").filter(|home| home.is_dir()).map(|home| home.join(".local/state"));
        let beside = || config.path.with_file_name(".everpoint-state");
        let base = match rustix::process::geteuid().is_root() {
            true => PathBuf::from("/var/lib/everpoint-state"),
            false => set("XDG_STATE_HOME").or_else(home).unwrap_or_else(beside),
        };
        // Two configurations of one user are two daemons.
        let name = blake3::hash(config.path.as_os_str().as_encoded_bytes()).to_hex();
        base.join("everpoint").join(name.get(..12).unwrap_or_default())
    })
}

/// Holds the state directory as long as the file is open.
pub(super) fn lock(directory: &Path) -> Result<File, AppError> {
    let path = directory.join("lock");
    let file = beside::open_or_create(&path, 0o644).map_err(|error| AppError::io("make", &path, error))?;
    match beside::lock(&file).map_err(|error| AppError::io("lock", &path, error))? {
        Locked::Ours => {}
        Locked::Theirs => {
            let object = directory.display().to_string();
            let message = "another daemon uses it";
            return Err(AppError::new("serve.running", FailureClass::Locked, "use", object, message)
                .hint("one daemon serves all clusters of a configuration"));
        }
        Locked::Unknown(error) => tracing::warn!(
            "the file system of {} has no locks ({error}): nothing keeps a second daemon from starting there; name \
             another place with state_dir in [serve]",
            directory.display()
        ),
    }
    Ok(file)
}

/// Whether the daemon of a configuration runs on this machine, as far as that can be seen from here: another user's may keep
/// what it remembers elsewhere.
pub(crate) fn is_running(config: &crate::config::Config) -> bool {
    let lock = File::open(state_place(config).join("lock"));
    lock.is_ok_and(|lock| matches!(beside::lock(&lock), Ok(Locked::Theirs)))
}
