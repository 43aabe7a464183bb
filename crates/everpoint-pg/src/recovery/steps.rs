//! The commands that a person types after a restore.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use everpoint_core::name::to_path;
use everpoint_core::shell;
use everpoint_engine::{NextSteps, RecoverySettings, owner_of};

use super::configuration::{MARK, socket_directory};
use super::layout::{
    came_along, command_line, config_of, config_outside, configured, debian_cluster, facts, is_same,
    is_there, put_aside,
};
use super::programs::{find_programs, noted_programs};
use super::watch::{address, login};
use super::{command, major_version};
use crate::files::PUT_ASIDE;
use crate::outside::{DATA_DIRECTORY, DIRECTORY, LACKS, settings_of};

/// The server's log, beside that of a server that was started by us.
const LOG_FILE: &str = "everpoint-server.log";

/// What is left to do after a restore. `port`: where the server runs, if it was started.
#[must_use]
pub fn next_steps(settings: &RecoverySettings, programs: Option<&Path>, port: Option<u16>) -> NextSteps {
    let steps = Steps::new(settings, programs);
    let mut next = if settings.keep_configuration { steps.production(port) } else { steps.copy(port) };
    for (path, reason) in facts(settings, LACKS) {
        next.notes.push(format!("the backup lacks {path}: {reason}"));
    }
    next
}

/// The command that stops the server of a directory: of a copy, or of a cluster of Debian's tools. Others are stopped by what
/// started them, which is not known here.
#[must_use]
pub fn stop_command(directory: &Path, programs: Option<&Path>) -> Option<String> {
    if let Some(config) = config_of(directory) {
        let (version, name) = debian_cluster(&config).filter(|_| command::find("pg_ctlcluster").is_some())?;
        return Some(format!("pg_ctlcluster {version} {name} stop"));
    }
    if !is_generated(directory) {
        return None;
    }
    let noted = noted_programs(directory);
    Some(Control::new(directory, noted.as_deref().or(programs)).stop(directory))
}

/// The commands that bring what came along and is wanted to its place, once it is restored.
pub(super) fn put_back_later(settings: &RecoverySettings, is_wanted: &dyn Fn(&Path) -> bool) -> Vec<String> {
    Steps::new(settings, None).put_back(&|file, _| is_wanted(file))
}

/// Whether its configuration is one that we made for a copy.
fn is_generated(directory: &Path) -> bool {
    fs::read(directory.join("postgresql.conf")).is_ok_and(|text| text.starts_with(MARK.as_bytes()))
}

/// How the server of a directory is started and stopped by hand.
struct Control {
    /// `pg_ctl`, with its path where a shell would not find it, or not this version.
    pg_ctl: String,
    /// Before each command that the server's user must run.
    user: String,
    /// That user, if we are root, who makes what is to belong to it.
    owner: Option<String>,
}

impl Control {
    fn new(directory: &Path, programs: Option<&Path>) -> Self {
        let found = major_version(directory).ok().and_then(|major| find_programs(programs, major).ok());
        let owner = owner_of(directory).ok().flatten().map(|owner| owner.name);
        let user = owner.as_deref().map(command::as_user).unwrap_or_default();
        let owner = owner.filter(|_| !user.is_empty());
        // Another user may have another search path.
        let is_known = |program: &Path| {
            user.is_empty() && command::find("pg_ctl").is_some_and(|known| is_same(&known, program))
        };
        let program = found.map(|programs| programs.join("pg_ctl")).filter(|program| !is_known(program));
        let pg_ctl = program.map_or_else(|| "pg_ctl".to_owned(), |program| shell::path(&program));
        Self { pg_ctl, user, owner }
    }

    fn stop(&self, directory: &Path) -> String {
        format!("{}{} -D {} stop", self.user, self.pg_ctl, shell::path(directory))
    }
}

struct Steps<'a> {
    settings: &'a RecoverySettings,
    control: Control,
}

impl<'a> Steps<'a> {
    fn new(settings: &'a RecoverySettings, programs: Option<&Path>) -> Self {
        Self { settings, control: Control::new(&settings.directory, programs) }
    }

    fn directory(&self) -> String {
        shell::path(&self.settings.directory)
    }

    fn start(&self, more: &str) -> String {
        let config = self.settings.directory.join("postgresql.conf");
        let named = settings_of(&config, &self.settings.directory).remove(DATA_DIRECTORY);
        let elsewhere = named.is_some_and(|named| !is_same(&to_path(&named), &self.settings.directory));
        let here = format!("-c data_directory={}", self.settings.directory.display());
        let more = if elsewhere && more.is_empty() {
            format!(" -o {}", shell::word(&here))
        } else {
            more.to_owned()
        };
        let log = shell::path(&self.settings.directory.join(LOG_FILE));
        let Control { pg_ctl, user, .. } = &self.control;
        format!("{user}{pg_ctl} -D {} -l {log}{more} start", self.directory())
    }

    fn stop(&self) -> String {
        self.control.stop(&self.settings.directory)
    }

    /// Connects to the server that runs: over the socket that it says it has, as a role that it lets in.
    fn connect(&self, port: u16) -> String {
        let directory = self.settings.directory.as_path();
        let running = address(directory);
        let place = running.as_ref().map_or_else(|| socket_directory(directory), |it| it.place.clone());
        let port = running.as_ref().map_or(port, |it| it.port);
        let owner = owner_of(directory).ok().flatten().map(|owner| owner.name);
        let owner = owner.unwrap_or_else(|| std::env::var("USER").unwrap_or_default());
        let role = login(directory, &owner).unwrap_or_else(|| "postgres".to_owned());
        let beside = Path::new(&self.control.pg_ctl).with_file_name("psql");
        let psql = match command::find("psql") {
            None if beside.is_file() => shell::path(&beside),
            _ => "psql".to_owned(),
        };
        format!(
            "{}{psql} -h {} -p {port} -U {} -d postgres",
            self.control.user,
            shell::word(&place),
            shell::word(&role)
        )
    }

    fn copy(&self, port: Option<u16>) -> NextSteps {
        let mut next = NextSteps::default();
        match port {
            Some(port) => {
                next.connect = Some(self.connect(port));
                next.stop = Some(self.stop());
            }
            None => next.start = self.start(""),
        }
        if !came_along(self.settings).is_empty() {
            next.notes.push(format!(
                "production's configuration from outside of its data directory lies in {}; a copy does not read it",
                self.settings.directory.join(PUT_ASIDE).display()
            ));
        }
        next
    }

    fn production(&self, port: Option<u16>) -> NextSteps {
        let mut next =
            NextSteps { before: self.put_back(&|_, aside| aside.exists()), ..NextSteps::default() };
        let config = config_outside(self.settings);
        let cluster = config.as_deref().and_then(|config| self.debian(config));
        let ctl = |verb: &str| {
            cluster.as_ref().map(|(version, name)| format!("pg_ctlcluster {version} {name} {verb}"))
        };
        if let Some(port) = port {
            next.connect = Some(self.connect(port));
            next.stop = Some(ctl("stop").unwrap_or_else(|| self.stop()));
            let log = self.settings.directory.join(LOG_FILE);
            next.notes.push(format!("its log goes to {} until it is started anew", log.display()));
        } else {
            let by_hand =
                || config.as_deref().map_or_else(|| self.start(""), |config| self.start_with(config));
            next.start = ctl("start").unwrap_or_else(by_hand);
        }
        if let Some(config) = &config {
            let says = configured(self.settings, config);
            let other =
                says.get(DATA_DIRECTORY).filter(|named| !is_same(&to_path(named), &self.settings.directory));
            next.notes.extend(other.map(|named| {
                format!(
                    "{} names the data directory {named}: before the server is started by other means, set \
                     data_directory = '{}' there",
                    config.display(),
                    self.settings.directory.display()
                )
            }));
        }
        if !came_along(self.settings).is_empty() {
            next.notes.push(format!(
                "configuration as of the backup from outside of the data directory lies in {}; what is at its own place \
                 was left as it is",
                self.settings.directory.join(PUT_ASIDE).display()
            ));
        }
        next
    }

    /// The cluster of Debian's tools whose configuration this is, if it is one that runs on this directory.
    fn debian(&self, config: &Path) -> Option<(String, String)> {
        command::find("pg_ctlcluster")?;
        let says = configured(self.settings, config);
        let runs_here = is_same(&to_path(says.get(DATA_DIRECTORY)?), &self.settings.directory);
        debian_cluster(config).filter(|_| runs_here)
    }

    fn start_with(&self, config: &Path) -> String {
        let words = command_line(self.settings, config);
        let options: Vec<String> = words
            .iter()
            .map(|(name, value)| format!("-c {}", shell::word(&format!("{name}={value}"))))
            .collect();
        let options = options.join(" ");
        // pg_ctl gives the options to a shell once more.
        let quoted = if options.contains('\'') { shell::word(&options) } else { format!("\"{options}\"") };
        self.start(&format!(" -o {quoted}"))
    }

    /// Commands that bring files to their places that are not there.
    fn put_back(&self, takes: &dyn Fn(&Path, &Path) -> bool) -> Vec<String> {
        let mut directories: BTreeMap<PathBuf, BTreeSet<PathBuf>> = BTreeMap::new();
        for file in came_along(self.settings).into_iter().filter(|file| !is_there(file)) {
            let aside = put_aside(self.settings, &file);
            if let Some(parent) = file.parent().filter(|_| takes(&file, &aside)) {
                directories.entry(parent.to_owned()).or_default().insert(aside);
            }
        }
        for (directory, _) in facts(self.settings, DIRECTORY).filter(|(path, _)| !is_there(&to_path(path))) {
            directories.entry(to_path(directory)).or_default();
        }
        let mut commands = Vec::new();
        for (directory, files) in directories {
            if !directory.is_dir() {
                commands.extend(made(&directory, self.control.owner.as_deref()));
            }
            let files: Vec<String> = files.iter().map(|file| shell::path(file)).collect();
            if files.is_empty() {
                continue;
            }
            commands.push(format!("cp -a {} {}/", files.join(" "), shell::path(&directory)));
        }
        commands
    }
}

/// Commands that make a directory of the server's configuration. Made by root it would stay root's.
fn made(directory: &Path, owner: Option<&str>) -> Vec<String> {
    let place = shell::path(directory);
    let mut commands = vec![format!("mkdir -p {place}")];
    commands.extend(owner.map(|owner| format!("chown {}: {place}", shell::word(owner))));
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_root_makes_is_given_to_the_server() {
        let place = Path::new("/etc/postgresql/15/main/conf.d");
        assert_eq!(made(place, None), ["mkdir -p /etc/postgresql/15/main/conf.d"]);
        let by_root = made(place, Some("postgres"));
        assert_eq!(by_root.last().unwrap(), "chown postgres: /etc/postgresql/15/main/conf.d");
    }
}
