//! Capture: from wherever the sink stands, through restarts of timelines and losses, until stopped.

mod compare;

use everpoint_core::{FailureClass, LogOffset};
use everpoint_engine::{CaptureFrom, CaptureOptions, EngineError, LogSink, ServerIdentity, SlotHolds};

use super::branch::Way;
use super::loss::{is_gone, next_available, record_gap};
use super::receive::Outcome;
use super::start::{Obstacle, Start, plan_start, segment_start};
use super::{Replication, SlotPosition};
use crate::client::{Config, PgError};
use crate::history::History;
use crate::lsn::Lsn;

/// Which server to capture from.
#[derive(Debug, Clone, Copy)]
pub struct CaptureSource<'a> {
    /// How to reach it.
    pub config: &'a Config,
    /// The system identifier that it must have; `None`: any.
    pub system: Option<u64>,
}

/// Receives the log into the sink: the semantics of [`everpoint_engine::Engine::capture`].
///
/// # Errors
/// `pg.wrong_cluster` and `pg.diverged` (class Damaged, not retryable) if the server is not, or no longer, the one that the
/// sink's log comes from; `pg.slot_missing` if the slot is not there and may not be made; else what the server, the network or
/// the sink say.
pub fn capture(
    source: CaptureSource<'_>,
    from: &CaptureFrom,
    options: &CaptureOptions,
    sink: &mut dyn LogSink,
) -> Result<(), EngineError> {
    let mut session = Session::open(source, options)?;
    let mut start = session.start(from, sink)?;
    loop {
        if let Some(at) = start.close {
            sink.timeline_end(at)?;
        }
        session.announce(&start, options, sink)?;
        let (outcome, reached) = session.receive(&start, options, sink)?;
        match outcome {
            Outcome::Done => return Ok(()),
            Outcome::TimelineEnd { next_timeline, next_start } => {
                sink.timeline_end(next_start)?;
                session.refresh()?;
                let position = segment_start(next_start, session.server.segment_size);
                start = Start { timeline: next_timeline, position, close: None };
            }
            Outcome::Failed(error) if is_gone(&error) => {
                start = session.step_over_loss(&error, (start.timeline, reached), options, sink)?;
            }
            Outcome::Failed(error) => return Err(session.stream_error(error, &start, options)),
        }
        if options.stop.is_set() {
            sink.tick()?;
            return Ok(());
        }
    }
}

/// Gives up a slot, if it exists.
///
/// # Errors
/// If it is in use, or the server can't be reached.
pub fn drop_slot(config: &Config, name: &str) -> Result<(), EngineError> {
    let object = || format!("{name} of {config}");
    let mut replication =
        Replication::open(config).map_err(|error| error.at("connect to", config.to_string()))?;
    replication.drop_slot(name).map_err(|error| error.at("drop replication slot", object()))?;
    Ok(())
}

/// Makes a lasting slot, if it is missing; returns whether it was.
///
/// # Errors
/// If it can't be made, or the server can't be reached.
pub fn make_slot(config: &Config, name: &str) -> Result<bool, EngineError> {
    let mut replication =
        Replication::open(config).map_err(|error| error.at("connect to", config.to_string()))?;
    let made = replication.ensure_slot(name);
    made.map_err(|error| slot_error(error, "create replication slot", &format!("{name} of {config}")))
}

/// What the server calls itself: roles that may only replicate see it, too.
#[must_use]
pub fn cluster_name(config: &Config) -> Option<String> {
    Replication::open(config).ok()?.connection().show("cluster_name").ok()
}

/// How much log a slot holds back now.
///
/// # Errors
/// If the server can't be asked.
pub fn slot_holds(config: &Config, name: &str) -> Result<SlotHolds, EngineError> {
    let fail = |error: PgError| error.at("ask for the replication slot of", config.to_string());
    let mut replication = Replication::open(config).map_err(fail)?;
    let position = replication.identify().map_err(fail)?.position;
    Ok(match replication.read_slot(name).map_err(fail)? {
        None => SlotHolds::Nothing,
        Some(SlotPosition { restart: Some(restart), .. }) => SlotHolds::Bytes(position.since(restart)),
        // Newer servers tell; one that was invalidated keeps nothing there.
        Some(_) if replication.tells_of_slots() => SlotHolds::Nothing,
        Some(_) => SlotHolds::Unknown,
    })
}

/// A replication connection with what is known about its server.
struct Session {
    config: Config,
    replication: Replication,
    server: ServerIdentity,
    history: History,
    slot: Option<String>,
    slot_position: Option<SlotPosition>,
    object: String,
}

impl Session {
    fn open(source: CaptureSource<'_>, options: &CaptureOptions) -> Result<Self, EngineError> {
        let object = source.config.to_string();
        let fail = |error: PgError| error.at("connect to", object.clone());
        let mut replication = Replication::open(source.config).map_err(fail)?;
        let server = replication.identify().map_err(fail)?;
        check_system(source.system, server.system, &object)?;
        let history = read_history(&mut replication, server.timeline).map_err(fail)?;
        let (config, slot) = (source.config.clone(), options.slot.clone());
        let mut session = Self { config, replication, server, history, slot, slot_position: None, object };
        session.prepare_slot(options)?;
        Ok(session)
    }

    /// Makes the slot if it is missing and may be made, and asks where it stands.
    fn prepare_slot(&mut self, options: &CaptureOptions) -> Result<(), EngineError> {
        let Some(name) = self.slot.clone() else {
            return self.hold_log_for_this_session();
        };
        let object = format!("{name} of {}", self.object);
        if options.create_slot || options.temporary {
            let made = if options.temporary {
                self.replication.create_slot(&name, true)
            } else {
                self.replication.ensure_slot(&name)
            };
            let made = made.map_err(|error| slot_error(error, "create replication slot", &object))?;
            if made {
                tracing::info!(slot = name, server = self.object, "replication slot made");
            } else if options.temporary {
                let why = "another session has a slot of this name";
                return Err(
                    EngineError::new("pg.slot_in_use", "create replication slot", object, why).retryable()
                );
            }
        }
        let found = self.replication.read_slot(&name);
        self.slot_position = found.map_err(|error| error.at("read replication slot", object.clone()))?;
        if self.slot_position.is_none() {
            return Err(EngineError::new(
                "pg.slot_missing",
                "use replication slot",
                object,
                "it does not exist",
            )
            .hint(format!("SELECT pg_create_physical_replication_slot('{name}', true)")));
        }
        Ok(())
    }

    /// Without a slot of its own, a capture holds the log by a temporary one, which dies with the connection. Where none can
    /// be had it goes on without: what it needs is young.
    fn hold_log_for_this_session(&mut self) -> Result<(), EngineError> {
        let name = format!("everpoint_{}_{:x}", std::process::id(), self.server.position.0);
        match self.replication.create_slot(&name, true) {
            Ok(true) => {
                // What was written before the slot was made may be gone already, and is not held by it.
                let server = self.replication.identify();
                self.server = server.map_err(|error| error.at("identify", self.object.clone()))?;
                // A backup of a standby begins at its last restart point, which may lie far back: there the slot stands.
                if self.server.in_recovery {
                    let stands = self.replication.read_slot(&name);
                    self.slot_position =
                        stands.map_err(|error| error.at("read replication slot", name.clone()))?;
                }
                self.slot = Some(name);
            }
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "no temporary slot"),
        }
        Ok(())
    }

    fn start(&mut self, from: &CaptureFrom, sink: &mut dyn LogSink) -> Result<Start, EngineError> {
        let planned = match from.at {
            Some((timeline, position)) if !from.anew => self.go_on(timeline, position, sink)?,
            at => plan_start(at, &self.server, &self.history, self.slot_position),
        };
        planned.map_err(|obstacle| self.obstacle(obstacle, from))
    }

    fn go_on(
        &mut self,
        timeline: u32,
        position: LogOffset,
        sink: &mut dyn LogSink,
    ) -> Result<Result<Start, Obstacle>, EngineError> {
        let (server, history) = (&self.server, &self.history);
        let mut way = Way { replication: &mut self.replication, server, history };
        if way.has(timeline, sink)? {
            return Ok(plan_start(Some((timeline, position)), server, history, self.slot_position));
        }
        let close = |start: Start| Start { close: Some(position), ..start };
        match sink.stands(server.timeline, &server.history)? {
            // The sink has followed a younger one since: an old primary came back, or a standby has yet to follow.
            Some(_) if timeline > server.timeline => {
                Ok(Err(if server.in_recovery { Obstacle::Behind } else { Obstacle::OlderTimeline }))
            }
            Some(own) => {
                let planned = plan_start(Some((server.timeline, own)), server, history, self.slot_position);
                Ok(planned.map(close))
            }
            None => Ok(way.after_what_is_held(sink)?.map(close)),
        }
    }

    fn obstacle(&self, obstacle: Obstacle, from: &CaptureFrom) -> EngineError {
        let (timeline, position) = from.at.unwrap_or_default();
        let here = format!("timeline {timeline}, {}", Lsn::from(position));
        let there = format!("timeline {}, {}", self.server.timeline, Lsn::from(self.server.position));
        let error =
            |code, message| EngineError::new(code, "continue the log from", self.object.clone(), message);
        if obstacle == Obstacle::Behind {
            let message = format!("the standby stands at {there}, we hold {here} already");
            return error("pg.behind", message)
                .retryable()
                .hint("wait until it has caught up, or use the primary");
        }
        let why = match obstacle {
            Obstacle::OtherHistory => "the server's history does not contain our timeline",
            Obstacle::OlderTimeline => "the server is on an older timeline than our log",
            Obstacle::ServerShorter | Obstacle::Behind => {
                "the server's log ends before ours on the same timeline"
            }
        };
        error("pg.diverged", format!("{why}: we hold {here}, the server stands at {there}"))
            .class(FailureClass::Damaged)
            .hint(
                "it was set back, rewound or copied, or an old primary came back. If this server is production: promote it to \
                 a new timeline (stop it, create standby.signal in its data directory, start it, pg_ctl promote), then take a \
                 backup with `everpoint backup`. If it is a copy, give it a name of its own. Nothing of the stored log was changed",
            )
    }

    fn announce(
        &mut self,
        start: &Start,
        options: &CaptureOptions,
        sink: &mut dyn LogSink,
    ) -> Result<(), EngineError> {
        let history = self.replication.timeline_history(start.timeline);
        let history = history.map_err(|error| {
            error.at("read the history of timeline", format!("{} of {}", start.timeline, self.object))
        })?;
        sink.forks(start.timeline, &history, start.position, &mut |timeline, span| {
            self.read(timeline, span, options)
        })?;
        sink.timeline(start.timeline, &history, start.position)
    }

    /// The server drops a session's temporary slots with any error that it reports to it.
    fn renew_slot(&mut self, options: &CaptureOptions) -> Result<(), EngineError> {
        if options.slot.is_none() || options.temporary {
            self.slot.clone_from(&options.slot);
            self.prepare_slot(options)?;
        }
        Ok(())
    }

    /// Asks again who the server is: it may have been promoted.
    fn refresh(&mut self) -> Result<(), EngineError> {
        let fail = |error: PgError| error.at("identify", self.object.clone());
        self.server = self.replication.identify().map_err(fail)?;
        self.history = read_history(&mut self.replication, self.server.timeline).map_err(fail)?;
        Ok(())
    }

    fn step_over_loss(
        &mut self,
        error: &PgError,
        (timeline, held): (u32, LogOffset),
        options: &CaptureOptions,
        sink: &mut dyn LogSink,
    ) -> Result<Start, EngineError> {
        let object = format!("{} at {}", self.object, Lsn::from(held));
        if options.slot.is_some() && !options.create_slot && !options.temporary {
            return Err(EngineError::new("pg.slot_lost", "stream from", object, error.to_string())
                .hint("drop the slot and let it be made anew; the lost log becomes a recorded gap"));
        }
        // Whatever of the old log is still in the sink's hands must not wait behind the gap.
        sink.tick()?;
        self.refresh()?;
        self.renew_slot(options)?;
        let lasting = options.slot.as_deref().filter(|_| !options.temporary);
        let start = next_available(&mut self.replication, lasting, held, &self.server, &self.history)
            .map_err(|error| error.at("find the log that is left on", object.clone()))?;
        if start.position <= held && start.timeline == timeline {
            // Nothing later is to be had: not a loss that can be stepped over.
            return Err(
                EngineError::new("pg.wal_removed", "stream from", object, error.to_string()).retryable()
            );
        }
        tracing::error!(
            server = self.object,
            timeline,
            from = %Lsn::from(held),
            to = %Lsn::from(start.position),
            "log is lost: {error}"
        );
        record_gap(sink, timeline, held, &start, &self.history, &error.to_string())?;
        Ok(start)
    }

    fn stream_error(&self, error: PgError, start: &Start, options: &CaptureOptions) -> EngineError {
        let slot = options.slot.as_ref().map_or_else(String::new, |name| format!(" by slot {name}"));
        error.at(
            "stream the log from",
            format!("{}{slot}, timeline {} at {}", self.object, start.timeline, Lsn::from(start.position)),
        )
    }
}

/// Refuses a server of another cluster.
pub(crate) fn check_system(expected: Option<u64>, found: u64, object: &str) -> Result<(), EngineError> {
    match expected {
        Some(expected) if expected != found => Err(EngineError::new(
            "pg.wrong_cluster",
            "use",
            object,
            format!("its system identifier is {found}, but this cluster's is {expected}"),
        )
        .class(FailureClass::Damaged)
        .hint(
            "the address leads to another cluster; after pg_upgrade or initdb, record the new identity first",
        )),
        _ => Ok(()),
    }
}

fn slot_error(error: PgError, operation: &'static str, object: &str) -> EngineError {
    let full = error.sqlstate() == Some("53400");
    let error = error.at(operation, object);
    if full { error.hint("raise max_replication_slots, or drop a slot that nobody uses") } else { error }
}

fn read_history(replication: &mut Replication, timeline: u32) -> Result<History, PgError> {
    let content = replication.timeline_history(timeline)?;
    History::parse(timeline, &content).map_err(|error| PgError::Protocol(error.to_string()))
}
