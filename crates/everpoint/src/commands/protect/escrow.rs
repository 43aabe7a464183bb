//! A second copy of the key of a repository that was just made.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;

use everpoint_app::AppError;
use everpoint_core::mount;
use everpoint_engine::beside;

use crate::cli::Protect;
use crate::config::secret;
use crate::render::note;
use crate::session::{Session, key};

/// `RESTORE.md` of a package asks for it, and only Everpoint can make it out of the key.
pub(super) const AGE_TOO: &str =
    "Keep with the key what `everpoint key age` prints: it opens packages where there is no Everpoint";

/// A key that lies only beside its repository dies with it. Nobody is made to wait: where there is nobody to ask,
/// `check` goes on asking.
///
/// # Errors
/// If the key can't be read, or its copy not written.
pub(super) fn ask_for(session: &Session, arguments: &Protect, file: &Path) -> Result<(), AppError> {
    if let Some(copy) = &arguments.escrow {
        let text = secret::from_file("the key", file, &mut |_| {})?;
        let there = secret::from_file("the key", copy, &mut |_| {}).ok();
        if there.as_ref() != Some(&text) {
            key::write_new(copy, text.expose(), None)?;
        }
        session.say(&format!("a second copy of the key is in {}", copy.display()));
        noted(session, file);
        return Ok(());
    }
    if arguments.key_stored_elsewhere {
        noted(session, file);
        return Ok(());
    }
    if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() && ask(file)? {
        noted(session, file);
        return Ok(());
    }
    session.say(&format!(
        "the key is in {}: without it nothing can be restored.\n\
         Store it in a second place, then run: everpoint key confirm",
        file.display()
    ));
    Ok(())
}

/// The key of a repository below `BACKUP_DIR` lies beside the configuration: on the volume of neither, in most containers.
pub(super) fn tell_of_container(session: &Session, file: &Path, directory: &Path) {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mounted = std::fs::read("/proc/self/mountinfo")
        .map(|listed| mount::mounted(&String::from_utf8_lossy(&listed)))
        .unwrap_or_default();
    if mount::goes_alone(&mounted, &real(file), &real(directory)) {
        session.warn(&format!(
            "the key is NOT below BACKUP_DIR but in {}: in a container it goes with the container, and a new one can't open what is \
             in {}. Put {} on a volume of its own, or keep the key elsewhere and give it in EVERPOINT_KEY or with --key-file",
            file.display(),
            directory.display(),
            beside::directory_of(file).display()
        ));
    }
}

/// That a second copy exists need not be noted: nothing waits for it but a warning of `check`.
fn noted(session: &Session, file: &Path) {
    if let Err(error) = key::confirm(file) {
        session.warn(&format!("that the key is stored in a second place can't be noted: {error}"));
    }
}

/// Shows the key and asks for its last group; an empty answer means later.
fn ask(file: &Path) -> Result<bool, AppError> {
    let text = secret::from_file("the key", file, &mut |_| {})?;
    let last = text.expose().rsplit('-').next().unwrap_or_default();
    note(&format!(
        "\nThis key opens your backups. It is shown only now, and kept in {}:\n\n  {}\n\n\
         Without it nothing can be restored. Store it in a second place (a password manager, paper).\n\
         Then type its last group, or press Enter to do it later:",
        file.display(),
        text.expose()
    ));
    let mut lines = std::io::stdin().lock().lines();
    while let Some(Ok(line)) = lines.next() {
        match line.trim() {
            "" => return Ok(false),
            typed if typed == last || typed == text.expose() => return Ok(true),
            _ => note("that is not its last group; try again, or press Enter to do it later:"),
        }
    }
    Ok(false)
}
