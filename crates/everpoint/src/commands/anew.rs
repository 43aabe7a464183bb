//! Before a repository is made: what tells of one that was there.

use std::path::Path;

use everpoint_app::{AppError, init};
use everpoint_core::anew::Trace;
use everpoint_core::shell;
use everpoint_engine::{Engine, SlotHolds};

use crate::cli::Global;
use crate::config::{Config, KeySource, RepositoryConfig};
use crate::serve;
use crate::session::Session;

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

/// Refuses to make a repository where one was. The servers of the clusters that are kept in it are asked only where there is
/// none; one that does not answer says nothing.
///
/// # Errors
/// `repo.was_there`.
pub(crate) fn refuse(
    global: &Global,
    config: Option<&Config>,
    repository: &RepositoryConfig,
    newcomer: Option<Newcomer<'_>>,
    by_word: bool,
) -> Result<(), AppError> {
    let url = &repository.url;
    if is_made(url) {
        return Ok(());
    }
    let kept: Vec<(&Config, &str)> = config
        .into_iter()
        .flat_map(|config| config.clusters.values().map(move |it| (config, it)))
        .filter(|(config, it)| config.repository_of(it).is_ok_and(|place| place.url == *url))
        .map(|(config, it)| (config, it.name.as_str()))
        .collect();
    let place = Path::new(url.strip_prefix("file://").unwrap_or(url));
    let unmounted = std::iter::once(place)
        .filter(|it| it.is_absolute())
        .filter_map(init::unmounted)
        .map(Trace::Unmounted);
    let served = kept
        .iter()
        .filter(|(config, name)| serve::has_served(config, name, url))
        .map(|(_, name)| Trace::Served { cluster: (*name).to_owned() });
    let asked = newcomer.into_iter().filter_map(|it| slot(it.name, it.slot, it.engine));
    let slots = kept.iter().filter_map(|(config, name)| {
        let global = Global { config: Some(config.path.clone()), ..global.clone() };
        let (engine, name_of_slot) = Session::new(global).server(name).ok()?;
        slot(name, &name_of_slot, &*engine)
    });
    let traces = unmounted.chain(served).chain(asked).chain(slots);
    init::refuse_anew(&everpoint_store::shown_url(url), traces, by_word, &word(config, repository))
}

fn slot(cluster: &str, slot: &str, engine: &dyn Engine) -> Option<Trace> {
    let keeps = || matches!(engine.slot_holds(slot), Ok(SlotHolds::Bytes(_)));
    // One that has lost its log keeps nothing, and was there all the same.
    let listed = || engine.log_keeping().is_some_and(|it| it.slots.iter().any(|known| known.name == slot));
    (keeps() || listed()).then(|| Trace::Slot { cluster: cluster.to_owned(), slot: slot.to_owned() })
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
