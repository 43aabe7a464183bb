//! Processes that work in a directory. A server's processes all do.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::noted::{Noted, same_file};

/// Inode of the first PID namespace, which sees all others (`PROC_PID_INIT_INO`).
const FIRST_NAMESPACE: u64 = 0xEFFF_FFFC;

/// What there is.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Processes of a server, in words.
    pub(super) servers: Vec<String>,
    /// Why not every process is seen that might be one.
    pub(super) blind: Option<String>,
}

/// Looks at all processes.
pub(super) fn look(directory: &Metadata, noted: Option<&Noted>) -> Seen {
    let mut seen = Seen::default();
    let Ok(entries) = fs::read_dir("/proc") else {
        seen.blind = Some("processes can't be listed here".to_owned());
        return seen;
    };
    let mut hidden = 0;
    for entry in entries {
        let Ok(entry) = entry else {
            hidden += 1;
            continue;
        };
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        match fs::metadata(entry.path().join("cwd")) {
            Ok(found) if same_file(&found, directory) => {
                seen.servers.extend(Process::at(process, entry.path()).server(noted));
            }
            Ok(_) => {}
            // Threads of the kernel work nowhere, and processes end while one looks.
            Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH) => {}
            Err(_) => hidden += u32::from(may_serve(&entry.path(), directory.uid())),
        }
    }
    seen.blind = namespace().or_else(|| {
        (hidden > 0)
            .then(|| format!("{hidden} processes can't be looked at (that takes the capability SYS_PTRACE)"))
    });
    seen
}

/// What reading below a process that has ended gives.
const ESRCH: i32 = 3;

/// Why this process does not see all others, as far as that is no matter of rights.
fn namespace() -> Option<String> {
    let ours = fs::metadata("/proc/self/ns/pid").ok().map(|found| found.ino());
    if ours != Some(FIRST_NAMESPACE) {
        return Some("only processes of this container (PID namespace) are seen".to_owned());
    }
    // `hidepid` leaves out what one may not look at: the first process is somebody else's for all but root.
    let root = rustix::process::geteuid().is_root();
    (!Path::new("/proc/1").exists() && root).then(|| "/proc hides processes here (hidepid)".to_owned())
}

/// Whether a process that can't be looked at may be a server of this directory: it runs as the directory's owner, and
/// never as root.
fn may_serve(process: &Path, owner: u32) -> bool {
    let status = match fs::read_to_string(process.join("status")) {
        Ok(status) => status,
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH) => {
            return false;
        }
        Err(_) => return true,
    };
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let effective = users.and_then(|line| line.split_whitespace().nth(1)?.parse::<u32>().ok());
    effective.is_none_or(|user| user != 0 && (owner == 0 || user == owner))
}

/// Name of the program of a process (its directory in `/proc`), if it can be known.
pub(super) fn program(process: &Path) -> Option<String> {
    let link = fs::read_link(process.join("exe")).ok();
    let path = link.as_ref().map(|link| link.to_string_lossy());
    // A program that was replaced by an upgrade still runs.
    let name = path.as_deref().map(|path| path.strip_suffix(" (deleted)").unwrap_or(path));
    let program = name.and_then(|name| name.rsplit('/').next()).map(str::to_owned);
    let program = program.or_else(|| fs::read_to_string(process.join("comm")).ok());
    program.map(|program| program.trim().to_owned())
}

/// A process that works in the directory.
struct Process {
    number: i32,
    /// Name of its program, if it can be known.
    program: Option<String>,
}

impl Process {
    fn at(number: i32, place: PathBuf) -> Self {
        Self { number, program: program(&place) }
    }

    /// What it is, if it is of a server, or writes into the directory as one does. A shell in it is not.
    fn server(&self, noted: Option<&Noted>) -> Option<String> {
        let is_noted = noted.and_then(|noted| noted.process).is_some_and(|it| it.abs() == self.number);
        let is_server = match &self.program {
            Some(program) => is_noted || is_of_postgres(program),
            None => noted.is_some(),
        };
        let program = self.program.as_deref().unwrap_or("of an unknown program");
        is_server.then(|| format!("process {} ({program}) works in it", self.number))
    }
}

pub(super) fn is_of_postgres(program: &str) -> bool {
    program.contains("postgres") || program.contains("postmaster") || program.starts_with("pg_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(number: i32, program: Option<&str>) -> Process {
        Process { number, program: program.map(str::to_owned) }
    }

    #[test]
    fn a_server_is_known_by_its_program_or_its_number() {
        let noted = Noted::parse("-42\n");
        for (program, alone, beside) in [
            (Some("postgres"), true, true),
            (Some("edb-postgres"), true, true),
            (Some("pg_rewind"), true, true),
            (Some("bash"), false, false),
            (None, false, true),
        ] {
            assert_eq!(process(7, program).server(None).is_some(), alone, "{program:?}");
            assert_eq!(process(7, program).server(Some(&noted)).is_some(), beside, "{program:?}");
        }
        assert!(process(42, Some("renamed")).server(Some(&noted)).is_some());
    }

    #[test]
    fn a_process_in_the_directory_is_seen_and_a_shell_there_is_no_server() {
        let home = tempfile::tempdir().unwrap();
        let found = fs::metadata(home.path()).unwrap();
        let mut shell = std::process::Command::new("sleep");
        let mut child = shell.arg("60").current_dir(home.path()).spawn().unwrap();
        let noted = Noted::parse(&format!("{}\n", child.id()));
        let (without, with) = (look(&found, None), look(&found, Some(&noted)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(without.servers.is_empty(), "{without:?}");
        assert_eq!(with.servers.len(), 1, "{with:?}");
        assert!(look(&found, Some(&noted)).servers.is_empty());
    }
}
