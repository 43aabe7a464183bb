//! What a server needs to start on a directory in production's place, and would not find: known before a byte is written. And what
//! its log says where it was not known.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use everpoint_core::name::{of_path, to_path};
use everpoint_core::shell;
use everpoint_engine::{RecoverySettings, Unstartable, owner_of};

use super::ending::SETTINGS;
use super::layout::{came_along, config_outside, fact, facts, is_same, is_there, start_settings};
use super::steps::put_back_later;
use crate::files::BESIDE;
use crate::outside::{CONFIG_FILE, DATA_DIRECTORY, DIRECTORY, LINK, is_read_by_tools, lacking};

/// A server that only reads its configuration has done so within this, or waits for something.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the server says that it can't use its configuration, or what that names on the machine.
const COMPLAINTS: [&str; 11] = [
    "syntax error in file ",
    "could not open configuration ",
    "could not open file \"/",
    "could not open secondary authentication file ",
    "unrecognized configuration parameter ",
    "invalid value for parameter ",
    "could not load ",
    "could not access file ",
    "could not bind ",
    "could not create lock file ",
    " contains errors",
];

/// Why no server would start on the directory once it is restored; `None` where nothing speaks against it. `programs`: those of its
/// server, if they are known.
#[must_use]
pub fn unstartable(settings: &RecoverySettings, programs: Option<&Path>) -> Option<Unstartable> {
    if !settings.keep_configuration {
        return None;
    }
    let (absent, whole) = absent(settings);
    if absent.is_empty() {
        return programs.filter(|_| whole).and_then(|programs| unreadable(settings, programs));
    }
    let names: Vec<String> = absent.iter().map(|path| path.display().to_string()).collect();
    let mut commands = put_back_later(settings, &|file| is_wanted(settings, &absent, file)).join(" && ");
    if commands.is_empty() {
        commands = "make them, or take out what names them".to_owned();
    }
    Some(Unstartable {
        reason: format!("what its configuration names is not there: {}", names.join(", ")),
        remedy: format!("once it is restored, and before its server is started: {commands}"),
        now: false,
    })
}

/// Whether a file is one that is missed, or lies in a directory that is; where the main file is gone, all of them are.
fn is_wanted(settings: &RecoverySettings, absent: &BTreeSet<PathBuf>, file: &Path) -> bool {
    let config = config_outside(settings);
    let file = real(file);
    absent.iter().any(|path| config.as_ref() == Some(path) || file.starts_with(real(path)))
}

/// A path without the links and steps up on its way, as far as this is there.
fn real(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    there.map_or_else(
        || path.to_owned(),
        |(above, real)| path.strip_prefix(above).map_or_else(|_| real.clone(), |rest| real.join(rest)),
    )
}

/// The files and directories outside of the data directory that a start needs and that are not at their places; and whether nothing at
/// all speaks against the configuration that lies here.
fn absent(settings: &RecoverySettings) -> (BTreeSet<PathBuf>, bool) {
    let outside = config_outside(settings);
    let kept = |name: &str| settings.kept.iter().any(|kept| kept == Path::new(name));
    let inside = || kept("postgresql.conf").then(|| settings.directory.join("postgresql.conf"));
    let here = outside.map_or_else(inside, |config| is_there(&config).then_some(config));
    // The image's is not here yet: then what was there when it was made is wanted.
    let Some(config) = here else { return (recorded(settings), false) };
    let lacking = lacking(&settings.directory, &config, &start_settings(settings));
    let whole = lacking.is_empty() && kept(SETTINGS);
    let missing = lacking.into_iter().filter(|(path, missing)| *missing && !lies_inside(settings, path));
    (missing.map(|(path, _)| path).collect(), whole)
}

/// What lies in the directory comes with the image.
fn lies_inside(settings: &RecoverySettings, path: &Path) -> bool {
    let above = path.ancestors().skip(1).find(|above| above.exists());
    path.starts_with(&settings.directory)
        || above.is_some_and(|above| above.ancestors().any(|above| is_same(above, &settings.directory)))
}

/// What the backup's configuration named outside of the directory and is not there: of a directory that is there, whatever was in it,
/// it takes what it finds.
fn recorded(settings: &RecoverySettings) -> BTreeSet<PathBuf> {
    let data = to_path(fact(settings, DATA_DIRECTORY).unwrap_or("/"));
    let directories: Vec<PathBuf> = facts(settings, DIRECTORY).map(|(path, _)| to_path(path)).collect();
    let links: Vec<PathBuf> = facts(settings, LINK)
        .map(|(path, target)| data.join(to_path(path)).parent().unwrap_or(&data).join(to_path(target)))
        .collect();
    let config = config_outside(settings);
    let named = [CONFIG_FILE, "hba_file", "ident_file"].into_iter().filter_map(|name| fact(settings, name));
    let named = named.map(to_path).filter(|file| !file.starts_with(&data)).chain(config.clone());
    let optional = |file: &PathBuf| {
        // A link that can't be made again stays a file with what it led to.
        links.iter().any(|target| file.starts_with(target))
            || directories.iter().any(|place| file.parent() == Some(place) && place.is_dir())
            || config.as_ref().is_some_and(|config| is_read_by_tools(config, file))
    };
    let files = came_along(settings).into_iter().filter(|file| !optional(file)).chain(named);
    let absent = |path: &PathBuf| path.is_absolute() && !is_there(path);
    files.filter(absent).chain(directories.iter().filter(|path| absent(path)).cloned()).collect()
}

/// Asks the server's own program, as the user as whom it will run, whether it can read the configuration that stays. All that this
/// names is there.
fn unreadable(settings: &RecoverySettings, programs: &Path) -> Option<Unstartable> {
    let said = complaint_of(settings, programs)?;
    let line = said.lines().find_map(complaint)?;
    let file = quoted_file(&line).filter(|file| file.is_file());
    let remedy = file.map_or_else(
        || "correct it".to_owned(),
        |file| {
            let mut broken = file.as_os_str().to_owned();
            broken.push(".broken");
            let commands = format!("mv {} {}", shell::path(&file), shell::path(Path::new(&broken)));
            if lies_inside(settings, &file) {
                format!("correct it; or move it away, then that of the backup comes in its place, if it has one: {commands}")
            } else {
                "correct it".to_owned()
            }
        },
    );
    Some(Unstartable {
        reason: format!("its server can't read its configuration: {line}"),
        remedy,
        now: true,
    })
}

/// What the program says if it can't use the configuration; `None`: it can, or it is not known.
fn complaint_of(settings: &RecoverySettings, programs: &Path) -> Option<String> {
    let owner = owner_of(&settings.directory).ok()?;
    let mut command = Command::new(programs.join("postgres"));
    command.args(["-C", DATA_DIRECTORY, "-D"]).arg(&settings.directory);
    let here = (DATA_DIRECTORY.to_owned(), of_path(&settings.directory));
    for (name, value) in std::iter::once(here).chain(start_settings(settings)) {
        command.arg("-c").arg(to_path(&format!("{name}={value}")));
    }
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").current_dir("/");
    if let Some(owner) = &owner {
        command.uid(owner.uid).gid(owner.gid);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut asked = command.spawn().ok()?;
    let until = Instant::now() + PATIENCE;
    let ended = loop {
        match asked.try_wait() {
            Ok(Some(ended)) => break Some(ended),
            Ok(None) if Instant::now() < until => sleep(Duration::from_millis(5)),
            _ => break None,
        }
    };
    if ended.is_none() {
        let _ = asked.kill();
        let _ = asked.wait();
    }
    let mut said = Vec::new();
    asked.stderr.take()?.take(1 << 16).read_to_end(&mut said).ok()?;
    let said = String::from_utf8_lossy(&said).into_owned();
    // What its user may not read is given to it before the start.
    let closed = owner.is_some() && said.contains("Permission denied");
    (ended.is_some_and(|ended| !ended.success()) && said.contains(" contains errors") && !closed)
        .then_some(said)
}

/// What a line of the server's log complains of, without what stands before that.
fn complaint(line: &str) -> Option<String> {
    let (_, text) = line.split_once("LOG:  ").or_else(|| line.split_once("FATAL:  "))?;
    COMPLAINTS.iter().any(|known| text.contains(known)).then(|| text.trim().to_owned())
}

/// The file that a complaint names.
fn quoted_file(line: &str) -> Option<PathBuf> {
    line.split('"').skip(1).step_by(2).map(to_path).find(|path| path.is_absolute())
}

/// What to do about a server that ended by itself: `said` is the end of its log.
pub(super) fn after_the_end(said: &str, directory: &Path, log: &Path) -> String {
    let whole = format!("its whole log is {}", log.display());
    let Some(line) = said.lines().find_map(complaint) else { return whole };
    let Some(file) = quoted_file(&line) else {
        return format!("correct what it says ({line}), then run the same command again; {whole}");
    };
    let mut beside = file.as_os_str().to_owned();
    beside.push(BESIDE);
    let beside = PathBuf::from(beside);
    if beside.is_file() {
        return format!(
            "correct it ({line}), or take that of the backup: cp {} {}; then run the same command again; {whole}",
            shell::path(&beside),
            shell::path(&file)
        );
    }
    if file.starts_with(directory) && file.exists() {
        return format!(
            "{} came with the backup, and the same command again brings it back as it is ({line}): leave out --start, correct it, and \
             start the server as the restore says; {whole}",
            of_path(&file)
        );
    }
    format!("correct it ({line}), then run the same command again; {whole}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::configuration;
    use super::*;
    use crate::outside::EXTERNAL;

    #[test]
    fn what_a_server_complained_of_is_told_with_what_helps() {
        let scratch = tempfile::tempdir().unwrap();
        let (data, log) = (scratch.path(), scratch.path().join("log"));
        let conf = data.join("postgresql.conf");
        fs::write(&conf, "").unwrap();
        let shown = conf.display();
        let said = format!(
            "2026-01-29 14:00:00 UTC [7] LOG:  starting\n[7] LOG:  syntax error in file \"{shown}\" line 3, near end of line\n\
             [7] FATAL:  configuration file \"{shown}\" contains errors"
        );
        let hint = after_the_end(&said, data, &log);
        assert!(hint.contains("syntax error in file") && hint.contains("leave out --start"), "{hint}");
        fs::write(data.join("postgresql.conf.everpoint-backup"), "").unwrap();
        let hint = after_the_end(&said, data, &log);
        assert!(
            hint.contains(&format!("cp {shown}.everpoint-backup {shown}; then run the same command again"))
        );
        let hint = after_the_end("FATAL:  could not load /etc/x/pg_hba.conf", data, &log);
        assert!(hint.starts_with("correct it") || hint.starts_with("correct what it says"), "{hint}");
        let taken = "[7] LOG:  could not bind IPv4 address \"127.0.0.1\": Address already in use";
        let hint = after_the_end(taken, data, &log);
        assert!(hint.contains("Address already in use), then run the same command again"), "{hint}");
        let other =
            "PANIC:  could not open file \"pg_wal/000000010000000000000003\": No such file or directory";
        assert_eq!(after_the_end(other, data, &log), format!("its whole log is {}", log.display()));
    }

    /// As the backup knows it, on a machine that has nothing of it.
    #[test]
    fn of_what_was_recorded_only_what_a_start_needs_is_missed() {
        let scratch = tempfile::tempdir().unwrap();
        let etc = scratch.path().join("etc");
        fs::create_dir_all(etc.join("conf.d")).unwrap();
        let fact = |name: String, value: &str| (name, value.to_owned());
        let external = |name: &str| fact(format!("{EXTERNAL}{}", etc.join(name).display()), "- 0600");
        let mut settings = configuration::tests::settings();
        settings.directory = scratch.path().join("data");
        settings.keep_configuration = true;
        settings.facts = vec![
            fact(DATA_DIRECTORY.to_owned(), "/srv/main"),
            fact(CONFIG_FILE.to_owned(), "/srv/main/postgresql.conf"),
            external("conf.d/of-then.conf"),
            external("linked.key"),
            external("shared.conf"),
            fact(format!("{DIRECTORY}{}", etc.join("conf.d").display()), ""),
            fact(format!("{LINK}server.key"), etc.join("linked.key").to_str().unwrap()),
        ];
        let found = unstartable(&settings, None).unwrap();
        let shared = etc.join("shared.conf");
        assert_eq!(found.reason, format!("what its configuration names is not there: {}", shared.display()));
        assert!(found.remedy.contains("cp -a ") && !found.remedy.contains("of-then"), "{}", found.remedy);
        fs::write(&shared, "").unwrap();
        assert_eq!(unstartable(&settings, None), None);
        fs::remove_dir(etc.join("conf.d")).unwrap();
        let found = unstartable(&settings, None).unwrap();
        assert!(found.remedy.contains("mkdir -p ") && found.remedy.contains("of-then"), "{}", found.remedy);
        settings.keep_configuration = false;
        assert_eq!(unstartable(&settings, None), None, "a copy has a configuration of its own");
    }
}
