//! Who answers where a server noted that it listens.

use std::fs::{self, Metadata};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use everpoint_core::Answer;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::noted::{Noted, same_file};
use crate::client::{Config, Environment, Purpose};

/// Time for one answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where servers put their sockets, unless told otherwise.
const USUAL: [&str; 2] = ["/tmp", "/run/postgresql"];

/// Seconds between a server's note and the start that it tells.
const TOLERANCE: i64 = 120;

/// The request of a client that would like TLS.
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// By what an answer is known to be this directory's server's.
pub(super) struct Ours<'a> {
    pub(super) directory: &'a Metadata,
    pub(super) note: Option<&'a Noted>,
    /// System identifier of the control file.
    pub(super) system: Option<u64>,
}

/// Asks at every place that is known.
pub(super) fn listen(directory: &Path, ours: &Ours<'_>) -> Answer {
    let mut unclear = Answer::None;
    for socket in sockets(directory, ours) {
        match at_socket(&socket, ours) {
            Answer::Ours(place) => return Answer::Ours(place),
            Answer::None => {}
            found => unclear = found,
        }
    }
    for address in addresses(ours.note) {
        match at_address(address, ours) {
            Answer::Ours(place) => return Answer::Ours(place),
            Answer::None => {}
            found => unclear = found,
        }
    }
    unclear
}

/// The noted socket; without a note those whose lock files name the directory.
fn sockets(directory: &Path, ours: &Ours<'_>) -> Vec<PathBuf> {
    if let Some(noted) = ours.note {
        let place = noted.sockets.as_ref().zip(noted.port);
        return place.map(|(place, port)| place.join(format!(".s.PGSQL.{port}"))).into_iter().collect();
    }
    let places = USUAL.iter().map(Path::new).chain([directory]);
    let files = places.filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
    let locks = files.filter_map(|file| {
        let name = file.file_name().into_string().ok()?;
        let socket = name.strip_suffix(".lock").filter(|name| name.starts_with(".s.PGSQL."))?;
        let named = Noted::parse(&fs::read_to_string(file.path()).ok()?).directory?;
        let is_it = fs::metadata(named).is_ok_and(|named| same_file(&named, ours.directory));
        is_it.then(|| file.path().with_file_name(socket))
    });
    locks.collect()
}

fn at_socket(socket: &Path, ours: &Ours<'_>) -> Answer {
    if !is_listened_to(socket) {
        return Answer::None;
    }
    let place = socket.display().to_string();
    let mut lock = socket.as_os_str().to_owned();
    lock.push(".lock");
    if let Ok(text) = fs::read_to_string(&lock) {
        let lock = Noted::parse(&text);
        return match ours.note {
            Some(note) if !note.same_run(&lock) => Answer::None,
            _ => Answer::Ours(place),
        };
    }
    // Its server runs as the owner of its directory.
    let owner = fs::symlink_metadata(socket).map(|found| found.uid());
    if owner.is_ok_and(|owner| owner != ours.directory.uid() && ours.directory.uid() != 0) {
        return Answer::None;
    }
    Answer::Unclear(place)
}

/// Whether somebody listens; a full queue is a listener that is slow.
fn is_listened_to(socket: &Path) -> bool {
    let open = || {
        let address = SocketAddrUnix::new(socket)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let client = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&client, &address)
    };
    matches!(open(), Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS | Errno::ACCESS))
}

/// The noted address; all of them are reached over the loopback interface.
fn addresses(note: Option<&Noted>) -> Vec<SocketAddr> {
    let Some((listens, port)) = note.and_then(|note| note.listens.as_ref().zip(note.port)) else {
        return Vec::new();
    };
    let names = match listens.as_str() {
        "*" | "0.0.0.0" | "::" => vec!["127.0.0.1", "::1"],
        name => vec![name],
    };
    names.into_iter().filter_map(|name| (name, port).to_socket_addrs().ok()).flatten().collect()
}

fn at_address(address: SocketAddr, ours: &Ours<'_>) -> Answer {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, PATIENCE) else {
        return Answer::None;
    };
    let mut answer = [0; 1];
    let asked = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.write_all(&TLS_REQUEST))
        .and_then(|()| stream.read(&mut answer));
    match asked {
        // Whether it has TLS, or that it has no room for clients.
        Ok(1) if matches!(answer, [b'S' | b'N' | b'G' | b'E']) => {}
        // It speaks otherwise, or closes.
        Ok(_) => return Answer::None,
        // A server that is stopped takes connections and says nothing.
        Err(_) => return Answer::Unclear(address.to_string()),
    }
    match ask(address) {
        Some((system, started)) => {
            let same = ours.system.is_none_or(|ours| ours == system);
            let noted = ours.note.and_then(|note| note.started);
            let same_start = noted.is_none_or(|noted| (started - noted).abs() <= TOLERANCE);
            if same && same_start { Answer::Ours(address.to_string()) } else { Answer::None }
        }
        None => Answer::Unclear(address.to_string()),
    }
}

/// System identifier and start of a server that lets us in without a password: none is offered to a stranger.
fn ask(address: SocketAddr) -> Option<(u64, i64)> {
    let text = format!(
        "host='{}' port={} user=postgres dbname=postgres sslmode=disable connect_timeout=2 \
         application_name=everpoint",
        address.ip(),
        address.port()
    );
    let config = Config::parse_in(&text, &Environment::with([])).ok()?;
    let mut connection = crate::client::connect(&config, Purpose::Sql).ok()?;
    let rows = connection
        .query(
            "SELECT system_identifier, \
             extract(epoch FROM pg_catalog.pg_postmaster_start_time())::bigint \
             FROM pg_catalog.pg_control_system()",
        )
        .ok()?;
    Some((rows.get(0, 0)?.parse().ok()?, rows.get(0, 1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    const NOTE: &str = "4711\n/srv/pg\n1795902500\n";

    #[test]
    fn a_socket_speaks_for_the_run_that_its_lock_file_names() {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join(".s.PGSQL.5432");
        let note = Noted::parse(&format!("{NOTE}5432\n{}\n", home.path().display()));
        let directory = fs::metadata(home.path()).unwrap();
        let ours = Ours { directory: &directory, note: Some(&note), system: None };
        assert_eq!(listen(home.path(), &ours), Answer::None, "no socket");
        let listener = UnixListener::bind(&socket).unwrap();
        assert!(matches!(listen(home.path(), &ours), Answer::Unclear(_)), "no lock file");
        let lock = home.path().join(".s.PGSQL.5432.lock");
        fs::write(&lock, NOTE).unwrap();
        assert!(matches!(listen(home.path(), &ours), Answer::Ours(_)));
        fs::write(&lock, NOTE.replace("4711", "12")).unwrap();
        assert_eq!(listen(home.path(), &ours), Answer::None, "another server took the port");
        drop(listener);
        fs::write(&lock, NOTE).unwrap();
        assert_eq!(listen(home.path(), &ours), Answer::None, "a socket that nobody listens to");
    }

    #[test]
    fn without_a_note_lock_files_that_name_the_directory_lead_to_its_server() {
        let home = tempfile::tempdir().unwrap();
        let _listener = UnixListener::bind(home.path().join(".s.PGSQL.5432")).unwrap();
        let directory = fs::metadata(home.path()).unwrap();
        let ours = Ours { directory: &directory, note: None, system: None };
        assert_eq!(listen(home.path(), &ours), Answer::None);
        let lock = format!("4711\n{}\n1795902500\n", home.path().display());
        fs::write(home.path().join(".s.PGSQL.5432.lock"), lock).unwrap();
        assert!(matches!(listen(home.path(), &ours), Answer::Ours(_)));
    }

    #[test]
    fn a_port_that_does_not_speak_the_protocol_is_another_service() {
        let home = tempfile::tempdir().unwrap();
        let directory = fs::metadata(home.path()).unwrap();
        for (says, silent) in [(Some(&b"HTTP/1.1 400"[..]), false), (None, true)] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let note = Noted::parse(&format!("{NOTE}{port}\n\n127.0.0.1\n"));
            let ours = Ours { directory: &directory, note: Some(&note), system: None };
            let thread = std::thread::spawn(move || {
                let (mut client, _) = listener.accept().unwrap();
                match says {
                    Some(says) => client.write_all(says).unwrap(),
                    None => std::thread::sleep(PATIENCE + Duration::from_secs(1)),
                }
            });
            assert_eq!(matches!(listen(home.path(), &ours), Answer::Unclear(_)), silent);
            thread.join().unwrap();
        }
    }
}
