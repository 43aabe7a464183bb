//! Any program: it reads the file on its standard input, and says by ending with 0 that the file arrived.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use everpoint_core::hide_own;

use crate::mask::{Secrets, clean};
use crate::{Counts, Entry, Provider, ProviderError, ProviderErrorKind, Receipt, template};

/// How often a program is asked whether it has ended.
const POLL: Duration = Duration::from_millis(20);
/// Bytes of what a program says on standard error that are shown: the last ones.
const SHOWN: usize = 500;
/// Bytes of a list that are read.
const ANSWER: u64 = 4 << 20;
/// What programs hold open after they have ended is waited for this long.
const GRACE: Duration = Duration::from_secs(2);

/// Programs with their arguments, in which `{name}` stands for the name of the file. No shell reads them.
#[derive(Debug, Clone)]
pub struct CommandOptions {
    /// Takes a file on standard input.
    pub upload: Vec<String>,
    /// Gives a file on standard output.
    pub download: Option<Vec<String>>,
    /// Prints the name of each file on a line of its own.
    pub list: Option<Vec<String>>,
    /// Ends with 0 if all is well.
    pub health: Option<Vec<String>>,
    /// Which of these count besides uploads.
    pub counts: Counts,
    /// Time for a program; it is killed after that.
    pub timeout: Duration,
}

/// Such programs.
#[derive(Debug, Clone)]
pub struct CommandProvider {
    options: CommandOptions,
}

impl CommandProvider {
    /// Of these programs.
    ///
    /// # Errors
    /// Kind `Usage`: a program is not named.
    pub fn new(options: CommandOptions) -> Result<Self, ProviderError> {
        let others = [&options.download, &options.list, &options.health];
        let all = others.into_iter().flatten().chain([&options.upload]);
        if all.into_iter().any(|argv| argv.first().is_none_or(String::is_empty)) {
            let cause = "a command is a list that begins with a program";
            return Err(ProviderError::new("use", "the command", ProviderErrorKind::Usage)
                .unsent()
                .cause(cause));
        }
        Ok(Self { options })
    }

    fn run(
        &self,
        operation: &'static str,
        argv: &[String],
        name: &str,
        input: Option<(Box<dyn Read + Send>, u64)>,
        output: Option<&mut dyn Write>,
    ) -> Result<u64, ProviderError> {
        let (program, arguments) =
            argv.split_first().map_or(("", argv), |(first, rest)| (first.as_str(), rest));
        let failed = |cause: String| {
            let object = format!("{name} with {}", named(program));
            ProviderError::new(operation, object.trim_start(), ProviderErrorKind::Failed).cause(cause)
        };
        let mut command = Command::new(program);
        command.args(arguments.iter().map(|argument| template::plain(argument, name)));
        command.env("EVERPOINT_NAME", name).process_group(0).stderr(Stdio::piped());
        if let Some((_, size)) = &input {
            // Its input ends, too, when this process is killed: only the size tells whether it was whole.
            command.env("EVERPOINT_SIZE", size.to_string());
        }
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(if output.is_some() { Stdio::piped() } else { Stdio::null() });
        // A program that never ran has sent nothing.
        let mut child = command.spawn().map_err(|error| failed(error.to_string()).unsent())?;
        let ended = converse(&mut child, input.map(|(body, _)| body), output, self.options.timeout);
        let (status, said, fed) = ended.map_err(|error| failed(error.to_string()))?;
        if !status.success() {
            let own: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let said = environment().hide(&hide_own(&said, &own));
            return Err(failed(format!("{status}: {said}").trim_end_matches([':', ' ']).to_owned()));
        }
        fed.map_err(|error| failed(format!("it ended with success without reading everything: {error}")))
    }
}

/// Feeds a program, takes what it gives, waits until it ends; its status, the end of what it said on standard error, and
/// how many bytes went through.
fn converse(
    child: &mut Child,
    input: Option<Box<dyn Read + Send>>,
    output: Option<&mut dyn Write>,
    timeout: Duration,
) -> io::Result<(ExitStatus, String, io::Result<u64>)> {
    let deadline = Instant::now() + timeout;
    let said = child.stderr.take().map(|stderr| background(move || last_words(stderr)));
    let fed = input.zip(child.stdin.take()).map(|(mut body, mut stdin)| {
        background(move || io::copy(&mut body, &mut stdin).and_then(|bytes| stdin.flush().map(|()| bytes)))
    });
    let pid = rustix::process::Pid::from_child(child);
    let watch = background_watch(pid, deadline);
    let taken = match (output, child.stdout.take()) {
        (Some(into), Some(mut stdout)) => Some(io::copy(&mut stdout, into)),
        _ => None,
    };
    if matches!(taken, Some(Err(_))) {
        end_group(pid);
    }
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            end_group(pid);
        }
        thread::sleep(POLL);
    };
    drop(watch);
    let said = said.and_then(|said| said.recv_timeout(GRACE).ok()).unwrap_or_default();
    let through = match (taken, fed) {
        (Some(taken), _) => taken,
        (None, Some(fed)) => fed.recv_timeout(GRACE).unwrap_or_else(|_| {
            end_group(pid);
            Err(io::Error::other("a part of it still reads"))
        }),
        (None, None) => Ok(0),
    };
    Ok((status, said, through))
}

/// Runs `work` on a thread of its own, as it may wait for a program that never answers.
fn background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
    let (send, receive) = mpsc::sync_channel(1);
    thread::spawn(move || {
        // Nobody waits any more where this fails.
        let _ = send.send(work());
    });
    receive
}

/// Ends the program at the deadline while its output is being read; stops when what it returns is dropped.
fn background_watch(pid: rustix::process::Pid, deadline: Instant) -> mpsc::SyncSender<()> {
    let (stop, stopped) = mpsc::sync_channel(0);
    thread::spawn(move || {
        let left = deadline.saturating_duration_since(Instant::now());
        if stopped.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
            end_group(pid);
        }
    });
    stop
}

/// Kills a program and what it started.
fn end_group(pid: rustix::process::Pid) {
    // It may have ended by itself.
    let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
}

/// What is secret in the environment, which a program has, too.
fn environment() -> Secrets {
    let mut secrets = Secrets::default();
    let is_secret = |name: &str| ["KEY", "TOKEN", "SECRET", "PASS"].iter().any(|word| name.contains(word));
    for (name, value) in std::env::vars_os() {
        // A path is none: it leads to one.
        let value = value.to_string_lossy();
        if is_secret(&name.to_string_lossy().to_uppercase()) && !value.starts_with('/') {
            secrets.add(&value);
        }
    }
    secrets
}

/// Stands for a program that is not there.
const UNNAMED: &str = "its program";

/// A program by its name; a word that is none may be a secret at the wrong place.
fn named(program: &str) -> &str {
    let there = |directory: PathBuf| directory.join(program).is_file();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known =
        if program.contains('/') { there(PathBuf::new()) } else { std::env::split_paths(&path).any(there) };
    if known { program } else { UNNAMED }
}

fn last_words(mut stderr: impl Read) -> String {
    let (mut last, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(read) = stderr.read(&mut piece) {
        if read == 0 {
            break;
        }
        last.extend_from_slice(piece.get(..read).unwrap_or_default());
        last.drain(..last.len().saturating_sub(SHOWN));
    }
    clean(String::from_utf8_lossy(&last).trim())
}

impl Provider for CommandProvider {
    fn describe(&self) -> String {
        // Arguments may hold secrets.
        match self.options.upload.first().map_or(UNNAMED, |program| named(program)) {
            UNNAMED => "a command".to_owned(),
            program => format!("the command {program}"),
        }
    }

    fn counts(&self) -> Counts {
        self.options.counts
    }

    fn upload(&self, name: &str, size: u64, body: Box<dyn Read + Send>) -> Result<Receipt, ProviderError> {
        let fed = self.run("upload", &self.options.upload, name, Some((body, size)), None)?;
        if fed == size {
            return Ok(Receipt::default());
        }
        Err(ProviderError::new("upload", name, ProviderErrorKind::Failed)
            .cause(format!("the file has {fed} bytes instead of {size}")))
    }

    fn download(&self, name: &str, into: &mut dyn Write) -> Result<u64, ProviderError> {
        match &self.options.download {
            Some(argv) => self.run("download", argv, name, None, Some(into)),
            None => Err(ProviderError::new("download", name, ProviderErrorKind::Unsupported)
                .unsent()
                .cause("no command is known that gives files back: set download")),
        }
    }

    fn list(&self) -> Result<Option<Vec<Entry>>, ProviderError> {
        let Some(argv) = &self.options.list else {
            return Ok(None);
        };
        let mut printed = Bounded(Vec::new());
        self.run("list", argv, "", None, Some(&mut printed))?;
        let text = String::from_utf8_lossy(&printed.0).into_owned();
        let names = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(Some(names.map(|name| Entry { name: clean(name), size: None }).collect()))
    }

    fn health(&self) -> Result<(), ProviderError> {
        match &self.options.health {
            Some(argv) => self.run("ask", argv, "", None, None).map(drop),
            None => Ok(()),
        }
    }

    fn asks(&self) -> bool {
        self.options.list.is_some() && !self.options.counts.list
    }
}

/// Takes a list of bounded length.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len().saturating_add(bytes.len()) as u64 > ANSWER {
            return Err(io::Error::other("the list is too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["sh", "-c", script, "sh", "{name}"].map(str::to_owned).to_vec()
    }

    fn provider(upload: &str, change: impl FnOnce(&mut CommandOptions)) -> CommandProvider {
        let mut options = CommandOptions {
            upload: sh(upload),
            download: None,
            list: None,
            health: None,
            counts: Counts::default(),
            timeout: Duration::from_secs(10),
        };
        change(&mut options);
        CommandProvider::new(options).unwrap()
    }

    fn large() -> Box<dyn Read + Send> {
        Box::new(io::repeat(b'x').take(1_000_000))
    }

    #[test]
    fn a_program_takes_lists_and_gives_back() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        let provider = provider(&format!("cat > {at}/\"$1\""), |options| {
            options.download = Some(sh(&format!("cat {at}/\"$1\"")));
            options.list = Some(sh(&format!("ls {at}")));
        });
        provider.upload("a b", 1_000_000, large()).unwrap();
        assert_eq!(provider.list().unwrap().unwrap(), [Entry { name: "a b".to_owned(), size: None }]);
        assert_eq!(provider.download("a b", &mut io::sink()).unwrap(), 1_000_000);
        assert!(provider.asks() && provider.health().is_ok());
    }

    #[test]
    fn a_program_that_fails_has_spent_the_call_and_its_last_words_are_kept() {
        let error = provider("cat >/dev/null; echo bad hunter2 | rev | rev >&2; cat /; exit 3", |_| ())
            .upload("a", 1_000_000, large())
            .unwrap_err();
        assert!(error.sent);
        let cause = error.cause.unwrap().to_string();
        assert!(cause.contains("Is a directory") && cause.contains('3'), "{cause}");
        assert!(!cause.contains("unter"), "it was given that word: {cause}");
    }

    #[test]
    fn success_without_reading_everything_is_no_success() {
        let error = provider("head -c 10 >/dev/null", |_| ()).upload("a", 1_000_000, large()).unwrap_err();
        assert_eq!((error.kind, error.sent), (ProviderErrorKind::Failed, true));
    }

    #[test]
    fn a_program_that_is_not_there_spends_nothing() {
        let provider = provider("", |options| options.upload = vec!["/nowhere/program".to_owned()]);
        let error = provider.upload("a", 1, Box::new(io::empty())).unwrap_err();
        assert!(!error.sent && error.retryable() && !error.object.contains("nowhere"));
        assert_eq!(provider.describe(), "a command");
        assert!(CommandProvider::new(CommandOptions { upload: vec![], ..provider.options }).is_err());
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_what_it_started() {
        let begun = Instant::now();
        let slow = |options: &mut CommandOptions| {
            options.timeout = Duration::from_millis(200);
            options.download = Some(sh("sleep 60; true"));
        };
        assert!(provider("sleep 60; true", slow).upload("a", 1_000_000, large()).unwrap_err().sent);
        assert!(provider("true", slow).download("a", &mut io::sink()).is_err());
        assert!(begun.elapsed() < Duration::from_secs(8));
    }

    #[test]
    fn a_program_knows_how_much_is_to_come() {
        let compare = provider("test $(wc -c) = $EVERPOINT_SIZE", |_| ());
        compare.upload("a", 1_000_000, large()).unwrap();
        assert!(compare.upload("a", 1_000_001, large()).is_err());
    }

    #[test]
    fn secrets_of_the_environment_are_not_repeated() {
        // Whatever the environment of a test holds, this is what is done with it.
        let mut secrets = environment();
        secrets.add("SECRETTOKEN");
        let said = secrets.hide(&last_words(&b"curl: bad token SECRETTOKEN\n\x1b[31m"[..]));
        assert_eq!(said, "curl: bad token ***  [31m");
    }
}
