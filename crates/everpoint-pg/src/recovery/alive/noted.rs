//! What a server notes: `postmaster.pid` in its directory, and a lock file of the same form beside each socket.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Name of the file in the data directory.
pub(super) const NAME: &str = "postmaster.pid";

/// The lines of one of these files, as far as it has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Noted {
    /// Number of the process, as its own namespace counts; a server for one user alone notes it negative.
    pub(super) process: Option<i32>,
    /// The data directory, as the server's own mounts show it.
    pub(super) directory: Option<PathBuf>,
    /// Start, seconds since 1970.
    pub(super) started: Option<i64>,
    pub(super) port: Option<u16>,
    /// Directory of the first socket.
    pub(super) sockets: Option<PathBuf>,
    /// First address that it listens on: `*`, a number, a name.
    pub(super) listens: Option<String>,
    /// Key and id of its shared memory.
    pub(super) memory: Option<(i32, u64)>,
    /// `starting`, `stopping`, `ready`, `standby`.
    status: String,
}

impl Noted {
    /// Reads that of a data directory.
    pub(super) fn read(directory: &Path) -> io::Result<Option<Self>> {
        match fs::read(directory.join(NAME)) {
            Ok(bytes) => Ok(Some(Self::parse(&String::from_utf8_lossy(&bytes)))),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn parse(text: &str) -> Self {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let line = |number: usize| lines.get(number).copied().filter(|line| !line.is_empty());
        Self {
            process: line(0).and_then(|line| line.parse().ok()),
            directory: line(1).map(PathBuf::from),
            started: line(2).and_then(|line| line.parse().ok()),
            port: line(3).and_then(|line| line.parse().ok()).filter(|port| *port != 0),
            sockets: line(4).map(PathBuf::from),
            listens: line(5).map(str::to_owned),
            memory: line(6).and_then(memory),
            status: line(7).unwrap_or_default().to_owned(),
        }
    }

    /// Whether the server was coming or going when it wrote this. Older than that the file says nothing of it.
    pub(super) fn is_between(&self) -> bool {
        !matches!(self.status.as_str(), "ready" | "standby")
    }

    /// Whether both come from the same run of a server.
    pub(super) fn same_run(&self, other: &Self) -> bool {
        self.process.is_some() && self.process == other.process && self.started == other.started
    }

    /// Whether the file was copied along with the directory in which the server really runs, or ran.
    pub(super) fn is_of_another(&self, directory: &Metadata) -> bool {
        let Some(named) = &self.directory else { return false };
        let elsewhere = fs::metadata(named).is_ok_and(|named| !same_file(&named, directory));
        elsewhere && Self::read(named).ok().flatten().is_some_and(|original| original.same_run(self))
    }
}

pub(super) fn same_file(one: &Metadata, other: &Metadata) -> bool {
    one.dev() == other.dev() && one.ino() == other.ino()
}

/// Keys are printed as unsigned 64-bit numbers, negative ones too.
fn memory(line: &str) -> Option<(i32, u64)> {
    let mut numbers = line.split_whitespace();
    let key: u64 = numbers.next()?.parse().ok()?;
    let id = numbers.next()?.parse().ok()?;
    Some(((key as u32).cast_signed(), id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lines_of_a_running_server_are_read() {
        let text =
            "4711\n/srv/pg\n1795902500\n5432\n/run/postgresql\n*\n 18446744073709551615    98304\nready   \n";
        let noted = Noted::parse(text);
        assert_eq!(noted.process, Some(4711));
        assert_eq!(noted.directory.as_deref(), Some(Path::new("/srv/pg")));
        assert_eq!((noted.started, noted.port), (Some(1_795_902_500), Some(5432)));
        assert_eq!(noted.sockets.as_deref(), Some(Path::new("/run/postgresql")));
        assert_eq!(noted.listens.as_deref(), Some("*"));
        assert_eq!(noted.memory, Some((-1, 98304)));
        assert!(!noted.is_between());
    }

    #[test]
    fn what_is_missing_is_not_guessed() {
        let begun = Noted::parse("4711\n/srv/pg\n1795902500\n5432\n\n");
        assert!(begun.is_between() && begun.sockets.is_none() && begun.memory.is_none());
        let empty = Noted::parse("");
        assert!(empty.process.is_none() && empty.is_between());
        assert!(!empty.same_run(&empty), "two empty files tell nothing");
    }

    #[test]
    fn a_copied_file_is_known_by_its_original() {
        let home = tempfile::tempdir().unwrap();
        let [original, copy] = ["original", "copy"].map(|name| home.path().join(name));
        for directory in [&original, &copy] {
            fs::create_dir(directory).unwrap();
            let text = format!("4711\n{}\n1795902500\n", original.display());
            fs::write(directory.join(NAME), text).unwrap();
        }
        let of = |directory: &Path| {
            let noted = Noted::read(directory).unwrap().unwrap();
            noted.is_of_another(&fs::metadata(directory).unwrap())
        };
        assert!(of(&copy) && !of(&original));
        fs::write(original.join(NAME), format!("12\n{}\n1795902600\n", original.display())).unwrap();
        assert!(!of(&copy), "another run");
    }
}
