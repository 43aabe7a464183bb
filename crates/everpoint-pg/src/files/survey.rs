//! Looks through a data directory before a backup does: what would end one, and what an image would lack.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use everpoint_core::name::of_path;
use everpoint_engine::EngineError;
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::links::{Links, special};
use super::needed::{Live, is_needed};
use super::notes::Notes;
use super::source::{read_control, version_directory};
use super::walk::{Found, Walk, WalkError, names};
use super::{Class, SOCKET, classify, is_emptied, number};
use crate::outside::is_own_place;

/// A check must not last as long as a backup.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Surveyed {
    /// What would end a backup: where, and why.
    pub(crate) ends: Option<(String, String)>,
    /// What an image would lack, with the reason.
    pub(crate) lacks: BTreeMap<String, String>,
    /// Files and directories that were looked at.
    pub(crate) count: u64,
    /// Not all of them.
    pub(crate) cut: bool,
}

enum End {
    Needed(WalkError),
    TooLong,
}

impl From<WalkError> for End {
    fn from(error: WalkError) -> Self {
        Self::Needed(error)
    }
}

/// For a backup that reads the files here.
///
/// # Errors
/// If it is no data directory.
pub(crate) fn survey(data_dir: &Path, live: Option<&Live>) -> Result<Surveyed, EngineError> {
    let version_directory = version_directory(data_dir, &read_control(data_dir)?)?;
    let (links, notes) = (Links::new(data_dir, &version_directory), Notes::default());
    let (version_directory, leave_out) = (version_directory.as_str(), &[]);
    let walk = Walk { data_dir, version_directory, links, live, leave_out, notes: &notes };
    let (since, mut surveyed) = (Instant::now(), Surveyed::default());
    let ended = walk.run::<End>(&mut |found: Found| {
        surveyed.count += 1;
        if since.elapsed() > PATIENCE {
            return Err(End::TooLong);
        }
        let wanted = Access::READ_OK;
        match accessat(CWD, &found.path, wanted, AtFlags::EACCESS) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) if found.needed => Err(WalkError::io(&found.path, error.into()).into()),
            Err(error) => {
                notes.lacks(&found.meta.path, format!("it can't be read: {}", std::io::Error::from(error)));
                Ok(())
            }
        }
    });
    match ended {
        Ok(()) => {}
        Err(End::TooLong) => surveyed.cut = true,
        Err(End::Needed(error)) => surveyed.ends = Some((of_path(&error.path), error.reason.to_string())),
    }
    surveyed.lacks = notes.into_lacking();
    Ok(surveyed)
}

/// For a backup over the network, of a server whose directory can be looked at here: the server follows no link but those to
/// tablespaces and to its log, and ends the backup where it can't read.
pub(crate) fn survey_for_server(data_dir: &Path, live: Option<&Live>) -> Surveyed {
    let mut surveyed = Surveyed::default();
    let Ok(root) = fs::metadata(data_dir) else { return surveyed };
    let mut look = Sending { server: &root, live, since: Instant::now(), surveyed: &mut surveyed };
    look.directory(data_dir, "");
    surveyed
}

struct Sending<'a> {
    /// Its owner is the account that the server runs as.
    server: &'a Metadata,
    live: Option<&'a Live>,
    since: Instant,
    surveyed: &'a mut Surveyed,
}

impl Sending<'_> {
    fn directory(&mut self, path: &Path, name: &str) {
        for (entry, real) in names(path).unwrap_or_default() {
            self.surveyed.cut |= self.since.elapsed() > PATIENCE;
            if self.surveyed.cut || self.surveyed.ends.is_some() {
                return;
            }
            let below = if name.is_empty() { entry } else { format!("{name}/{entry}") };
            self.entry(&path.join(real), &below);
        }
    }

    fn entry(&mut self, full: &Path, name: &str) {
        let Ok(mut found) = fs::symlink_metadata(full) else { return };
        self.surveyed.count += 1;
        let skipped = !found.is_dir() && matches!(classify(name), Class::Skip(_));
        let socket = name.rsplit('/').next().unwrap_or_default().starts_with(SOCKET);
        if skipped || socket || is_emptied(name) {
            return;
        }
        let space = name.strip_prefix("pg_tblspc/").is_some_and(|oid| number(oid).is_some());
        if found.is_symlink() {
            let Ok(target) = fs::metadata(full) else {
                return self.passed_over(full, name, "a link to nowhere");
            };
            if !space {
                // Of a link to configuration another line tells.
                let configuration = target.is_file() && !is_own_place(name);
                if !configuration {
                    self.passed_over(full, name, "a link");
                }
                return;
            }
            found = target;
        }
        if let Some(kind) = special(&found) {
            return self.passed_over(full, name, &format!("a {kind}"));
        }
        if self.is_closed(&found) {
            let reason = "the account that the server runs as may not read it, and its backup ends there";
            self.surveyed.ends = Some((of_path(full), reason.to_owned()));
        } else if found.is_dir() {
            self.directory(full, name);
        }
    }

    fn passed_over(&mut self, full: &Path, name: &str, kind: &str) {
        let reason = format!("it is {kind}: the server passes over it when it sends its files");
        if is_needed(name, self.live) {
            self.surveyed.ends = Some((of_path(full), reason));
        } else {
            self.surveyed.lacks.insert(name.to_owned(), reason);
        }
    }

    /// Whether the server surely can't read it. Of other groups that its account is in nothing is known.
    fn is_closed(&self, found: &Metadata) -> bool {
        let wanted = if found.is_dir() { 0o5 } else { 0o4 };
        let (own, same_group) = (found.uid() == self.server.uid(), found.gid() == self.server.gid());
        let lacks = |shift: u32| found.mode() >> shift & wanted != wanted;
        match (own, same_group) {
            (true, _) => lacks(6),
            (false, true) => lacks(3),
            (false, false) => lacks(3) && lacks(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_a_server_does_not_send_is_found_before() {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        for directory in ["base/5", "pg_xact", "closed", "elsewhere"] {
            fs::create_dir_all(data.join(directory)).unwrap();
        }
        fs::write(data.join("base/5/1259"), "").unwrap();
        symlink("elsewhere", data.join("log")).unwrap();
        symlink("nowhere", data.join("dangling")).unwrap();
        symlink("elsewhere", data.join("pg_wal")).unwrap();
        symlink("../PG_VERSION", data.join("postgresql.conf")).unwrap();
        let surveyed = survey_for_server(&data, None);
        assert_eq!(surveyed.ends, None);
        assert_eq!(surveyed.lacks.keys().collect::<Vec<_>>(), ["dangling", "log", "postgresql.conf"]);
        fs::set_permissions(data.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
        let ends = survey_for_server(&data, None).ends.unwrap();
        assert!(ends.0.ends_with("closed") && ends.1.contains("may not read"), "{ends:?}");
        fs::remove_dir(data.join("closed")).unwrap();
        symlink("../elsewhere", data.join("base/7")).unwrap();
        let ends = survey_for_server(&data, None).ends.unwrap();
        assert!(ends.0.ends_with("base/7") && ends.1.contains("a link"), "{ends:?}");
        let live = Live { databases: [5].into(), ..Live::default() };
        assert!(survey_for_server(&data, Some(&live)).ends.is_none(), "an orphan is nobody's loss");
    }
}
