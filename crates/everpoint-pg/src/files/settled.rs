//! Small files that carry a checksum of their own and are rewritten in place: read until the checksum holds.

use std::fs;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::control::{CONTROL_FILE, Control};
use crate::fields::Fields;

/// The files say which relation files the most basic catalogs have.
const RELATION_MAP: &str = "pg_filenode.map";
const RELATION_MAP_MAGIC: u32 = 0x0059_2717;

/// The server writes such a file in one system call: it can't stay torn for long.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// Whether a file (its path relative to the data directory) is one of these, if its directory is of a database that the
/// server knows: elsewhere a file of the same name is anything.
pub(super) fn has_own_checksum(path: &str) -> bool {
    path == CONTROL_FILE || path.rsplit('/').next() == Some(RELATION_MAP)
}

/// Reads such a file whole.
///
/// # Errors
/// Of the file system, or `InvalidData` when its checksum never held.
pub(super) fn read(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let holds = if name == CONTROL_FILE { control_holds } else { relation_map_holds };
    for attempt in 0..ATTEMPTS {
        let bytes = fs::read(path)?;
        if holds(&bytes) {
            return Ok(bytes);
        }
        if attempt + 1 < ATTEMPTS {
            sleep(PAUSE);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "its own checksum is wrong on every reading"))
}

fn control_holds(bytes: &[u8]) -> bool {
    Control::parse(bytes).is_ok()
}

/// 8 bytes, 62 entries of 8 bytes, checksum, 4 bytes of padding; from 16 on 64 entries and no padding.
fn relation_map_holds(bytes: &[u8]) -> bool {
    let covered = match bytes.len() {
        512 => 504,
        524 => 520,
        _ => return false,
    };
    let Some((body, rest)) = bytes.split_at_checked(covered) else {
        return false;
    };
    Fields::new(body).u32() == Some(RELATION_MAP_MAGIC)
        && Fields::new(rest).u32() == Some(crc32c::crc32c(body))
}
