//! Finds the server's programs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use everpoint_engine::EngineError;

/// Names the directory of the programs, whatever the version.
const ONE_DIRECTORY: &str = "EVERPOINT_PG_BIN";

/// Names a directory that holds `pg13/bin`, `pg14/bin`, ...
const MANY_VERSIONS: &str = "EVERPOINT_PG_BINARIES";

/// The directory with the programs (`postgres` at least) of this major version: that of the configuration, which after an
/// upgrade has another version than an older image needs, then that named by `$EVERPOINT_PG_BIN`,
/// `$EVERPOINT_PG_BINARIES/pg<major>/bin`, the places of Debian's and the PGDG's packages, the search path.
///
/// # Errors
/// If none of them has a `postgres` of this version.
pub fn find_programs(configured: Option<&Path>, major: u32) -> Result<PathBuf, EngineError> {
    let mut places: Vec<PathBuf> = configured.map(Path::to_owned).into_iter().collect();
    places.extend(env::var_os(ONE_DIRECTORY).map(PathBuf::from));
    places.extend(env::var_os(MANY_VERSIONS).map(|root| Path::new(&root).join(format!("pg{major}/bin"))));
    places.push(format!("/usr/lib/postgresql/{major}/bin").into());
    places.push(format!("/usr/pgsql-{major}/bin").into());
    places.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    let found = places.iter().find(|place| version_of(place) == Some(major));
    found.cloned().ok_or_else(|| {
        let looked: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        let message = format!("none of {} has them", looked.join(", "));
        EngineError::new("pg.programs", "find the programs of", format!("PostgreSQL {major}"), message).hint(
            format!("install the server package of PostgreSQL {major}, or set pg_bin or {ONE_DIRECTORY}"),
        )
    })
}

/// Major version of the `postgres` in a directory.
fn version_of(directory: &Path) -> Option<u32> {
    let program = directory.join("postgres");
    if !program.is_file() {
        return None;
    }
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_once("(PostgreSQL) ")?.1;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
