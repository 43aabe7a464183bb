//! What is served now: a configuration, and who captures its clusters. It is replaced as a whole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use everpoint_app::AppError;
use everpoint_engine::StopFlag;

use super::history::History;
use super::package::Destination;
use super::watch::{InForce, Keeper, Watched};
use crate::cli::Global;
use crate::config::{Config, print_of};
use crate::session::Session;

/// See the module.
pub(crate) struct Current {
    pub(crate) config: Arc<Config>,
    pub(crate) watched: Vec<Arc<Watched>>,
    pub(crate) destinations: Vec<Arc<Destination>>,
    /// Which configuration it is since the start: others drop what they have opened when it changes.
    pub(crate) generation: u64,
}

impl Current {
    /// Nothing is served yet.
    pub(super) fn nothing(config: &Arc<Config>) -> Self {
        let config = Arc::clone(config);
        Self { config, watched: Vec::new(), destinations: Vec::new(), generation: 0 }
    }

    /// What follows it with another configuration. Providers that stay keep what is known of their budgets.
    pub(super) fn next(&self, config: Arc<Config>, watched: Vec<Arc<Watched>>) -> Self {
        let known = |name: &str| self.destinations.iter().find(|known| known.name == name).map(Arc::clone);
        let enabled = config.offsite.values().filter_map(Destination::of);
        let destinations = enabled.map(|to| known(&to.name).unwrap_or_else(|| Arc::new(to))).collect();
        Self { config, watched, destinations, generation: self.generation.saturating_add(1) }
    }

    /// Names of the clusters.
    pub(crate) fn clusters(&self) -> Vec<String> {
        self.watched.iter().map(|watched| watched.cluster.clone()).collect()
    }
}

/// The captures that run.
pub(super) struct Captures {
    pub(super) global: Global,
    pub(super) history: Arc<History>,
    running: BTreeMap<String, Running>,
    /// Threads of captures that were told to stop.
    ending: Vec<JoinHandle<()>>,
}

struct Running {
    /// What its configuration is, so that only those are begun anew of which it changes.
    print: String,
    config: InForce,
    watched: Arc<Watched>,
    stop: StopFlag,
    thread: JoinHandle<()>,
}

/// What [`Captures::follow`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Followed {
    pub(super) begun: Vec<String>,
    pub(super) changed: Vec<String>,
    /// With what they captured from, in words.
    pub(super) ended: Vec<(String, String)>,
}

impl Captures {
    pub(super) fn new(global: Global, history: Arc<History>) -> Self {
        Self { global, history, running: BTreeMap::new(), ending: Vec::new() }
    }

    /// Captures what this configuration has, and nothing else.
    ///
    /// # Errors
    /// Class `Usage`: the configuration has no such cluster.
    pub(super) fn follow(
        &mut self,
        config: &Arc<Config>,
        names: &[String],
    ) -> Result<(Vec<Arc<Watched>>, Followed), AppError> {
        let mut followed = Followed::default();
        let prints: BTreeMap<String, String> = names
            .iter()
            .map(|name| Ok((name.clone(), print_of(config, config.cluster(name)?))))
            .collect::<Result<_, AppError>>()?;
        for (name, print) in &prints {
            let mut before = None;
            if let Some(running) = self.running.remove(name) {
                if running.print == *print && !running.thread.is_finished() {
                    *running.config.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(config);
                    self.running.insert(name.clone(), running);
                    continue;
                }
                running.stop.stop();
                before = Some(running.thread);
                followed.changed.push(name.clone());
            } else {
                followed.begun.push(name.clone());
            }
            self.begin(config, name, print, before);
        }
        let gone: Vec<String> =
            self.running.keys().filter(|name| !prints.contains_key(*name)).cloned().collect();
        for name in gone {
            let Some(running) = self.running.remove(&name) else { continue };
            running.stop.stop();
            self.ending.push(running.thread);
            followed.ended.push((name, running.watched.place().unwrap_or_default()));
        }
        self.ending.retain(|thread| !thread.is_finished());
        let watched = names.iter().filter_map(|name| self.running.get(name));
        Ok((watched.map(|running| Arc::clone(&running.watched)).collect(), followed))
    }

    /// The clusters of which the capture of one knows.
    #[cfg(test)]
    pub(super) fn known_to(&self, name: &str) -> Vec<String> {
        let config =
            self.running.get(name).map(|it| it.config.lock().unwrap_or_else(PoisonError::into_inner).clone());
        config.map(|config| config.clusters.keys().cloned().collect()).unwrap_or_default()
    }

    /// Only one thread captures a cluster: it waits for the one before.
    fn begin(&mut self, config: &Arc<Config>, name: &str, print: &str, before: Option<JoinHandle<()>>) {
        let (stop, watched) = (StopFlag::default(), Arc::new(Watched::new(name)));
        let in_force = InForce::new(Mutex::new(Arc::clone(config)));
        let keeper = Keeper {
            global: self.global.clone(),
            config: Arc::clone(&in_force),
            watched: Arc::clone(&watched),
            history: Arc::clone(&self.history),
            max_retained: config.serve.max_retained,
            stop: stop.clone(),
        };
        let thread = keeper.start(before);
        self.running.insert(
            name.to_owned(),
            Running { print: print.to_owned(), config: in_force, watched, stop, thread },
        );
    }

    /// Tells all to stop; returns their threads.
    pub(super) fn stop(self) -> Vec<JoinHandle<()>> {
        let running = self.running.into_values().map(|running| {
            running.stop.stop();
            running.thread
        });
        running.chain(self.ending).collect()
    }
}

/// Reads the configuration anew, and looks whether it can be served.
///
/// # Errors
/// If it can't: then what is served stays.
pub(super) fn read(global: &Global) -> Result<(Arc<Config>, Vec<String>), AppError> {
    let session = Session::new(global.clone());
    let config = session.config()?;
    if config.repositories.is_empty() {
        let object = config.path.display().to_string();
        let class = everpoint_core::FailureClass::Usage;
        let error =
            AppError::new("serve.no_cluster", class, "serve", object, "it has no repository any more");
        return Err(error.hint("if nothing shall be protected any more, stop the daemon"));
    }
    let names = session.cluster_names(None)?;
    session.try_secrets()?;
    session.try_keys()?;
    Ok((Arc::new(config.clone()), names))
}
