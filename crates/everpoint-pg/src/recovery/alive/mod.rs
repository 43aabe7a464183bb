//! What tells of a server on a directory: processes, shared memory, sockets, its own notes.

mod answers;
mod noted;
mod processes;
mod spaces;

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use everpoint_core::{Ended, LifeSigns, RunNote};
use everpoint_engine::EngineError;

use super::failed;
use crate::control::{CONTROL_FILE, ClusterState, Control};
use noted::Noted;
pub use spaces::tablespace_in_use;

/// File systems that other machines, or programs that we don't see, may write to.
const SHARED_FILE_SYSTEMS: [u32; 13] = [
    0x6969,      // nfs
    0x517b,      // smb
    0xfe53_4d42, // smb2
    0xff53_4d42, // cifs
    0x00c3_6400, // ceph
    0x0102_1997, // 9p
    0x6573_5546, // fuse
    0x0116_1970, // gfs2
    0x7461_636f, // ocfs2
    0x0bd0_0bd0, // lustre
    0x4750_4653, // gpfs
    0x5346_414f, // afs
    0x786f_4256, // vboxsf
];

/// Gathers the signs of a directory, which need not exist.
///
/// # Errors
/// If it is there and can't be looked at: then nothing is known.
pub fn life_signs(directory: &Path) -> Result<LifeSigns, EngineError> {
    let fail = |error| failed("look at", directory, error);
    let found = match fs::metadata(directory) {
        Ok(found) if found.is_dir() => found,
        Ok(_) => return Ok(LifeSigns::default()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(LifeSigns::default());
        }
        Err(error) => return Err(fail(error)),
    };
    // A server that starts writes its note before it does anything: the note is read first.
    let noted = Noted::read(directory).map_err(fail)?;
    let copied = noted.as_ref().is_some_and(|noted| noted.is_of_another(&found));
    let noted = noted.filter(|_| !copied);
    let control = control(directory);
    let seen = processes::look(&found, noted.as_ref());
    let ours = answers::Ours {
        directory: &found,
        note: noted.as_ref(),
        system: control.as_ref().ok().and_then(|control| control.as_ref().map(|it| it.system)),
    };
    Ok(LifeSigns {
        processes: seen.servers,
        memory: noted.as_ref().and_then(|noted| attached(noted, &found)),
        answer: answers::listen(directory, &ours),
        ended: match &control {
            Ok(None) => Ended::NoControl,
            Ok(Some(control)) => match control.state {
                ClusterState::ShutDown | ClusterState::ShutDownInRecovery => Ended::InOrder,
                ClusterState::Production if is_fresh(directory) => Ended::NotBegun,
                _ => Ended::NotInOrder,
            },
            Err(()) => Ended::Unknown,
        },
        note: noted.as_ref().map(|noted| RunNote { started: noted.started, between: noted.is_between() }),
        quiet_seconds: now().zip(Some(found.mtime())).and_then(|(now, at)| u64::try_from(now - at).ok()),
        booted: booted(),
        local: is_local(directory),
        blind: seen.blind,
    })
}

fn now() -> Option<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(now.as_secs()).ok()
}

/// When this kernel started.
fn booted() -> Option<i64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn is_local(directory: &Path) -> bool {
    // Kinds are 32 bits wide, whatever the type that the C library gives them.
    rustix::fs::statfs(directory).is_ok_and(|found| !SHARED_FILE_SYSTEMS.contains(&(found.f_type as u32)))
}

/// The control file; `None` if there is none.
fn control(directory: &Path) -> Result<Option<Control>, ()> {
    /// A server writes it in one go, but a reader may see half of that.
    const ATTEMPTS: u32 = 5;
    for _ in 0..ATTEMPTS {
        match fs::read(directory.join(CONTROL_FILE)) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(_) => return Err(()),
            Ok(bytes) => {
                if let Ok(control) = Control::parse(&bytes) {
                    return Ok(Some(control));
                }
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Err(())
}

/// Whether a restore wrote this directory and no server has begun to recover it. The image's control file is that of a
/// running server; the first thing that a recovery does is to say in it that it recovers, and to put the label away.
fn is_fresh(directory: &Path) -> bool {
    let there = |name: &str| directory.join(name).exists();
    there("backup_label") && (there("recovery.signal") || there("standby.signal"))
}

/// Whether the shared memory that the note names has a user. A server numbers its memory by the inode of its directory,
/// counting on where the number is taken: memory of a far number belongs to another directory, whose note this copies.
fn attached(noted: &Noted, directory: &Metadata) -> Option<String> {
    /// Numbers that a server tries.
    const NEAR: u32 = 1024;
    let (key, id) = noted.memory?;
    // Keys have 32 bits: the server, too, cuts the inode off.
    if key.cast_unsigned().wrapping_sub(directory.ino() as u32) > NEAR {
        return None;
    }
    let table = fs::read_to_string("/proc/sysvipc/shm").ok()?;
    let users = table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.first()?.parse() == Ok(key) && fields.get(1)?.parse() == Ok(id);
        is_it.then(|| fields.get(6)?.parse::<u64>().ok()).flatten()
    })?;
    (users > 0).then(|| format!("{users} processes use the shared memory that postmaster.pid names"))
}
