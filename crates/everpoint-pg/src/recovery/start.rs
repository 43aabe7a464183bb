//! Starts a server on a prepared directory and brings it to its target.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use everpoint_core::name::of_path;
use everpoint_core::{FailureClass, Life, LogOffset, Micros, life};
use everpoint_engine::{EngineError, Owner, RecoveryEvent, RecoveryReached, StartOptions, StopAt, owner_of};
use rustix::process::Signal;

use super::configuration::{MARK, socket_directory};
use super::ending::{self, forget_arguments};
use super::guard::Guard;
use super::needs::after_the_end;
use super::owner::give;
use super::programs::find_programs;
use super::server_log::{ServerLog, Stopped};
use super::watch::{Look, Watch};
use super::{command, failed, major_version};
use crate::control::{CONTROL_FILE, ClusterState, Control};
use crate::history::History;
use crate::lsn::Lsn;

/// What the server says goes here, in the data directory.
const LOG_FILE: &str = "everpoint-server.log";

/// Between two looks.
const TICK: Duration = Duration::from_millis(50);

/// Starts a server on a directory that [`super::prepare_recovery`] prepared, follows its replay, verifies that it
/// stopped at the very record asked for, promotes it, and returns when it accepts writes. The server lives on; if
/// anything fails, or this process dies before, it is stopped.
///
/// As root, the server runs as the directory's owner; if that is root, the tree is given to `$EVERPOINT_PG_USER`, or
/// `postgres`.
///
/// # Errors
/// With the end of the server's log, if it does not start or does not reach the target (class `Shortfall`).
pub fn start(
    options: &StartOptions,
    events: &mut dyn FnMut(RecoveryEvent),
) -> Result<RecoveryReached, EngineError> {
    let mut run = Run::launch(options)?;
    events(RecoveryEvent::Started { port: run.port });
    match run.follow(events) {
        Ok(reached) => {
            let path = run.directory.clone();
            run.settle(events);
            run.guard.release().map_err(|error| failed("leave running the server of", &path, error))?;
            Ok(reached)
        }
        Err(error) => {
            run.guard.stop();
            Err(error)
        }
    }
}

struct Run<'a> {
    options: &'a StartOptions,
    directory: PathBuf,
    port: u16,
    guard: Guard,
    log: ServerLog,
    watch: Watch,
    /// The promotion was asked for after this was seen.
    promoted_at: Option<Option<Look>>,
    told: Option<(LogOffset, Option<Micros>)>,
}

impl<'a> Run<'a> {
    fn launch(options: &'a StartOptions) -> Result<Self, EngineError> {
        let directory = fs::canonicalize(&options.directory)
            .map_err(|error| failed("look at", &options.directory, error))?;
        refuse_running(&directory)?;
        let major = major_version(&directory)?;
        let programs = find_programs(options.programs.as_deref(), major)?;
        let owner = owner_of(&directory)?;
        let log = directory.join(LOG_FILE);
        let port = configure_port(&directory, options.port)?;
        open_log(&log)?;
        if let Some(owner) = &owner {
            give(&directory, owner)?;
        }
        make_socket_directory(&directory, owner.as_ref())?;
        let mut arguments = vec!["-D".to_owned(), of_path(&directory)];
        // The log must come to us, in a language that we read.
        let mut settings = vec![
            "logging_collector=off".to_owned(),
            "log_destination=stderr".to_owned(),
            "lc_messages=C".to_owned(),
            // A configuration that names another directory must not lead the server there.
            format!("data_directory={}", of_path(&directory)),
        ];
        settings.extend(options.settings.iter().map(|(name, value)| format!("{name}={value}")));
        settings.extend(port.map(|port| format!("port={port}")));
        arguments.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
        let follow = ServerLog::follow(&log);
        let program = programs.join("postgres");
        let (command, runs_as) = with_groups(&program, &mut arguments, options, owner.as_ref());
        let guard = Guard::start(&command, &arguments, &directory, &log, runs_as)
            .map_err(|error| failed("run", &program, error))?;
        let user = owner.map_or_else(|| std::env::var("USER").unwrap_or_default(), |owner| owner.name);
        let mut run = Self {
            options,
            watch: Watch::new(&directory, major, &user),
            directory,
            port: 0,
            guard,
            log: follow,
            promoted_at: None,
            told: None,
        };
        match port.map_or_else(|| run.wait_for_port(), Ok) {
            Ok(port) => run.port = port,
            Err(error) => {
                run.guard.stop();
                return Err(error);
            }
        }
        Ok(run)
    }

    /// The port of a server with a configuration of its own: its `postmaster.pid` says it.
    fn wait_for_port(&mut self) -> Result<u16, EngineError> {
        loop {
            self.look_alive()?;
            let text = fs::read_to_string(self.directory.join("postmaster.pid")).unwrap_or_default();
            if let Some(port) = text.lines().nth(3).and_then(|line| line.trim().parse().ok()) {
                return Ok(port);
            }
            sleep(TICK);
        }
    }

    fn look_alive(&mut self) -> Result<(), EngineError> {
        self.log.read().map_err(|error| failed("read", &self.directory.join(LOG_FILE), error))?;
        if self.options.stop_flag.is_set() {
            let message = "it was asked to stop";
            return Err(EngineError::new(
                "pg.stopped",
                "recover",
                self.directory.display().to_string(),
                message,
            ));
        }
        if self.guard.has_ended() {
            self.log.read().map_err(|error| failed("read", &self.directory.join(LOG_FILE), error))?;
            return Err(self.died());
        }
        Ok(())
    }

    fn follow(&mut self, events: &mut dyn FnMut(RecoveryEvent)) -> Result<RecoveryReached, EngineError> {
        loop {
            self.look_alive()?;
            let look = self.watch.look();
            let at_target =
                self.log.stopped.is_some() && (self.log.paused || look.is_some_and(|it| it.paused));
            if self.promoted_at.is_none() && at_target {
                self.verify(look)?;
                events(RecoveryEvent::Promoting);
                self.promote()?;
                self.promoted_at = Some(look);
            }
            let writable = match look {
                Some(look) => !look.in_recovery,
                None => self.log.ready && self.is_in_production(),
            };
            if writable {
                // It may have promoted itself: where nobody could connect there is no pause.
                self.look_alive()?;
                self.verify(None)?;
                return Ok(self.reached(look));
            }
            self.tell(look, events);
            sleep(TICK);
        }
    }

    fn tell(&mut self, look: Option<Look>, events: &mut dyn FnMut(RecoveryEvent)) {
        let now = match look {
            Some(look) if look.in_recovery => (look.replayed, look.last_commit),
            Some(_) => return,
            None => {
                let segment_size = self.control().map_or(0, |control| u64::from(control.segment_size));
                let fetched = self.log.fetched.and_then(|name| name.start(segment_size));
                (fetched.unwrap_or_default(), None)
            }
        };
        let older = self.told.is_some_and(|told| told.0 >= now.0);
        if now.0 != LogOffset(0) && !older {
            self.told = Some(now);
            events(RecoveryEvent::Replaying { position: now.0, time: now.1 });
        }
    }

    /// The server must say that it stopped at the very record asked for, and have replayed up to it.
    fn verify(&self, look: Option<Look>) -> Result<(), EngineError> {
        let expected = match self.options.stop {
            Some(StopAt { record, inclusive: true }) => Stopped::After(record),
            Some(StopAt { record, inclusive: false }) => Stopped::Before(record),
            None => Stopped::Consistent,
        };
        let right_side = match (expected, look) {
            (Stopped::After(record), Some(look)) => look.replayed > record,
            (Stopped::Before(record), Some(look)) => look.replayed <= record,
            _ => true,
        };
        if self.log.stopped == Some(expected) && right_side {
            return Ok(());
        }
        let found = match self.log.stopped {
            Some(Stopped::Before(record)) => format!("it stopped before {}", Lsn::from(record)),
            Some(Stopped::After(record)) => format!("it stopped after {}", Lsn::from(record)),
            Some(Stopped::Consistent) => "it stopped when the backup was consistent".to_owned(),
            None => "it did not say where it stopped".to_owned(),
        };
        let wanted = match expected {
            Stopped::Before(record) => format!("before {}", Lsn::from(record)),
            Stopped::After(record) => format!("after {}", Lsn::from(record)),
            Stopped::Consistent => "when the backup was consistent".to_owned(),
        };
        Err(EngineError::new(
            "pg.recovery_short",
            "recover",
            self.directory.display().to_string(),
            format!("replay should have stopped {wanted}, but {found}"),
        )
        .class(FailureClass::Shortfall))
    }

    /// What the server could not tidy up at its recovery's end is tidied up now. It runs and serves: a failure is told by
    /// the next check.
    fn settle(&mut self, events: &mut dyn FnMut(RecoveryEvent)) {
        match ending::settle(&self.directory) {
            Ok(true) => self.guard.signal(Signal::HUP),
            Ok(false) => {}
            Err(error) => {
                let text = format!("settings of the recovery are left in the data directory: {error}");
                events(RecoveryEvent::Warning(text));
            }
        }
        if let Err(error) = forget_arguments(&self.directory, self.options.port) {
            let text = format!(
                "pg_ctl restart will use the settings with which the server was started now: {error}"
            );
            events(RecoveryEvent::Warning(text));
        }
        self.watch.differences().into_iter().for_each(|text| events(RecoveryEvent::Warning(text)));
    }

    /// As `pg_ctl promote` does it: a file and a signal, which works without a login.
    fn promote(&mut self) -> Result<(), EngineError> {
        let path = self.directory.join("promote");
        fs::write(&path, "").map_err(|error| failed("write", &path, error))?;
        super::owner::give_like_parent(&path)?;
        self.guard.signal(Signal::USR1);
        Ok(())
    }

    fn control(&self) -> Option<Control> {
        let bytes = fs::read(self.directory.join(CONTROL_FILE)).ok()?;
        Control::parse(&bytes).ok()
    }

    fn is_in_production(&self) -> bool {
        self.control().is_some_and(|control| control.state == ClusterState::Production)
    }

    fn reached(&self, look: Option<Look>) -> RecoveryReached {
        let seen = self.promoted_at.flatten().or(look);
        RecoveryReached {
            position: seen.map(|look| look.replayed).or_else(|| self.fork()).unwrap_or_default(),
            last_commit: seen.and_then(|look| look.last_commit).or(self.log.last_commit),
            port: self.port,
        }
    }

    /// Where the new timeline begins: the end of the last record replayed.
    fn fork(&self) -> Option<LogOffset> {
        let timeline = self.control()?.timeline;
        // The checkpoint of the new timeline may not be there yet.
        [timeline + 1, timeline].into_iter().find_map(|timeline| {
            let path = self.directory.join(format!("pg_wal/{timeline:08X}.history"));
            let content = fs::read(path).ok()?;
            History::parse(timeline, &content).ok()?.fork().map(|(_, at)| at)
        })
    }

    fn died(&self) -> EngineError {
        let short = [
            "recovery ended before configured recovery target was reached",
            "requested recovery stop point is before consistent recovery point",
        ];
        let is_short = short.iter().any(|text| self.log.says(text));
        let code = if is_short { "pg.recovery_short" } else { "pg.start" };
        let message = format!("the server ended; its log says:\n{}", self.log.tail());
        let error = EngineError::new(code, "recover", self.directory.display().to_string(), message)
            .hint(after_the_end(&self.log.tail(), &self.directory, &self.directory.join(LOG_FILE)));
        if is_short { error.class(FailureClass::Shortfall) } else { error }
    }
}

/// The port to run on: for a copy the one asked for, which is written down for its next start too, or the one in its
/// generated configuration; otherwise only the one asked for.
fn configure_port(directory: &Path, wanted: Option<u16>) -> Result<Option<u16>, EngineError> {
    let path = directory.join("postgresql.conf");
    let text = fs::read_to_string(&path).unwrap_or_default();
    if !text.starts_with(MARK) {
        return Ok(wanted);
    }
    let is_port = |line: &&str| line.starts_with("port = ");
    let Some(port) = wanted else {
        let line = text.lines().find(is_port);
        return Ok(line.and_then(|line| line.split('\'').nth(1)).and_then(|port| port.parse().ok()));
    };
    let changed: Vec<String> = text
        .lines()
        .map(|line| if is_port(&line) { format!("port = '{port}'") } else { line.to_owned() })
        .collect();
    fs::write(&path, changed.join("\n") + "\n").map_err(|error| failed("write", &path, error))?;
    Ok(Some(port))
}

/// Nothing is changed under a server that somebody else started here.
fn refuse_running(directory: &Path) -> Result<(), EngineError> {
    let Life::Alive(reason) = life(&super::life_signs(directory)?) else { return Ok(()) };
    let object = directory.display().to_string();
    Err(EngineError::new("pg.running", "start a server on", object, reason)
        .class(FailureClass::Usage)
        .hint("stop it, then run the restore again: it goes on where it stopped"))
}

/// A configuration outside of the directory may need all groups of the server's user: Debian's keys belong to `ssl-cert`.
/// The program to run and as whom.
fn with_groups<'a>(
    program: &Path,
    arguments: &mut Vec<String>,
    options: &StartOptions,
    owner: Option<&'a Owner>,
) -> (PathBuf, Option<&'a Owner>) {
    let named = owner.filter(|owner| !owner.name.is_empty() && !options.settings.is_empty());
    let (Some(named), Some(setpriv)) = (named, command::find("setpriv")) else {
        return (program.to_owned(), owner);
    };
    let user = [format!("--reuid={}", named.uid), format!("--regid={}", named.gid)];
    let words =
        user.into_iter().chain(["--init-groups".to_owned(), "--".to_owned(), program.display().to_string()]);
    arguments.splice(0..0, words);
    (setpriv, None)
}

fn open_log(path: &Path) -> Result<(), EngineError> {
    fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(b""))
        .map_err(|error| failed("write", path, error))
}

/// Makes the socket's directory where it is not the data directory. Somebody else's of that name is refused.
fn make_socket_directory(directory: &Path, owner: Option<&Owner>) -> Result<(), EngineError> {
    let sockets = PathBuf::from(socket_directory(directory));
    if sockets == directory {
        return Ok(());
    }
    match fs::DirBuilder::new().mode(0o700).create(&sockets) {
        Ok(()) => owner.map_or(Ok(()), |owner| give(&sockets, owner)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let uid = owner.map_or_else(|| rustix::process::geteuid().as_raw(), |owner| owner.uid);
            let metadata =
                fs::symlink_metadata(&sockets).map_err(|error| failed("look at", &sockets, error))?;
            if metadata.is_dir() && metadata.uid() == uid && metadata.mode() & 0o077 == 0 {
                return Ok(());
            }
            let message = "it exists and is not a private directory of the server's user";
            Err(EngineError::new("pg.files", "use", sockets.display().to_string(), message))
        }
        Err(error) => Err(failed("make the directory", &sockets, error)),
    }
}
