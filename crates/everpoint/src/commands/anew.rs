//! Before a repository is made: what tells of one that was there.

use std::path::Path;
use std::sync::Arc;

use everpoint_app::{AppError, init};
use everpoint_core::anew::Trace;
use everpoint_core::{FailureClass, held_by, shell};
use everpoint_engine::{Engine, SlotHolds};
use everpoint_repo::code;

use crate::cli::Global;
use crate::config::{Config, KeySource, RepositoryConfig};
use crate::serve;
use crate::session::{Session, by_hand};

/// A cluster that is not in the configuration yet.
#[derive(Clone, Copy)]
pub(crate) struct Newcomer<'a> {
    pub(crate) name: &'a str,
    pub(crate) slot: &'a str,
    pub(crate) engine: &'a dyn Engine,
}

/// Whether there is a repository already.
pub(crate) fn is_made(url: &str) -> bool {
    everpoint_store::open_url(url).is_ok_and(|store| matches!(store.head("config"), Ok(Some(_))))
}

/// Refuses to make a repository at a place that was typed (`asked`) and of whose path more than one directory above it is not
/// there: it is more likely mistyped than meant, and would be made on whatever disk that is.
///
/// # Errors
/// `store.not_found`.
pub(crate) fn refuse_mistyped(asked: Option<&str>, repository: &RepositoryConfig) -> Result<(), AppError> {
    let url = &repository.url;
    let place = Path::new(url.strip_prefix("file://").unwrap_or(url));
    let typed = asked.is_some_and(|asked| by_hand(asked).url == *url) && place.is_absolute();
    // One directory above it is made with it.
    let above = place.parent().and_then(Path::parent).filter(|above| typed && !above.exists());
    let Some(above) = above else { return Ok(()) };
    let shown = everpoint_store::shown_url(url);
    let message = format!("the directory {} is not there", above.display());
    let error = AppError::new("store.not_found", FailureClass::Usage, "make a repository at", shown, message);
    Err(error.hint(format!(
        "nothing was written; mend the path, or mount its disk; if it is meant as it is: mkdir -p {}",
        shell::path(above)
    )))
}

/// Refuses to make a repository where one was, or while somebody receives by the slot of a cluster that is to be kept in it; a
/// server that does not answer says nothing. `asks`: a slot that nobody receives by counts, too.
///
/// # Errors
/// `repo.was_there`.
pub(crate) fn refuse(
    global: &Global,
    config: Option<&Config>,
    repository: &RepositoryConfig,
    asks: bool,
    by_word: bool,
) -> Result<(), AppError> {
    let url = &repository.url;
    if is_made(url) {
        return Ok(());
    }
    let kept = kept(config, url);
    let place = Path::new(url.strip_prefix("file://").unwrap_or(url));
    let unmounted = std::iter::once(place)
        .filter(|it| it.is_absolute())
        .filter_map(init::unmounted)
        .map(Trace::Unmounted);
    let served = kept
        .iter()
        .filter(|(config, name)| serve::has_served(config, name, url))
        .map(|(_, name)| Trace::Served { cluster: (*name).to_owned() });
    let slots = kept.iter().filter(|_| asks).filter_map(|(config, name)| slot_of(global, config, name));
    let held = kept.iter().filter_map(|(config, name)| holder_of(global, config, name));
    let traces = unmounted.chain(served).chain(held).chain(slots);
    init::refuse_anew(&everpoint_store::shown_url(url), traces, by_word, &word(config, repository))
}

/// What is told where a repository is to be made, and only a slot says that there may be one already: a slot outlives what it
/// was made for.
pub(crate) fn told_of_slots(
    global: &Global,
    config: Option<&Config>,
    repository: &RepositoryConfig,
    newcomer: Option<Newcomer<'_>>,
) -> Vec<String> {
    let url = &repository.url;
    if is_made(url) {
        return Vec::new();
    }
    let kept = kept(config, url);
    let known = kept.iter().filter_map(|(config, name)| slot_of(global, config, name));
    let new = newcomer.into_iter().filter_map(|it| slot(it.name, it.slot, it.engine));
    let told = known.chain(new).filter_map(|trace| match trace {
        Trace::Slot { cluster, slot } => Some(format!(
            "the server of {cluster} keeps log by the slot {slot} already, as for a repository that was there: a new one at {} \
             takes the slot over. If the old one is only away, stop this, remove the new one, and bring the old one back",
            everpoint_store::shown_url(url)
        )),
        Trace::Unmounted(_) | Trace::Served { .. } | Trace::Held { .. } => None,
    });
    told.collect()
}

/// An error of a repository that is not there: where the daemon has read backups in it, it is away, and no other one is to be
/// made in its place.
pub(crate) fn away(config: Option<&Config>, repository: &RepositoryConfig, error: AppError) -> AppError {
    let url = &repository.url;
    if !matches!(error.code.as_str(), "store.not_found" | code::NOT_FOUND)
        || !kept(config, url).iter().any(|(config, name)| serve::has_served(config, name, url))
    {
        return error;
    }
    let word = word(config, repository);
    error.hint(format!(
        "the daemon of this configuration has read backups there: mount its disk, or mend the path, and run this again. Only if it          is lost, or left behind: {word}"
    ))
}

/// The clusters that the configuration keeps in a repository.
fn kept<'a>(config: Option<&'a Config>, url: &str) -> Vec<(&'a Config, &'a str)> {
    let all = config.into_iter().flat_map(|config| config.clusters.values().map(move |it| (config, it)));
    all.filter(|(config, it)| config.repository_of(it).is_ok_and(|place| place.url == url))
        .map(|(config, it)| (config, it.name.as_str()))
        .collect()
}

fn server_of(global: &Global, config: &Config, cluster: &str) -> Option<(Arc<dyn Engine>, String)> {
    let global = Global { config: Some(config.path.clone()), ..global.clone() };
    Session::new(global).server(cluster).ok()
}

fn slot_of(global: &Global, config: &Config, cluster: &str) -> Option<Trace> {
    let (engine, name) = server_of(global, config, cluster)?;
    slot(cluster, &name, &*engine)
}

fn holder_of(global: &Global, config: &Config, cluster: &str) -> Option<Trace> {
    let (engine, slot) = server_of(global, config, cluster)?;
    let by = held_by(&engine.log_keeping()?.slots, &slot)?;
    Some(Trace::Held { cluster: cluster.to_owned(), slot, by })
}

fn slot(cluster: &str, slot: &str, engine: &dyn Engine) -> Option<Trace> {
    // One that was made beforehand, and never used, keeps nothing.
    let keeps = matches!(engine.slot_holds(slot), Ok(SlotHolds::Bytes(_)));
    keeps.then(|| Trace::Slot { cluster: cluster.to_owned(), slot: slot.to_owned() })
}

/// The command that makes a new one by word.
pub(crate) fn word(config: Option<&Config>, repository: &RepositoryConfig) -> String {
    let written = config.filter(|config| {
        !config.implied && config.repositories.values().any(|known| known.url == repository.url)
    });
    if let Some(config) = written {
        return format!("everpoint --config {} init --new {}", shell::path(&config.path), repository.name);
    }
    let key = match &repository.key {
        KeySource::File(path) => format!(" --key-file {}", shell::path(path)),
        KeySource::Command(_) | KeySource::Environment => String::new(),
    };
    format!("everpoint init --new --repo {}{key}", shell::word(&everpoint_store::shown_url(&repository.url)))
}
