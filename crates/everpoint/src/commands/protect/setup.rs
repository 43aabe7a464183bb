//! What `protect` writes before it protects: configuration, repository, key. Called again it finds all of that.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use everpoint_app::AppError;
use everpoint_core::FailureClass;

use super::address::Address;
use crate::cli::Protect;
use crate::commands::init;
use crate::config::write::{NewCluster, NewRepository, append};
use crate::config::{
    self, Config, KeySource, RepositoryConfig, Retention, Source, container, secret, valid_name,
};
use crate::render::note;
use crate::session::{Session, belongings, by_hand, key};

/// `RESTORE.md` of a package asks for it, and only Everpoint can make it out of the key.
const AGE_TOO: &str =
    "Keep with the key what `everpoint key age` prints: it opens packages where there is no Everpoint";

/// What was set up.
#[derive(Debug)]
pub(super) struct Setup {
    /// The configuration file.
    pub(super) config: PathBuf,
    /// The cluster's name in it.
    pub(super) cluster: String,
}

/// Writes what is missing.
///
/// # Errors
/// Class `Usage`: the address or the existing configuration is wrong. Else if something can't be written.
pub(super) fn run(session: &Session, arguments: &Protect) -> Result<Setup, AppError> {
    let address = Address::parse(&arguments.url)?;
    let path = absolute(&config::found_or_default(session.global.config.as_deref()))?;
    let existing = if path.exists() { Some(Config::load(&path)?) } else { None };
    refuse_inside(arguments, existing.as_ref(), &path)?;
    let mut tables = Vec::new();
    let known = existing.as_ref().and_then(|config| known_cluster(config, &address, arguments));
    if let (Some(known), Some(config)) = (&known, &existing) {
        let cluster = config.cluster(known)?;
        prepare(session, arguments, config.repository_of(cluster)?)?;
        return Ok(Setup { config: path, cluster: known.clone() });
    }
    let repository = choose_repository(session, arguments, existing.as_ref(), &path)?;
    let data: Vec<PathBuf> = arguments.data_dir.iter().cloned().collect();
    everpoint_app::belongings::refuse(&belongings::of_repository(&repository.config), &data)?;
    prepare(session, arguments, &repository.config)?;
    tables.extend(repository.new.as_ref().map(NewRepository::table));
    let name = choose_name(arguments, existing.as_ref(), &address)?;
    let several = existing.as_ref().map_or(0, |config| config.repositories.len()) + tables.len() > 1;
    let cluster = NewCluster {
        password_file: keep_password(session, &path, &name, &address)?,
        name: name.clone(),
        address: address.text,
        data_dir: arguments.data_dir.as_deref().map(absolute).transpose()?,
        repository: several.then_some(repository.config.name),
    };
    tables.push(cluster.table());
    append(&path, &tables)?;
    session.say(&format!("wrote {}: the cluster is called {name}", path.display()));
    Ok(Setup { config: path, cluster: name })
}

/// Configuration and passwords lie where no backup takes them and no restore removes them.
fn refuse_inside(arguments: &Protect, existing: Option<&Config>, path: &Path) -> Result<(), AppError> {
    let config = [belongings::belonging("the configuration", path)];
    belongings::refuse(&config, existing)?;
    let data: Vec<PathBuf> = arguments.data_dir.iter().cloned().collect();
    everpoint_app::belongings::refuse(&config, &data)
}

fn absolute(path: &Path) -> Result<PathBuf, AppError> {
    std::path::absolute(path).map_err(|error| AppError::io("find", path, error))
}

/// The cluster that is configured with this address already.
fn known_cluster(config: &Config, address: &Address, arguments: &Protect) -> Option<String> {
    let same = |cluster: &&config::ClusterConfig| match &cluster.source {
        Source::Postgres(postgres) => {
            let configured = Address::parse(&postgres.url).ok();
            configured.is_some_and(|configured| configured.identity == address.identity)
                && arguments.name.as_ref().is_none_or(|name| *name == cluster.name)
        }
        Source::MongoDb => false,
    };
    config.clusters.values().find(same).map(|cluster| cluster.name.clone())
}

fn choose_name(
    arguments: &Protect,
    existing: Option<&Config>,
    address: &Address,
) -> Result<String, AppError> {
    let taken = |name: &str| existing.is_some_and(|config| config.clusters.contains_key(name));
    let wrong = |name: &str, message: String| {
        AppError::new("protect.name", FailureClass::Usage, "use the name", name, message)
    };
    if let Some(name) = &arguments.name {
        if !valid_name(name) {
            let message = "names have up to 63 of a-z 0-9 . _ - and begin with a letter or digit";
            return Err(wrong(name, message.to_owned()));
        }
        if taken(name) {
            return Err(wrong(
                name,
                "the configuration has a cluster of this name with another address".to_owned(),
            ));
        }
        return Ok(name.clone());
    }
    let wish = address.cluster_name();
    let mut candidates =
        std::iter::once(wish.clone()).chain((2..1000).map(|number| format!("{wish}-{number}")));
    candidates
        .find(|name| !taken(name))
        .ok_or_else(|| wrong(&wish, "too many clusters have it".to_owned()).hint("choose one with --name"))
}

/// A password from the address goes into a file of its own that only we can read.
fn keep_password(
    session: &Session,
    config: &Path,
    name: &str,
    address: &Address,
) -> Result<Option<PathBuf>, AppError> {
    let Some(password) = &address.password else {
        return Ok(None);
    };
    let path = config.with_file_name(format!("everpoint-{name}.password"));
    if let Ok(before) = secret::from_file("the password", &path, &mut |_| {})
        && before == *password
    {
        return Ok(Some(path));
    }
    if path.exists() {
        std::fs::remove_file(&path).map_err(|error| AppError::io("replace", &path, error))?;
    }
    key::write_new(&path, password.expose())?;
    session.say(&format!("the password is kept in {}, not in the configuration", path.display()));
    Ok(Some(path))
}

struct Chosen {
    config: RepositoryConfig,
    /// Not in the configuration yet.
    new: Option<NewRepository>,
}

fn choose_repository(
    session: &Session,
    arguments: &Protect,
    existing: Option<&Config>,
    path: &Path,
) -> Result<Chosen, AppError> {
    let asked = session.global.repo.as_deref();
    if let Some(config) = existing {
        let known = config.repositories.values().find(|known| match asked {
            Some(asked) => known.name == asked || known.url == by_hand(asked).url,
            None => true,
        });
        if let Some(known) = known {
            return Ok(Chosen { config: known.clone(), new: None });
        }
    }
    let default = default_repository();
    let url = by_hand(asked.unwrap_or(&default)).url;
    let taken = |name: &str| existing.is_some_and(|config| config.repositories.contains_key(name));
    let mut candidates =
        std::iter::once("local".to_owned()).chain((2..1000).map(|number| format!("local-{number}")));
    let name = candidates.find(|name| !taken(name)).unwrap_or_else(|| "local".to_owned());
    let key_file = match &session.global.key_file {
        _ if arguments.no_encryption => None,
        Some(file) => Some(absolute(file)?),
        None if std::env::var_os(key::VARIABLE).is_some_and(|key| !key.is_empty()) => None,
        None => Some(path.with_file_name(format!("everpoint-{name}.key"))),
    };
    let key = key_file.clone().map_or(KeySource::Environment, KeySource::File);
    let config =
        RepositoryConfig { name: name.clone(), url: url.clone(), key, retention: Retention::default() };
    Ok(Chosen { config, new: Some(NewRepository { name, url, key_file }) })
}

/// Below `$BACKUP_DIR`, or in a usual place.
fn default_repository() -> String {
    let usual = if rustix::process::geteuid().is_root() { "/var/lib/everpoint" } else { "./everpoint-repo" };
    let named = container::directory(&|name| std::env::var(name).ok());
    named.map_or_else(|| usual.to_owned(), |directory| container::repository_below(&directory))
}

/// Makes the repository if it is missing, and sees to a second copy of a new key.
fn prepare(session: &Session, arguments: &Protect, config: &RepositoryConfig) -> Result<(), AppError> {
    let (_, report) = init::create(session, config)?;
    if report.created {
        let state = if report.encrypted { "encrypted" } else { "NOT ENCRYPTED" };
        session.say(&format!("created the repository {} ({state})", report.repository));
    }
    if let KeySource::File(file) = &config.key
        && key::place(config, report.encrypted) == everpoint_app::check::KeyPlace::OnlyHere(file.clone())
    {
        escrow(session, arguments, file)?;
    }
    if report.created && report.encrypted {
        session.say(AGE_TOO);
    }
    Ok(())
}

/// A key that lies only beside its repository dies with it. Nobody is made to wait: where there is nobody to ask,
/// `check` goes on asking.
fn escrow(session: &Session, arguments: &Protect, file: &Path) -> Result<(), AppError> {
    if let Some(copy) = &arguments.escrow {
        let text = secret::from_file("the key", file, &mut |_| {})?;
        let there = secret::from_file("the key", copy, &mut |_| {}).ok();
        if there.as_ref() != Some(&text) {
            key::write_new(copy, text.expose())?;
        }
        session.say(&format!("a second copy of the key is in {}", copy.display()));
        return key::confirm(file);
    }
    if arguments.key_stored_elsewhere {
        return key::confirm(file);
    }
    if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() && ask(file)? {
        return key::confirm(file);
    }
    session.say(&format!(
        "the key is in {}: without it nothing can be restored.\n\
         Store it in a second place, then run: everpoint key confirm",
        file.display()
    ));
    Ok(())
}

/// Shows the key and asks for its last group; an empty answer means later.
fn ask(file: &Path) -> Result<bool, AppError> {
    let text = secret::from_file("the key", file, &mut |_| {})?;
    let last = text.expose().rsplit('-').next().unwrap_or_default();
    note(&format!(
        "\nThis key opens your backups. It is shown only now, and kept in {}:\n\n  {}\n\n\
         Without it nothing can be restored. Store it in a second place (a password manager, paper).\n\
         Then type its last group, or press Enter to do it later:",
        file.display(),
        text.expose()
    ));
    let mut lines = std::io::stdin().lock().lines();
    while let Some(Ok(line)) = lines.next() {
        match line.trim() {
            "" => return Ok(false),
            typed if typed == last || typed == text.expose() => return Ok(true),
            _ => note("that is not its last group; try again, or press Enter to do it later:"),
        }
    }
    Ok(false)
}
