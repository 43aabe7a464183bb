//! Secrets from a file, a command or the environment. They are never written to a log or a message.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use everpoint_app::AppError;
use everpoint_core::{FailureClass, hide_own, shell};
use everpoint_engine::user_name;

use super::mistake::Mistake;
use super::section::Section;
use crate::render::note;

/// A text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: for the one who needs it, never for messages.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// First line of a file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// First line of what a shell command prints.
    Command(String),
}

impl SecretSource {
    /// Reads the three keys that can name a source (file, variable, command); at most one of them may be given.
    pub(crate) fn of(section: &mut Section<'_>, keys: [&'static str; 3], base: &Path) -> Option<Self> {
        let [file, variable, command] = keys;
        let at = section.at();
        let given = [
            section.path(file, base).map(Self::File),
            section.text(variable).map(|text| Self::Variable(text.value)),
            section.text(command).map(|text| Self::Command(text.value)),
        ];
        let mut given = given.into_iter().flatten();
        let first = given.next();
        if given.next().is_some() {
            let message = format!("only one of `{file}`, `{variable}` and `{command}` can be given");
            section.mistake(Mistake::new(at, message).hint("keep one of them"));
        }
        first
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// Class `Usage`: the source gives nothing.
    pub(crate) fn read(&self, what: &str, warn: &mut dyn FnMut(String)) -> Result<Secret, AppError> {
        match self {
            Self::File(path) => from_file(what, path, warn),
            Self::Command(command) => from_command(what, command),
            Self::Variable(name) => {
                let value = std::env::var(name).unwrap_or_default();
                let unset = || {
                    let message = "the environment variable is not set";
                    let operation = format!("read {what} from");
                    // The secret itself may stand where its variable should be named.
                    let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
                    let named = name.contains('_') && name.chars().all(upper);
                    let object = if named { name } else { "its variable" };
                    AppError::new("config.secret", FailureClass::Usage, &operation, object, message)
                };
                if value.is_empty() { Err(unset()) } else { Ok(Secret::new(value)) }
            }
        }
    }
}

/// The first line of a file. Others may be able to read it: then `warn` is told.
///
/// # Errors
/// Class `Usage`: it can't be read, or its first line is empty.
pub(crate) fn from_file(what: &str, path: &Path, warn: &mut dyn FnMut(String)) -> Result<Secret, AppError> {
    let unreadable = |error| {
        let mut made = AppError::io(&format!("read {what} from"), path, error);
        "config.secret".clone_into(&mut made.code);
        made.class = FailureClass::Usage;
        if made.cause.as_ref().is_some_and(|cause| is_denied(cause.as_ref())) {
            let (path, user) = (shell::path(path), user_name(rustix::process::geteuid().as_raw()));
            made.hint = Some(format!(
                "run it as the user to whom the file belongs, or let user {user} read it: setfacl -m u:{user}:r {path}, \
                 or chown {user} {path}; the directories above must let that user through"
            ));
        }
        made
    };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode();
    if mode & 0o077 != 0 {
        let path = path.display();
        warn(if mode & 0o007 != 0 {
            format!("others on this machine can read {what} in {path}; mend it with: chmod o-rwx {path}")
        } else {
            format!(
                "the group of {path} can read {what}; if the service does not read it so: chmod 600 {path}"
            )
        });
    }
    first_line(what, &path.display().to_string(), &text)
}

const COMMAND: &str = "its command";
/// Holds the command for the shell, which does not hand it on.
const RUN_VARIABLE: &str = "EVERPOINT_SECRET_COMMAND";
const RUN: &str = "command=$EVERPOINT_SECRET_COMMAND; unset EVERPOINT_SECRET_COMMAND; eval \"$command\"";
/// What the shell calls itself: what it says by itself holds words of the command, changed by its quotes and variables.
const SHELL: &str = "everpoint-secret-command";
/// So long the rest of what a command said is waited for: what it left running may hold its standard error open.
const REST: Duration = Duration::from_secs(1);

/// The first line of what a shell command prints.
///
/// # Errors
/// Class `Usage`: it can't be started, fails, or prints nothing.
pub(crate) fn from_command(what: &str, command: &str) -> Result<Secret, AppError> {
    // A command may hold a secret as well: it is not shown, and no list of processes has it.
    let failed = |message: String| {
        let operation = format!("get {what} from");
        AppError::new("config.secret", FailureClass::Usage, &operation, COMMAND, message)
    };
    let mut child = Command::new("/bin/sh")
        .args(["-c", RUN, SHELL])
        .env(RUN_VARIABLE, command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let said = child.stderr.take().map(|stderr| tell(stderr, command.to_owned()));
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if let Some(said) = said {
        // Nothing is sent: it ends with the command.
        let _ = said.recv_timeout(REST);
    }
    if !output.status.success() {
        let hint = match output.status.code() {
            Some(126 | 127) => {
                "there is no such program: the setting names a shell command that prints the secret; the secret itself \
                 belongs into a file that another setting names"
            }
            _ => "run it by hand to see why: what of its words it repeats is not shown",
        };
        return Err(failed(format!("it ended with {}", output.status)).hint(hint));
    }
    let text = String::from_utf8(output.stdout)
        .map_err(|_| failed("it printed something that is not UTF-8".into()))?;
    first_line(what, COMMAND, &text)
}

/// Passes on what a command says on standard error, without its own words. Ends when it says no more.
fn tell(stderr: ChildStderr, command: String) -> mpsc::Receiver<()> {
    let (done, ended) = mpsc::sync_channel::<()>(0);
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            if let Some(line) = shown(&String::from_utf8_lossy(&line), &command) {
                note(&line);
            }
        }
        drop(done);
    });
    ended
}

/// A line of a command as it may be shown; `None`: it is the shell's own.
fn shown(line: &str, command: &str) -> Option<String> {
    (!line.starts_with(SHELL)).then(|| hide_own(line, &[command]))
}

fn is_denied(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

fn first_line(what: &str, origin: &str, text: &str) -> Result<Secret, AppError> {
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        return Err(AppError::new(
            "config.secret",
            FailureClass::Usage,
            &format!("read {what} from"),
            origin,
            "the first line is empty",
        ));
    }
    Ok(Secret::new(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_others_can_read_is_warned_about() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "s3cret\nmore\n").unwrap();
        let mut warnings = Vec::new();
        for (mode, warned) in [(0o600, 0), (0o640, 1), (0o604, 1)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            warnings.clear();
            let secret = from_file("the key", &path, &mut |warning| warnings.push(warning)).unwrap();
            assert_eq!(secret.expose(), "s3cret");
            assert_eq!(warnings.len(), warned, "{mode:o}");
        }
        assert_eq!(format!("{:?}", Secret::new("s3cret")), "Secret(…)");
    }

    #[test]
    fn a_command_that_fails_or_says_nothing_is_an_error() {
        assert_eq!(from_command("the key", "echo abc; echo def").unwrap().expose(), "abc");
        assert!(from_command("the key", "exit 3").unwrap_err().to_string().contains("exit status: 3"));
        assert!(from_command("the key", "true").is_err());
        let error = from_command("the key", "false # s3cret").unwrap_err();
        assert!(!format!("{error:?} {error}").contains("s3cret"));
        let error = from_command("the key", "hunter2").unwrap_err();
        assert!(!format!("{error:?} {error}").contains("hunter2"));
        assert!(error.hint.unwrap().contains("a shell command that prints the secret"));
        assert_eq!(shown("everpoint-secret-command: 1: eval: hun/er2: not found", "hun$x2"), None);
        assert_eq!(shown("pass: hunter2 is not there", "pass hunter2").unwrap(), "*** *** is not there");
        let seen = from_command("the key", "tr '\\0' ' ' < /proc/$$/cmdline").unwrap();
        assert!(!seen.expose().contains("tr "), "{}", seen.expose());
        assert_eq!(
            from_command("the key", "printf '%s' \"a'b  c\"; env | grep -c SECRET_COMMAND || true")
                .unwrap()
                .expose(),
            "a'b  c0"
        );
    }
}
