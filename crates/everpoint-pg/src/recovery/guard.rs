//! Runs a server that dies with us, until it is let go.
//!
//! A shell stands between: it starts the server and waits for a word from us through a pipe. If we die, by whatever
//! signal, the pipe closes and it stops the server: a killed restore leaves no orphan. Once the recovery is done we say
//! the word, the shell ends, and the server lives on by itself.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use everpoint_core::name::to_path;
use rustix::process::{Pid, Signal, kill_process};

use everpoint_engine::Owner;

/// `$0` is the log file, the arguments are the server's command line. Prints the server's process id.
const SCRIPT: &str = r#"exec 3<&0
"$@" </dev/null >>"$0" 2>&1 3<&- &
server=$!
( if read -r word <&3; then kill -TERM $$; else kill -INT $server; fi ) >/dev/null 2>&1 &
guard=$!
echo $server
exec >/dev/null 3<&-
wait $server
code=$?
kill $guard 2>/dev/null
exit $code
"#;

/// How long a server may take to shut down before it is stopped at once.
const SHUTDOWN: Duration = Duration::from_secs(60);

/// A running server under guard.
#[derive(Debug)]
pub(super) struct Guard {
    shell: Child,
    /// Closing it stops the server.
    word: Option<ChildStdin>,
    server: Pid,
}

impl Guard {
    /// Starts `program` with `arguments` (bytes that are no UTF-8 escaped), as `owner` if one is given, its output appended to `log`.
    pub(super) fn start(
        program: &Path,
        arguments: &[String],
        directory: &Path,
        log: &Path,
        owner: Option<&Owner>,
    ) -> std::io::Result<Self> {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(SCRIPT).arg(log).arg(program).args(arguments.iter().map(|it| to_path(it)));
        // A group of its own: Ctrl-C at our terminal is for us, we stop the server ourselves.
        command.current_dir(directory).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // A server takes defaults from variables that are meant for clients; PGPORT without a value keeps it from starting.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        if let Some(owner) = owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        let mut shell = command.spawn()?;
        let word = shell.stdin.take();
        let mut line = String::new();
        if let Some(output) = shell.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let server = line.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| {
            std::io::Error::other("the shell that should start the server did not say its process id")
        })?;
        Ok(Self { shell, word, server })
    }

    /// Whether the server has ended.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.shell.try_wait(), Ok(None))
    }

    /// Sends the server a signal; one that has ended gets none.
    pub(super) fn signal(&mut self, signal: Signal) {
        if !self.has_ended()
            && let Err(error) = kill_process(self.server, signal)
        {
            tracing::debug!(%error, "could not signal the server");
        }
    }

    /// Lets the server live on without us.
    pub(super) fn release(mut self) -> std::io::Result<()> {
        if let Some(word) = &mut self.word {
            word.write_all(b"go\n")?;
        }
        self.shell.wait().map(drop)
    }

    /// Stops the server: in order, and if that takes too long, at once.
    pub(super) fn stop(mut self) {
        for signal in [Signal::INT, Signal::QUIT, Signal::KILL] {
            self.signal(signal);
            let deadline = Instant::now() + SHUTDOWN;
            while Instant::now() < deadline {
                if self.has_ended() {
                    return;
                }
                sleep(Duration::from_millis(20));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::test_kill_process;

    use super::*;

    fn sleeping(log: &Path) -> Guard {
        // The shell starts it with interrupts ignored; a server handles them itself.
        let arguments = ["--default-signal=INT", "sleep", "60"].map(str::to_owned);
        Guard::start(Path::new("/usr/bin/env"), &arguments, Path::new("/"), log, None).unwrap()
    }

    fn wait_until(mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < deadline);
            sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_server_dies_when_the_pipe_closes_as_when_we_are_killed() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut guard = sleeping(log.path());
        sleep(Duration::from_millis(100));
        assert!(!guard.has_ended());
        drop(guard.word.take());
        wait_until(|| guard.has_ended());
    }

    #[test]
    fn a_server_that_was_let_go_lives_on() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let guard = sleeping(log.path());
        let server = guard.server;
        sleep(Duration::from_millis(100));
        guard.release().unwrap();
        sleep(Duration::from_millis(200));
        assert!(test_kill_process(server).is_ok());
        kill_process(server, Signal::INT).unwrap();
        wait_until(|| test_kill_process(server).is_err());
    }

    #[test]
    fn the_end_of_a_server_shows() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut guard = Guard::start(
            Path::new("/bin/echo"),
            &["last words".to_owned()],
            Path::new("/"),
            log.path(),
            None,
        )
        .unwrap();
        wait_until(|| guard.has_ended());
        assert_eq!(std::fs::read_to_string(log.path()).unwrap(), "last words\n");
    }
}
