//! What `protect` writes before it protects: configuration, repository, key. Called again it finds all of that.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use everpoint_app::AppError;
use everpoint_core::FailureClass;
use everpoint_engine::beside::{self, Hands};

use super::address::Address;
use super::{escrow, place, reach};
use crate::cli::Protect;
use crate::commands::init;
use crate::config::secret::Secret;
use crate::config::write::{NewCluster, NewRepository, append};
use crate::config::{
    self, Config, KeySource, PasswordSource, RepositoryConfig, Retention, Source, container, secret,
    valid_name,
};
use crate::session::{Session, belongings, by_hand, key};

/// What was set up.
#[derive(Debug)]
pub(super) struct Setup {
    /// The configuration file.
    pub(super) config: PathBuf,
    /// The cluster's name in it.
    pub(super) cluster: String,
}

/// Writes what is missing, after the server has answered.
///
/// # Errors
/// Class `Usage`: the address or the existing configuration is wrong. Else if the server does not answer, or something can't
/// be written.
pub(super) fn run(session: &Session, arguments: &Protect) -> Result<Setup, AppError> {
    let address = Address::parse(&arguments.url)?;
    let path = absolute(&config::named_or_here(session.global.config.as_deref()))?;
    let existing = if path.exists() { Some(Config::load(&path)?) } else { None };
    refuse_inside(arguments, existing.as_ref(), &path)?;
    let known = existing.as_ref().and_then(|config| known_cluster(config, &address, arguments));
    if let (Some(known), Some(config)) = (&known, &existing) {
        return again(session, arguments, config, known, &address);
    }
    let repository = choose_repository(session, arguments, existing.as_ref(), &path)?;
    let name = choose_name(arguments, existing.as_ref(), &address)?;
    let data: Vec<PathBuf> = arguments.data_dir.iter().cloned().collect();
    everpoint_app::belongings::refuse(&belongings::of_repository(&repository.config), &data)?;
    let server = reach::new_server(&arguments.url, address.password.as_ref().map(Secret::expose))?;
    reach::refuse_twin(session, existing.as_ref(), &repository.config, &name, &server)?;
    if let (None, Some(other)) = (&existing, config::elsewhere(&path)) {
        session.say(&format!(
            "{0} stays as it is: this goes into {1}. To add the cluster there: --config {0}",
            other.display(),
            path.display()
        ));
    }
    prepare(session, arguments, &repository.config, &path)?;
    let mut tables: Vec<String> = repository.new.as_ref().map(NewRepository::table).into_iter().collect();
    let written = existing.as_ref().filter(|config| !config.implied);
    let several = written.map_or(0, |config| config.repositories.len()) + tables.len() > 1;
    let cluster = NewCluster {
        password_file: keep_password(session, &path, &name, &address, key::service(&repository.config))?,
        name: name.clone(),
        address: address.text,
        data_dir: arguments.data_dir.as_deref().map(absolute).transpose()?,
        repository: several.then_some(repository.config.name),
    };
    if cluster.password_file.is_none() && std::env::var_os("PGPASSWORD").is_some_and(|it| !it.is_empty()) {
        session.warn(&format!(
            "the password of PGPASSWORD is not kept: for a service write it into a file of its own (mode 600), and \
             password_file = \"FILE\" into [cluster.{name}] of {}",
            path.display()
        ));
    }
    tables.push(cluster.table());
    append(&path, &tables)?;
    session.say(&format!("wrote {}: the cluster is called {name}", path.display()));
    Ok(Setup { config: path, cluster: name })
}

/// The configuration has the cluster already: what it says counts, but for a password that the server has just taken.
fn again(
    session: &Session,
    arguments: &Protect,
    config: &Config,
    known: &str,
    address: &Address,
) -> Result<Setup, AppError> {
    let cluster = config.cluster(known)?;
    let chosen = if config.implied {
        choose_repository(session, arguments, Some(config), &config.path)?
    } else {
        Chosen { config: config.repository_of(cluster)?.clone(), new: None }
    };
    let repository = &chosen.config;
    let place = config.path.display();
    let ignored = |what: &str| session.warn(&format!("{what} is ignored: {place} says it for {known}"));
    let asked = session.global.repo.as_deref();
    if asked.is_some_and(|asked| asked != repository.name && by_hand(asked).url != repository.url) {
        ignored("--repo");
    }
    if let Some(file) = &session.global.key_file
        && repository.key != KeySource::File(absolute(file)?)
    {
        ignored("--key-file");
    }
    if arguments.no_encryption && repository.key != KeySource::Environment {
        ignored("--no-encryption");
    }
    if let Source::Postgres(postgres) = &cluster.source {
        if arguments.data_dir.is_some() && arguments.data_dir != postgres.data_dir {
            ignored("--data-dir");
        }
        match (&address.password, &postgres.password) {
            (Some(password), Some(PasswordSource::File(file))) => {
                reach::new_server(&arguments.url, Some(password.expose()))?;
                complete(session, arguments, &chosen, &config.path)?;
                replace_password(session, file, password)?;
                return Ok(Setup { config: config.path.clone(), cluster: known.to_owned() });
            }
            (Some(_), Some(_)) => ignored("the password of the address"),
            (Some(_), None) => session.warn(&format!(
                "the password of the address is not kept: {place} has none for {known}; add password_file = \"FILE\" to \
                 [cluster.{known}]"
            )),
            (None, _) => {}
        }
    }
    reach::known_server(session, &config.path, known)?;
    complete(session, arguments, &chosen, &config.path)?;
    Ok(Setup { config: config.path.clone(), cluster: known.to_owned() })
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
    service: Option<Hands>,
) -> Result<Option<PathBuf>, AppError> {
    let Some(password) = &address.password else {
        return Ok(None);
    };
    let path = config.with_file_name(format!("everpoint-{name}.password"));
    if path.exists() {
        replace_password(session, &path, password)?;
        return Ok(Some(path));
    }
    key::write_new(&path, password.expose(), service)?;
    session.say(&format!("the password is kept in {}, not in the configuration", path.display()));
    Ok(Some(path))
}

/// The server has taken this password: it comes in place of another one that was kept. Owner and permissions stay.
fn replace_password(session: &Session, path: &Path, password: &Secret) -> Result<(), AppError> {
    if secret::from_file("the password", path, &mut |_| {}).is_ok_and(|before| before == *password) {
        return Ok(());
    }
    let fail = |error| AppError::io("replace", path, error);
    let mut fresh = tempfile::NamedTempFile::new_in(beside::directory_of(path)).map_err(fail)?;
    match std::fs::metadata(path) {
        Ok(before) => beside::keep(fresh.as_file(), &before).map_err(fail)?,
        Err(_) => beside::give(fresh.as_file(), &beside::directory_of(path)).map_err(fail)?,
    }
    writeln!(fresh, "{}", password.expose()).map_err(fail)?;
    fresh.as_file().sync_all().map_err(fail)?;
    fresh.persist(path).map_err(|error| fail(error.error))?;
    session.say(&format!("the password in {} was another one, and is replaced", path.display()));
    key::sync_parent(path)
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
    let implied = existing.filter(|config| config.implied);
    if let Some(config) = existing.filter(|config| !config.implied && !config.repositories.is_empty()) {
        return configured_repository(session, config, asked);
    }
    let default = default_repository();
    // Clusters that are in the file stay where they are kept.
    let used = implied.filter(|config| !config.clusters.is_empty());
    let url = by_hand(asked.filter(|_| used.is_none()).unwrap_or(&default)).url;
    if let (Some(config), Some(asked)) = (implied, asked)
        && by_hand(asked).url != by_hand(&default).url
    {
        let place = config.path.display();
        session.warn(&match used {
            Some(_) => {
                format!("--repo is ignored: the clusters of {place} are kept below BACKUP_DIR, in {url}")
            }
            None => format!("BACKUP_DIR is not used: --repo says another place, and that goes into {place}"),
        });
    }
    let name = "local".to_owned();
    let key_file = match &session.global.key_file {
        _ if arguments.no_encryption => None,
        Some(file) => Some(absolute(file)?),
        None if std::env::var_os(key::VARIABLE).is_some_and(|key| !key.is_empty()) => None,
        // What is there already, without a key that is in the file, goes on as it is.
        None if used.is_some() && is_made(&url) => None,
        None => Some(path.with_file_name(format!("everpoint-{name}.key"))),
    };
    let key = key_file.clone().map_or(KeySource::Environment, KeySource::File);
    let config =
        RepositoryConfig { name: name.clone(), url: url.clone(), key, retention: Retention::default() };
    Ok(Chosen { config, new: Some(NewRepository { name, url, key_file }) })
}

/// The repository of a configuration that has some. Another one beside it would have to be named by every command from then
/// on, so that adding it is left to the administrator.
fn configured_repository(
    session: &Session,
    config: &Config,
    asked: Option<&str>,
) -> Result<Chosen, AppError> {
    let place = config.path.display();
    let wanted = |known: &&RepositoryConfig| {
        asked.is_some_and(|asked| known.name == asked || known.url == by_hand(asked).url)
    };
    if let Some(known) = config.repositories.values().find(wanted) {
        return Ok(Chosen { config: known.clone(), new: None });
    }
    let names: Vec<&str> = config.repositories.keys().map(String::as_str).collect();
    match config.repositories.values().next().filter(|_| names.len() == 1) {
        Some(only) => {
            if asked.is_some() {
                session.warn(&format!("--repo is ignored: {place} has the repository {}", only.name));
            }
            Ok(Chosen { config: only.clone(), new: None })
        }
        None => {
            let message = format!("{place} has several: {}", names.join(", "));
            let error =
                AppError::new("config.no_repository", FailureClass::Usage, "choose", "a repository", message);
            Err(error.hint("name one with --repo NAME"))
        }
    }
}

/// Whether there is a repository already.
fn is_made(url: &str) -> bool {
    everpoint_store::open_url(url).is_ok_and(|store| matches!(store.head("config"), Ok(Some(_))))
}

/// Below `$BACKUP_DIR`, or in a usual place.
fn default_repository() -> String {
    let usual = if rustix::process::geteuid().is_root() { "/var/lib/everpoint" } else { "./everpoint-repo" };
    let named = container::directory(&|name| std::env::var(name).ok());
    named.map_or_else(|| usual.to_owned(), |directory| container::repository_below(&directory))
}

/// As [`prepare`]; a repository that the configuration does not name yet is written into it: the service may not have the
/// variable that named it.
fn complete(session: &Session, arguments: &Protect, chosen: &Chosen, path: &Path) -> Result<(), AppError> {
    prepare(session, arguments, &chosen.config, path)?;
    let Some(new) = &chosen.new else { return Ok(()) };
    append(path, &[new.table()])?;
    session.say(&format!("wrote the repository {} into {}", new.url, path.display()));
    Ok(())
}

/// Makes the repository if it is missing, and sees to a second copy of a new key.
fn prepare(
    session: &Session,
    arguments: &Protect,
    config: &RepositoryConfig,
    path: &Path,
) -> Result<(), AppError> {
    place::takes_files(path)?;
    if let KeySource::File(key) = &config.key
        && !key.exists()
    {
        place::takes_files(key)?;
    }
    place::own(&config.url, path)?;
    let (_, report) = init::create(session, config)?;
    if report.created {
        let state = if report.encrypted { "encrypted" } else { "NOT ENCRYPTED" };
        session.say(&format!("created the repository {} ({state})", report.repository));
    }
    if let KeySource::File(file) = &config.key
        && key::place(config, report.encrypted) == everpoint_app::check::KeyPlace::OnlyHere(file.clone())
    {
        escrow::ask_for(session, arguments, file)?;
    }
    if report.created && report.encrypted {
        session.say(escrow::AGE_TOO);
    }
    Ok(())
}
