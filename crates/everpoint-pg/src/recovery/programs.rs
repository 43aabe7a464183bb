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

/// The directory of the programs with which the server of a data directory was started last, as it noted itself.
pub(crate) fn noted_programs(directory: &Path) -> Option<PathBuf> {
    let noted = std::fs::read_to_string(directory.join("postmaster.opts")).ok()?;
    trusted_programs(program_of(&noted)?)
}

/// The directory of a program that a file of the data directory names. As root programs are asked who they are: only what nobody
/// but root can change.
pub(crate) fn trusted_programs(program: &Path) -> Option<PathBuf> {
    let program = std::fs::canonicalize(program).ok()?;
    let trusted = !rustix::process::geteuid().is_root() || program.ancestors().all(is_roots);
    program.parent().filter(|_| trusted).map(Path::to_owned)
}

/// The program comes first and bare, its arguments are quoted.
fn program_of(noted: &str) -> Option<&Path> {
    let line = noted.lines().next()?;
    let program = Path::new(line.split_once(" \"").map_or(line, |(program, _)| program));
    (program.is_absolute() && program.file_name().is_some_and(|name| name == "postgres")).then_some(program)
}

/// Only root can put another in the place of what is there.
fn is_roots(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let (sticky, others) = (0o1000, 0o022);
    std::fs::symlink_metadata(path).is_ok_and(|found| {
        found.uid() == 0 && (found.mode() & others == 0 || (found.is_dir() && found.mode() & sticky != 0))
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_program_is_what_comes_before_the_first_quoted_argument() {
        let found = |noted| program_of(noted).map(|path| path.display().to_string());
        assert_eq!(
            found("/opt/pg 15/bin/postgres \"-D\" \"/d\"\n").as_deref(),
            Some("/opt/pg 15/bin/postgres")
        );
        assert_eq!(found("/opt/bin/postgres\n").as_deref(), Some("/opt/bin/postgres"));
        for odd in ["", "postgres \"-D\"", "/bin/sh \"-c\" \"x\"", "-D /d"] {
            assert_eq!(found(odd), None, "{odd}");
        }
    }

    #[test]
    fn the_programs_that_a_server_noted_come_before_those_that_are_searched() {
        let home = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(home.path()).unwrap();
        let (data, bin) = (home.join("data"), home.join("bin"));
        fs::create_dir(&data).unwrap();
        fs::create_dir(&bin).unwrap();
        let program = bin.join("postgres");
        fs::write(&program, "#!/bin/sh\necho 'postgres (PostgreSQL) 15.3'\n").unwrap();
        mode(&bin, 0o755);
        mode(&program, 0o755);
        assert_eq!(noted_programs(&data), None);
        fs::write(data.join("postmaster.opts"), format!("{} \"-D\" \"/d\"\n", program.display())).unwrap();
        assert_eq!(noted_programs(&data), Some(bin.clone()));
        assert_eq!(find_programs(noted_programs(&data).as_deref(), 15).unwrap(), bin);
        assert_eq!(trusted_programs(&program), Some(bin.clone()), "as the mark of a restore names them");
        // Of another version they count no more.
        assert_ne!(find_programs(noted_programs(&data).as_deref(), 14).ok(), Some(bin.clone()));
        if rustix::process::geteuid().is_root() {
            mode(&bin, 0o777);
            assert_eq!(noted_programs(&data), None, "anybody could have put it there");
            assert_eq!(trusted_programs(&program), None);
        }
    }
}
