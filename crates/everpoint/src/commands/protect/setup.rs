//! What `protect` writes before it protects: configuration, repository, key. Called again it finds all of that.

use std::path::{Path, PathBuf};

use everpoint_app::AppError;
use everpoint_core::FailureClass;
use everpoint_engine::beside::Hands;

use super::address::Address;
use super::chosen::{Chosen, choose_repository};
use super::prepare::{Wanted, complete, prepare};
use super::{place, reach};
use crate::cli::Protect;
use crate::commands::anew::{self, Newcomer};
use crate::config::secret::Secret;
use crate::config::write::{NewCluster, NewRepository, append};
use crate::config::{self, Config, KeySource, PasswordSource, Source, rewrite, secret, valid_name};
use crate::session::{Session, belongings, by_hand, key};

/// What was set up.
#[derive(Debug)]
pub(super) struct Setup {
    /// The configuration file.
    pub(super) config: PathBuf,
    /// The cluster's name in it.
    pub(super) cluster: String,
    /// The key of the repository, where that could not be written into the configuration.
    pub(super) key_file: Option<PathBuf>,
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
    let name = choose_name(arguments, existing.as_ref(), &path, &address)?;
    let data: Vec<PathBuf> = arguments.data_dir.iter().cloned().collect();
    everpoint_app::belongings::refuse(&belongings::of_repository(&repository.config), &data)?;
    anew::refuse_mistyped(session.global.repo.as_deref(), &repository.config)?;
    let (engine, server) = reach::new_server(&arguments.url, address.password.as_ref().map(Secret::expose))?;
    reach::has_database(&engine)?;
    let slot = config::slot_for(&name);
    let newcomer = Newcomer { name: &name, slot: &slot, engine: &engine };
    reach::refuse_others(session, existing.as_ref(), &repository.config, newcomer, &server)?;
    if let (None, Some(other)) = (&existing, config::elsewhere(&path)) {
        session.say(&format!(
            "{0} stays as it is: this goes into {1}. To add the cluster there: --config {0}",
            other.display(),
            path.display()
        ));
    }
    let kept = address.password.is_some().then(|| password_place(&path, &name));
    let written: Vec<&Path> = std::iter::once(path.as_path()).chain(kept.as_deref()).collect();
    let wanted = Wanted {
        repository: &repository.config,
        existing: existing.as_ref(),
        newcomer: Some(newcomer),
        path: &path,
        written: &written,
    };
    prepare(session, arguments, &wanted)?;
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
    Ok(Setup { config: path, cluster: name, key_file: None })
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
                let comes = takes_password(session, config, known, file, password)?;
                let key_file = complete(session, arguments, &chosen, config)?;
                if comes {
                    replace_password(session, file, password)?;
                }
                return Ok(Setup { config: config.path.clone(), cluster: known.to_owned(), key_file });
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
    let key_file = complete(session, arguments, &chosen, config)?;
    Ok(Setup { config: config.path.clone(), cluster: known.to_owned(), key_file })
}

/// Configuration and passwords lie where no backup takes them and no restore removes them.
fn refuse_inside(arguments: &Protect, existing: Option<&Config>, path: &Path) -> Result<(), AppError> {
    let config = [belongings::belonging("the configuration", path)];
    belongings::refuse(&config, existing)?;
    let data: Vec<PathBuf> = arguments.data_dir.iter().cloned().collect();
    everpoint_app::belongings::refuse(&config, &data)
}

pub(super) fn absolute(path: &Path) -> Result<PathBuf, AppError> {
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
    path: &Path,
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
            let message = "the configuration has a cluster of this name with another address";
            let hint = format!(
                "if it is this server, and only its address is another one now: correct the line `postgres =` of \
                 [cluster.{name}] in {}, then run the same command again; else choose another name",
                path.display()
            );
            return Err(wrong(name, message.to_owned()).hint(hint));
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

fn password_place(config: &Path, name: &str) -> PathBuf {
    config.with_file_name(format!("everpoint-{name}.password"))
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
    let path = password_place(config, name);
    if path.exists() {
        replace_password(session, &path, password)?;
        return Ok(Some(path));
    }
    key::write_new(&path, password.expose(), service)?;
    session.say(&format!("the password is kept in {}, not in the configuration", path.display()));
    Ok(Some(path))
}

/// Whether the password of the address comes in place of the one that is kept. Where that can't be written it need not, if the
/// server takes it as well.
fn takes_password(
    session: &Session,
    config: &Config,
    known: &str,
    file: &Path,
    password: &Secret,
) -> Result<bool, AppError> {
    if is_kept(file, password) {
        return Ok(false);
    }
    let Err(error) = place::takes_files(file) else { return Ok(true) };
    reach::known_server(session, &config.path, known).map_err(|_| error)?;
    session.warn(&format!(
        "the password of the address is ignored: the server takes the one in {} as well, which can't be written",
        file.display()
    ));
    Ok(false)
}

fn is_kept(path: &Path, password: &Secret) -> bool {
    secret::from_file("the password", path, &mut |_| {}).is_ok_and(|before| before == *password)
}

/// The server has taken this password: it comes in place of another one that was kept. Owner and permissions stay.
fn replace_password(session: &Session, path: &Path, password: &Secret) -> Result<(), AppError> {
    if is_kept(path, password) {
        return Ok(());
    }
    rewrite::write(path, &format!("{}\n", password.expose()), 0o600)
        .map_err(|error| AppError::io("replace", path, error))?;
    session.say(&format!("the password in {} was another one, and is replaced", path.display()));
    Ok(())
}
