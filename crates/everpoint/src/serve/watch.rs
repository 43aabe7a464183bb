//! The capture of one cluster: kept running, and given up where keeping its slot would fill the server's disk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use everpoint_app::capture::{self, CaptureRequest};
use everpoint_app::caught::{caught, died};
use everpoint_app::{AppError, Event, Events, held, text, twin};
use everpoint_core::{FailureClass, LogOffset, Micros, Repeats};
use everpoint_engine::{Engine, SlotHolds, StopFlag};
use everpoint_repo::code;

use super::history::History;
use crate::cli::Global;
use crate::config::Config;
use crate::render::number::size;
use crate::session::Session;

/// Pauses after a capture that ended by itself grow from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often it is looked how much the slot holds back.
const LOOK: Duration = Duration::from_secs(2);
/// How quickly a stop is noticed.
const TICK: Duration = Duration::from_millis(50);
/// A capture that says nothing for so long, while something is wrong, is stuck.
const SILENT: Duration = Duration::from_secs(10);

/// A capture of which nothing is heard for so long protects nothing: an idle server, too, says each second how late it is.
const UNHEARD: Duration = Duration::from_secs(60);

/// One capture at a time looks whether its server has another name.
static CLAIMS: Mutex<()> = Mutex::new(());

/// What is remembered of a slot that was given up.
pub(crate) const GIVEN_UP: &str = "slot_given_up";

/// One cluster's capture, as others see it.
pub(crate) struct Watched {
    pub(crate) cluster: String,
    state: Mutex<State>,
}

struct State {
    /// Why nothing can be stored now.
    error: Option<String>,
    /// Another process captures it.
    elsewhere: bool,
    /// Since when nothing can be stored as the repository has no room.
    full: Option<Micros>,
    /// When it had room again.
    room: Option<Micros>,
    /// Everything before is stored.
    durable: Option<LogOffset>,
    /// Nothing was committed beyond it up to this moment.
    covered: Option<Micros>,
    /// When something was stored last.
    told: Instant,
    /// The log has a gap since the last backup was begun.
    gap: bool,
    /// The server, and the slot's name, once the configuration could be used.
    server: Option<(Arc<dyn Engine>, String)>,
    /// Failures since something was stored.
    failing: Repeats<()>,
}

impl State {
    fn fail(&mut self, why: String, full: bool) {
        self.failing.seen((), text::now());
        self.error = Some(why);
        self.full = if full { self.full.or_else(|| Some(text::now())) } else { None };
    }

    /// Something is stored: what was wrong is over. Returns what there is to say of that.
    fn goes_on(&mut self) -> Option<String> {
        if self.full.is_some() {
            self.room = Some(text::now());
        }
        (self.error, self.full, self.told, self.elsewhere) = (None, None, Instant::now(), false);
        let over = self.failing.over(&())?;
        let (times, since) = (over.times, text::time(over.since));
        Some(format!("the log is stored again; that failed {times} times since {since}"))
    }
}

impl Watched {
    pub(crate) fn new(cluster: &str) -> Self {
        let state = State {
            error: None,
            elsewhere: false,
            full: None,
            room: None,
            durable: None,
            covered: None,
            told: Instant::now(),
            gap: false,
            server: None,
            failing: Repeats::default(),
        };
        Self { cluster: cluster.to_owned(), state: Mutex::new(state) }
    }

    /// Why nothing can be stored now.
    pub(crate) fn error(&self) -> Option<String> {
        self.lock().error.clone()
    }

    /// Since when the repository has no room for the log; `None`: it has.
    pub(crate) fn full_since(&self) -> Option<Micros> {
        self.lock().full
    }

    /// When the repository had room again after it had none.
    pub(crate) fn room_since(&self) -> Option<Micros> {
        self.lock().room
    }

    /// It has stored something since it was started, or another process does.
    pub(crate) fn has_begun(&self) -> bool {
        let state = self.lock();
        state.durable.is_some() || state.elsewhere
    }

    /// Nothing is wrong, and it was heard of within the last minute.
    pub(crate) fn is_well(&self) -> bool {
        let state = self.lock();
        // Of a standby nothing is heard while its primary is idle.
        let silent = state.covered.is_some() && state.told.elapsed() > UNHEARD;
        let heard = state.durable.is_some() && !silent;
        state.error.is_none() && (heard || state.elsewhere)
    }

    /// What its slot is called, and where.
    pub(crate) fn place(&self) -> Option<String> {
        let (engine, slot) = self.lock().server.clone()?;
        Some(format!("the slot {slot} of {}", engine.describe()))
    }

    /// Whether the log has a gap that no backup has ended yet; asking takes it.
    pub(crate) fn take_gap(&self) -> bool {
        std::mem::take(&mut self.lock().gap)
    }

    fn failed(&self, error: &AppError) {
        let why = error.to_string();
        if error.class == FailureClass::Locked {
            // Another process captures it: nothing is lost by that.
            tracing::warn!(cluster = self.cluster, "capture: {why}");
            let mut state = self.lock();
            (state.error, state.elsewhere) = (None, true);
            return;
        }
        tracing::error!(cluster = self.cluster, "capture: {why}");
        let mut state = self.lock();
        state.elsewhere = false;
        state.fail(why, error.code == code::FULL);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events for Watched {
    fn emit(&self, event: Event) {
        let mut state = self.lock();
        match event {
            Event::Captured { position, covered_until, .. } => {
                // A capture that begins again tells first where it stands: nothing was stored by that.
                if (Some(position) > state.durable || covered_until > state.covered)
                    && let Some(over) = state.goes_on()
                {
                    tracing::info!(target: crate::log::OVER, cluster = self.cluster, "capture: {over}");
                }
                (state.durable, state.covered) = (Some(position), covered_until.max(state.covered));
            }
            Event::Failing { why, full } => state.fail(why, full),
            Event::Gap { timeline, from, to, reason } => {
                state.gap = true;
                let span = format!("{} to {}", text::lsn(from), text::lsn(to));
                tracing::error!(cluster = self.cluster, timeline, span, reason, "log is lost");
            }
            Event::Warning(text) => {
                tracing::warn!(cluster = self.cluster, "capture: {text}");
            }
            Event::Info(text) | Event::Step(text) => {
                tracing::info!(cluster = self.cluster, "capture: {text}")
            }
            Event::Progress { .. } | Event::Replaying { .. } => {}
        }
    }
}

/// A configuration that is replaced while others use it.
pub(crate) type InForce = Arc<Mutex<Arc<Config>>>;

/// What the threads of a capture need.
pub(crate) struct Keeper {
    pub(crate) global: Global,
    /// The configuration in force: which other clusters there are may change while this one goes on.
    pub(crate) config: InForce,
    pub(crate) watched: Arc<Watched>,
    pub(crate) history: Arc<History>,
    /// A slot that holds back more is given up.
    pub(crate) max_retained: Option<u64>,
    pub(crate) stop: StopFlag,
}

impl Keeper {
    /// Starts the thread that keeps the capture running until it is stopped; once the one `before` has ended.
    pub(crate) fn start(self, before: Option<JoinHandle<()>>) -> JoinHandle<()> {
        std::thread::spawn(move || {
            if let Some(Err(panic)) = before.map(JoinHandle::join) {
                self.watched.failed(&died("capture", &self.watched.cluster, panic.as_ref()));
            }
            self.keep();
        })
    }

    fn keep(&self) {
        let mut pause = PAUSES.0;
        while !self.stop.is_set() {
            let begun = Instant::now();
            let cluster = &self.watched.cluster;
            if let Err(error) = caught("capture", cluster, || self.attempt()) {
                self.watched.failed(&error);
                if error.code == held::CODE {
                    // To try again would be to wait until the other one restarts.
                    let how =
                        "captured only after a change of its configuration, or a restart of this service";
                    tracing::error!(cluster, "it is {how}");
                    return;
                }
            }
            if begun.elapsed() > PAUSES.1 {
                pause = PAUSES.0;
            }
            if let Err(error) = caught("look after the slot of", cluster, || {
                self.rest(pause);
                Ok(())
            }) {
                self.watched.failed(&error);
                wait(pause, &self.stop);
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Waits; the slot may hold back too much meanwhile.
    fn rest(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while !self.stop.is_set() && Instant::now() < until {
            if let Some(held) = self.too_much() {
                self.give_up(held);
            }
            wait(LOOK.min(until.saturating_duration_since(Instant::now())), &self.stop);
        }
    }

    /// One capture, until it ends by itself, is stopped, or its slot has to be given up.
    fn attempt(&self) -> Result<(), AppError> {
        let config = Arc::clone(&self.config.lock().unwrap_or_else(PoisonError::into_inner));
        let session = Session::of_daemon(self.global.clone(), &config);
        // The slot is watched even if the repository can't be opened.
        self.watched.lock().server = Some(session.server(&self.watched.cluster)?);
        let opened = session.cluster(&self.watched.cluster)?;
        {
            // Of two names that are new one comes first.
            let _one_at_a_time = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
            twin::claim(&opened.context, &opened.others())?;
        }
        let stop = StopFlag::default();
        let request =
            CaptureRequest { once: false, slot: opened.slot.clone(), create_slot: true, stop: stop.clone() };
        let watched = Arc::clone(&self.watched);
        let captured = std::thread::spawn(move || {
            let result = capture::run(&opened.context, &request, watched.as_ref());
            result.map(|_| ())
        });
        let mut looked = Instant::now();
        let mut too_much = None;
        while !captured.is_finished() {
            if self.stop.is_set() {
                stop.stop();
            } else if too_much.is_none() && looked.elapsed() >= LOOK {
                looked = Instant::now();
                too_much = self.too_much();
                // A slot in use can't be dropped.
                if too_much.is_some() {
                    stop.stop();
                }
            }
            std::thread::sleep(TICK);
        }
        let result = ended(&self.watched.cluster, captured);
        if let Some(held) = too_much {
            self.give_up(held);
        }
        result
    }

    /// How many bytes the slot holds back, if that is too much while nothing can be stored.
    fn too_much(&self) -> Option<u64> {
        let most = self.max_retained?;
        let (engine, slot, durable) = {
            let state = self.watched.lock();
            if state.error.is_none() && state.told.elapsed() <= SILENT {
                return None;
            }
            let (engine, slot) = state.server.clone()?;
            (engine, slot, state.durable)
        };
        // A server that does not answer holds back nothing that we could free.
        let held = match engine.slot_holds(&slot).ok()? {
            SlotHolds::Nothing => return None,
            SlotHolds::Bytes(bytes) => bytes,
            SlotHolds::Unknown => engine.identify().ok()?.position.since(durable?),
        };
        (held > most).then_some(held)
    }

    /// Drops the slot. What the server no longer has then becomes a gap when capture goes on.
    fn give_up(&self, held: u64) {
        let server = self.watched.lock().server.clone();
        let Some((engine, slot)) = server else { return };
        if let Err(error) = engine.drop_slot(&slot) {
            tracing::error!(cluster = self.watched.cluster, "the slot {slot} can't be dropped: {error}");
            return;
        }
        let why = self.watched.error().unwrap_or_else(|| "nothing was stored for a while".to_owned());
        let told = format!(
            "the slot {slot} held back {} of WAL, more than max_retained, and was given up to keep the server alive: {why}",
            size(held)
        );
        tracing::error!(cluster = self.watched.cluster, "{told}");
        let now = text::now();
        if let Err(error) = self.history.note(&self.watched.cluster, GIVEN_UP, Some(&told), now) {
            tracing::error!("{error}");
        }
    }
}

/// Waits, unless it is asked to stop.
pub(crate) fn wait(time: Duration, stop: &StopFlag) {
    let until = Instant::now() + time;
    while !stop.is_set() && Instant::now() < until {
        std::thread::sleep(TICK);
    }
}

/// How a capture ended. A thread that died has stored nothing more, whatever it did before.
pub(super) fn ended(cluster: &str, captured: JoinHandle<Result<(), AppError>>) -> Result<(), AppError> {
    captured.join().unwrap_or_else(|panic| Err(died("capture", cluster, panic.as_ref())))
}
