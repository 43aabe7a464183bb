//! What of this machine can refuse a restore before its first byte is written: a port, a server that runs, our own files,
//! rights, programs, room.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::{Path, PathBuf};

use everpoint_core::{FailureClass, RestorePlan};
use everpoint_format::manifest::FileKind;
use rustix::fs::{Access, AtFlags};

use super::RestoreRequest;
use super::image::rebuilt;
use super::live;
use super::room::Room;
use crate::belongings::Places;
use crate::{AppError, ClusterContext, belongings};

/// Log that a replaying server keeps at most, about: what it has replayed goes with its restart points.
const KEPT_LOG: u64 = 1 << 30;

/// Where a path of the image goes.
pub(super) type Placing<'a> = &'a dyn Fn(&str) -> Result<PathBuf, AppError>;

/// What is to be written where, on this machine.
pub(super) struct Machine<'a> {
    /// Repository and engine.
    pub(super) context: &'a ClusterContext,
    /// What was asked for.
    pub(super) request: &'a RestoreRequest,
    /// The data directory.
    pub(super) root: &'a Path,
    /// Places of tablespaces.
    pub(super) spaces: &'a [PathBuf],
    /// Those that were named by hand.
    pub(super) mapped: &'a [PathBuf],
    /// Where a path of the image goes.
    pub(super) placing: Placing<'a>,
    /// What is there is kept where it is the same.
    pub(super) delta: bool,
}

/// Refuses a port on which somebody listens: known before anything is looked up.
///
/// # Errors
/// `restore.port`, class `Usage`.
fn port(wanted: u16) -> Result<(), AppError> {
    if wanted == 0 {
        let message = "there is no such port";
        return Err(AppError::new("restore.port", FailureClass::Usage, "use the port", "0", message)
            .hint("leave --port out: a free one is taken"));
    }
    let places = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    for place in places {
        let Err(error) = TcpListener::bind((place, wanted)) else { continue };
        let message = match error.kind() {
            std::io::ErrorKind::AddrInUse => format!("another program listens on it ({place})"),
            std::io::ErrorKind::PermissionDenied => "it is not for this user".to_owned(),
            // A machine without one of the two kinds of addresses.
            _ => continue,
        };
        return Err(AppError::new(
            "restore.port",
            FailureClass::Usage,
            "use the port",
            wanted.to_string(),
            message,
        )
        .hint("name another one with --port, or leave it out: a free one is taken"));
    }
    Ok(())
}

impl RestoreRequest {
    /// Refuses a port on which somebody listens. Where that may be the server of the directory itself, that one is named.
    ///
    /// # Errors
    /// `restore.port` or `restore.live_server`, class `Usage`.
    pub(super) fn port(&self, context: &ClusterContext) -> Result<(), AppError> {
        let Some(wanted) = self.start.as_ref().and_then(|start| start.port) else { return Ok(()) };
        port(wanted).map_err(|taken| {
            let runs = (!self.directory.as_os_str().is_empty()).then(|| {
                let root = std::path::absolute(&self.directory).unwrap_or_else(|_| self.directory.clone());
                live::refuse(context.engine.as_ref(), &root, self.server_is_stopped).err()
            });
            runs.flatten().unwrap_or(taken)
        })
    }
}

impl Machine<'_> {
    /// What refuses whatever the plan is: our own files and rights. Returns what to warn of.
    ///
    /// # Errors
    /// Class `Usage` for the place. Nothing was touched.
    pub(super) fn places(&self) -> Result<Vec<String>, AppError> {
        let servers = self.context.engine.directories();
        let places = Places { root: self.root, spaces: self.spaces, mapped: self.mapped };
        belongings::refuse_places(&places, self.context, &servers)?;
        for place in std::iter::once(self.root).chain(self.spaces.iter().map(PathBuf::as_path)) {
            rights(place)?;
        }
        let misplaced = belongings::misplaced(&self.context.belongings, &servers);
        Ok(misplaced.iter().map(belongings::Misplaced::told).collect())
    }

    /// Whether it fits, file system by file system, of which `freed` has what is removed before the first byte is written.
    /// Quotas are not seen. Returns what to warn of.
    ///
    /// # Errors
    /// `restore.no_room`; if the map of the image can't be read.
    pub(super) fn room(
        &self,
        plan: &RestorePlan,
        freed: &BTreeMap<u64, u64>,
    ) -> Result<Vec<String>, AppError> {
        let mut room = Room::after(freed);
        let outside = self.spaces.iter().map(PathBuf::as_path).filter(|place| !place.starts_with(self.root));
        std::iter::once(self.root).chain(outside).for_each(|place| room.mark(place));
        if self.delta {
            rebuilt(self.root).iter().for_each(|path| room.spare(path));
        }
        let mut manifest = self.context.cluster.open_manifest(&plan.backup)?;
        while let Some(entry) = manifest.next_entry()? {
            super::stopped(&self.request.stop)?;
            match entry.kind {
                FileKind::Directory => {}
                FileKind::External => room.file(&self.root.join("external"), &entry, false),
                _ => room.file(&(self.placing)(&entry.path)?, &entry, self.delta),
            }
        }
        let log = plan.log_bytes.min(KEPT_LOG);
        room.bytes(&self.root.join("pg_wal/log"), log);
        if self.request.stage_log {
            room.bytes(&self.root.join("log"), plan.log_bytes);
        }
        room.check()
    }
}

/// Whether we can write into a directory, or make it. Root can, but not on a file system that is only for reading.
fn rights(place: &Path) -> Result<(), AppError> {
    let Some(there) = place.ancestors().find(|above| std::fs::symlink_metadata(above).is_ok()) else {
        return Ok(());
    };
    let error = |message: String| {
        AppError::new(
            "restore.directory",
            FailureClass::Usage,
            "restore into",
            place.display().to_string(),
            message,
        )
    };
    if !there.is_dir() {
        return Err(error(format!("{} is no directory", there.display())).hint("name another directory"));
    }
    let needed = Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::accessat(rustix::fs::CWD, there, needed, AtFlags::EACCESS).map_err(|cause| {
        let cause = std::io::Error::from(cause);
        error(format!("{} can't be written to: {cause}", there.display()))
            .hint("run it as a user who may write there, or name another directory")
    })?;
    let ours = rustix::process::geteuid();
    let owner = std::fs::metadata(there).map(|found| std::os::unix::fs::MetadataExt::uid(&found));
    let foreign = there == place && !ours.is_root() && owner.is_ok_and(|owner| owner != ours.as_raw());
    if foreign {
        return Err(error("it belongs to another user, and a server takes only its own user's".to_owned())
            .hint("run it as the owner of the directory, or name another one"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_port_that_is_taken_on_either_loopback_address_is_refused() {
        assert_eq!(port(0).unwrap_err().class, FailureClass::Usage);
        let [four, six] = ["127.0.0.1:0", "[::1]:0"].map(TcpListener::bind);
        for listener in [four, six].into_iter().flatten() {
            let taken = listener.local_addr().unwrap().port();
            assert_eq!(port(taken).unwrap_err().code, "restore.port");
            drop(listener);
            port(taken).unwrap();
        }
    }

    #[test]
    fn a_place_must_be_a_directory_that_we_can_write_to_or_make() {
        let home = tempfile::tempdir().unwrap();
        rights(home.path()).unwrap();
        rights(&home.path().join("not/yet")).unwrap();
        let file = home.path().join("file");
        std::fs::write(&file, "").unwrap();
        for wrong in [file.clone(), file.join("below")] {
            assert_eq!(rights(&wrong).unwrap_err().class, FailureClass::Usage, "{wrong:?}");
        }
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
        let root = rustix::process::geteuid().is_root();
        assert_eq!(rights(&home.path().join("new")).is_ok(), root);
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    }
}
