//! Directories of this machine that a server writes to.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use everpoint_core::name::{of_path, to_path};
use everpoint_engine::TablespaceLink;

use crate::client::{Config, Host, Purpose, connect};
use crate::control::{CONTROL_FILE, Control};
use crate::files;

/// The data directory and what its links to tablespaces lead to: of the directory that is configured, else of the one
/// that the server names, if it runs here. As far as they are known.
pub(super) fn of(data_dir: Option<&Path>, config: Option<&Config>) -> Vec<PathBuf> {
    let data = data_dir.map(Path::to_owned).or_else(|| config.and_then(ask));
    let Some(data) = data else { return Vec::new() };
    let links = files::tablespaces(&data).unwrap_or_default();
    let spaces = links.into_iter().filter_map(|link| link.path).map(|path| to_path(&path));
    std::iter::once(data.clone()).chain(spaces).collect()
}

/// What a server on this machine says; a name like that may stand for another directory here, if it runs in a container.
fn ask(config: &Config) -> Option<PathBuf> {
    if !config.hosts.iter().all(is_here) {
        return None;
    }
    let mut sql = connect(config, Purpose::Sql).ok()?;
    let directory = to_path(&sql.setting("data_directory").ok()??);
    let rows = sql.query("SELECT system_identifier FROM pg_catalog.pg_control_system()").ok()?;
    let system: u64 = rows.single()?.parse().ok()?;
    match fs::read(directory.join(CONTROL_FILE)) {
        Ok(bytes) => Control::parse(&bytes).ok().is_none_or(|found| found.system == system),
        Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
    }
    .then_some(directory)
}

fn is_here(host: &Host) -> bool {
    let loopback =
        |name: &str| name == "localhost" || name.parse::<IpAddr>().is_ok_and(|it| it.is_loopback());
    host.is_unix() || host.address.map_or_else(|| loopback(&host.name), |address| address.is_loopback())
}

/// Paths as a backup names them: relative to the data directory, or below `pg_tblspc/<oid>`. Those that lie elsewhere
/// are none of a backup's.
pub(crate) fn relative(paths: &[PathBuf], data: &Path, spaces: &[TablespaceLink]) -> Vec<String> {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let data = real(data);
    let one = |path: &PathBuf| {
        let path = real(path);
        if let Ok(inside) = path.strip_prefix(&data) {
            return Some(of_path(inside));
        }
        spaces.iter().find_map(|space| {
            let inside = path.strip_prefix(real(&to_path(space.path.as_ref()?))).ok()?;
            Some(format!("pg_tblspc/{}/{}", space.oid, of_path(inside)))
        })
    };
    paths.iter().filter_map(one).filter(|path| !path.is_empty()).collect()
}

/// [`relative`] to the data directory of a server on this machine; `None` if it does not say where that is. Nothing for
/// another one's: these paths are ours.
pub(crate) fn relative_of(
    config: &Config,
    paths: &[PathBuf],
    spaces: &[TablespaceLink],
) -> Option<Vec<String>> {
    if paths.is_empty() {
        return Some(Vec::new());
    }
    Some(relative(paths, &ask(config)?, spaces))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_named_as_in_the_image() {
        let home = tempfile::tempdir().unwrap();
        let [data, space] = ["data", "space"].map(|name| home.path().join(name));
        fs::create_dir_all(data.join("repository")).unwrap();
        fs::create_dir_all(space.join("PG_15_202209061/key")).unwrap();
        let spaces = [
            TablespaceLink { oid: 16400, path: Some(space.display().to_string()) },
            TablespaceLink { oid: 16401, path: None },
        ];
        let paths = [
            data.join("repository"),
            space.join("PG_15_202209061/key"),
            home.path().join("elsewhere"),
            data.clone(),
        ];
        let wanted = ["repository", "pg_tblspc/16400/PG_15_202209061/key"];
        assert_eq!(relative(&paths, &data, &spaces), wanted);
    }

    #[test]
    fn only_a_server_on_this_machine_is_asked() {
        let host = |name: &str, address: Option<&str>| Host {
            name: name.to_owned(),
            address: address.map(|it| it.parse().unwrap()),
            port: 5432,
        };
        for here in ["/run/postgresql", "localhost", "127.0.0.1", "::1"] {
            assert!(is_here(&host(here, None)), "{here}");
        }
        assert!(!is_here(&host("db1", None)) && !is_here(&host("localhost", Some("10.0.0.1"))));
    }
}
