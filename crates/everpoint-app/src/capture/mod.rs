//! `capture`: receives the log of a server into the repository until stopped, whatever happens to either side.

mod held;
mod pause;
#[cfg(test)]
mod tests;
mod watched;

use std::time::{Duration, Instant};

use everpoint_core::{FailureClass, LogOffset};
use everpoint_engine::{CaptureFrom, CaptureOptions, EngineError, ServerIdentity, StopFlag};
use everpoint_repo::{KeptLease, LeaseState, code};
use serde::Serialize;

use crate::log_writer::{LogWriter, from_app};
use crate::{AppError, ClusterContext, Event, Events, production, text};
use pause::Pause;
use watched::{GAP_REFUSED, Production, Watched};

/// After this time without renewal the lease of a capture that died elsewhere can be taken over.
const LEASE: Duration = Duration::from_secs(30);
/// A backup takes the log from where capture stopped if no more than this has been written since; else only its own part.
const CATCH_UP_BYTES: u64 = 256 << 20;

/// What a capture calls itself in the lease, and the one that a backup has beside it.
const LASTING: &str = "capture";
const BESIDE_BACKUP: &str = "the log of a backup";
/// How often the lease is asked for while a backup has it.
const TURN: Duration = Duration::from_millis(500);

/// What to capture.
#[derive(Debug, Clone)]
pub struct CaptureRequest {
    /// Return when everything that the server has now is stored.
    pub once: bool,
    /// Name of the replication slot.
    pub slot: String,
    /// Make the slot if it is missing.
    pub create_slot: bool,
    /// Asks to stop.
    pub stop: StopFlag,
}

/// What was captured.
#[derive(Debug, Clone, Serialize)]
pub struct CaptureReport {
    /// Timeline of the newest log.
    pub timeline: u32,
    /// Everything before is stored.
    pub position: String,
    /// Whole segments that this call has stored.
    pub segments: u64,
    /// Bytes of log that this call has stored.
    pub bytes: u64,
}

/// Captures until stopped, or until the server's current end is stored. Reconnects for ever unless `once`.
///
/// # Errors
/// [`crate::held::CODE`] if nothing of the server is stored and another receiver has the slot. `Locked` if another capture of the cluster runs; one beside a backup is waited for, unless `once`. `Damaged` if the server is another cluster, or its log contradicts
/// what is stored. Anything else only if it will not pass by itself.
pub fn run(
    context: &ClusterContext,
    request: &CaptureRequest,
    events: &dyn Events,
) -> Result<CaptureReport, AppError> {
    let lease = hold_after_backup(context, request, events)?;
    let mut pause = Pause::new(&request.stop);
    let server = loop {
        match context.engine.identify() {
            Ok(server) => break server,
            Err(error) if request.once || !will_pass(&error) || !pause.after(&error, events) => {
                return Err(error.into());
            }
            Err(_) => {}
        }
    };
    let mut job = Job::new(context, &server, request.stop.clone(), events)?;
    job.lease = Some(lease);
    job.options = CaptureOptions {
        slot: Some(request.slot.clone()),
        lasting: None,
        create_slot: request.create_slot,
        until: request.once.then_some(server.position),
        ..job.options
    };
    job.from = LogWriter::resume_point(&context.cluster, job.identity, server.segment_size)?;
    job.never_stored = job.from.is_none();
    job.run(request.once)?;
    job.report(&server)
}

/// Captures beside a backup what the backup needs, until stopped: nothing if a capture of the cluster runs already. Holds
/// the log by a slot that goes with the connection; `slot` is the name of the lasting one, which is left alone. `begun` says
/// where the backup's own log begins, once it is known.
///
/// # Errors
/// As [`run`].
pub fn during_backup(
    context: &ClusterContext,
    identity: u32,
    server: &ServerIdentity,
    slot: &str,
    stop: &StopFlag,
    begun: &dyn Fn() -> Option<(u32, LogOffset)>,
    events: &dyn Events,
) -> Result<(), AppError> {
    let lease = match hold(context, BESIDE_BACKUP) {
        Ok(lease) => lease,
        Err(error) if error.class == FailureClass::Locked => return Ok(()),
        Err(error) => return Err(error),
    };
    tracing::debug!(slot, "no capture runs: the backup takes its log by itself");
    let mut job = Job::new(context, server, stop.clone(), events)?;
    (job.lease, job.holder) = (Some(lease), BESIDE_BACKUP);
    (job.refuse_gaps, job.begun) = (true, Some(begun));
    job.options.lasting = Some(slot.to_owned());
    let resume = LogWriter::resume_point(&context.cluster, identity, server.segment_size)?;
    job.from = resume.filter(|(timeline, position)| {
        *timeline == server.timeline
            && server.position.since(*position) <= CATCH_UP_BYTES
            && *position <= server.position
    });
    job.run(false)
}

/// Captures until everything up to `until` is stored, by a slot that goes with the connection; from where the stored log
/// ends if the server still has that, else from the server's current segment.
///
/// # Errors
/// As [`run`].
pub fn capture_until(
    context: &ClusterContext,
    until: LogOffset,
    stop: &StopFlag,
    events: &dyn Events,
) -> Result<CaptureReport, AppError> {
    let server = context.engine.identify()?;
    let mut job = Job::new(context, &server, stop.clone(), events)?;
    job.options.until = Some(until);
    job.refuse_gaps = true;
    job.from = LogWriter::resume_point(&context.cluster, job.identity, server.segment_size)?;
    job.run(false)?;
    job.report(&server)
}

/// Takes the lease; while a backup has it for its own log, a capture that is to last waits until that has ended.
fn hold_after_backup(
    context: &ClusterContext,
    request: &CaptureRequest,
    events: &dyn Events,
) -> Result<KeptLease, AppError> {
    let mut told = false;
    loop {
        let error = match hold(context, LASTING) {
            Err(error) if error.class == FailureClass::Locked => error,
            result => return result,
        };
        let state = context.repository.lease_state(&crate::captured::lease_id(&context.name))?;
        let passes = match &state {
            LeaseState::Held { holder } => holder.starts_with(BESIDE_BACKUP),
            LeaseState::Free => true,
        };
        if request.once || !passes || request.stop.is_set() {
            return Err(error);
        }
        if !told {
            events.emit(Event::Info("a backup captures the log; going on when it has ended".to_owned()));
            told = true;
        }
        std::thread::sleep(TURN);
    }
}

fn hold(context: &ClusterContext, who: &str) -> Result<KeptLease, AppError> {
    let holder = format!("{who} by process {}", std::process::id());
    let lease = context.repository.lease(&crate::captured::lease_id(&context.name), &holder, LEASE)?;
    Ok(lease.keep())
}

/// Whether it may end without anybody's changing the configuration. A full repository is emptied by expiry or made larger:
/// meanwhile the slot keeps the log.
fn will_pass(error: &EngineError) -> bool {
    error.retryable || error.code == code::FULL
}

struct Job<'a> {
    context: &'a ClusterContext,
    events: &'a dyn Events,
    identity: u32,
    writer: LogWriter,
    options: CaptureOptions,
    /// Where to begin if the writer is not open.
    from: Option<(u32, LogOffset)>,
    lease: Option<KeptLease>,
    /// Begin at `from` whatever is stored.
    anew: bool,
    /// It was said that the server is a copy.
    warned: bool,
    /// Of which timeline was told that it is captured, and when.
    told: Option<(u32, Instant)>,
    /// What it calls itself when it takes the lease.
    holder: &'static str,
    /// Begin where the server can, rather than record a gap.
    refuse_gaps: bool,
    /// Nothing of the server was stored when it began.
    never_stored: bool,
    /// Since when the server says that its slot is in use.
    refused: Option<Instant>,
    /// Where the log begins that is needed at least, once that is known.
    begun: Option<&'a dyn Fn() -> Option<(u32, LogOffset)>>,
}

impl<'a> Job<'a> {
    fn new(
        context: &'a ClusterContext,
        server: &ServerIdentity,
        stop: StopFlag,
        events: &'a dyn Events,
    ) -> Result<Self, AppError> {
        let identity = identity_of(context, server)?;
        let options = CaptureOptions {
            slot: None,
            lasting: None,
            create_slot: false,
            temporary: false,
            until: None,
            stop,
        };
        let writer = LogWriter::open(context, identity, server.segment_size)?;
        Ok(Self {
            context,
            events,
            identity,
            writer,
            options,
            from: None,
            anew: false,
            warned: false,
            told: None,
            lease: None,
            holder: LASTING,
            refuse_gaps: false,
            never_stored: false,
            refused: None,
            begun: None,
        })
    }

    fn run(&mut self, once: bool) -> Result<(), AppError> {
        let stop = self.options.stop.clone();
        let mut pause = Pause::new(&stop);
        loop {
            let before = self.writer.place();
            let error = match self.attempt() {
                Ok(()) => break,
                Err(error) => error,
            };
            if self.writer.place().map(|place| place.position) > before.map(|place| place.position) {
                pause.reset();
            }
            if matches!(error.code, GAP_REFUSED | "capture.position") && self.from.is_some() {
                self.events.emit(Event::Warning(format!("{error}; going on where the server can")));
                self.writer.abandon();
                // The server's current segment may lie behind the start of a backup that has begun meanwhile.
                (self.anew, self.from) = (true, None);
                continue;
            }
            if let Some(held) = self.held(&error, once) {
                return Err(held);
            }
            if once || !will_pass(&error) {
                return Err(error.into());
            }
            if !pause.after(&error, self.events) {
                break;
            }
            if self.lease.as_ref().is_some_and(|lease| !lease.is_valid()) {
                self.lease = None;
                self.lease = Some(hold(self.context, self.holder)?);
            }
            if let Err(error) = self.find_place() {
                tracing::debug!(%error, "the place to go on at could not be read yet");
            }
        }
        self.writer.flush()?;
        Ok(())
    }

    /// One connection.
    fn attempt(&mut self) -> Result<(), EngineError> {
        if self.options.stop.is_set() {
            return Ok(());
        }
        let server = self.context.engine.identify()?;
        let identity = identity_of(self.context, &server).map_err(|error| {
            EngineError::new(
                "capture.wrong_cluster",
                "capture",
                self.context.name.clone(),
                error.message.clone(),
            )
            .class(error.class)
            .hint(error.hint.clone().unwrap_or_default())
            .cause(error)
        })?;
        if identity != self.identity {
            let message =
                format!("the server was upgraded: its log is identity {identity} now, not {}", self.identity);
            return Err(EngineError::new(
                "capture.upgraded",
                "go on capturing",
                self.context.name.clone(),
                message,
            )
            .hint("start the capture again"));
        }
        let copy = production::seen(self.context, &server, identity).map_err(from_app)?;
        if let Some(warning) = &copy
            && !std::mem::replace(&mut self.warned, true)
        {
            self.events.emit(Event::Warning(warning.clone()));
        }
        let place = self.writer.place().map(|place| (place.timeline, place.position));
        let at = place.or(self.from).or_else(|| self.begun_at().filter(|_| self.anew));
        let from = CaptureFrom { at, anew: place.is_none() && self.anew };
        let mut watched = Watched {
            writer: &mut self.writer,
            events: self.events,
            lease: self.lease.as_ref(),
            refuse_gaps: self.refuse_gaps && at.is_some(),
            // An archive_command may still bring what lies before a backup, and knows more.
            refuse_unproven: self.refuse_gaps && !(self.anew && at.is_some()),
            production: Production {
                context: self.context,
                identity,
                timeline: copy.is_none().then_some(server.timeline),
            },
            told: None,
            told_timeline: &mut self.told,
        };
        self.context.engine.capture(&from, &self.options, &mut watched)
    }

    /// The segment in which the backup begins, once it has. The server's current segment may lie behind it.
    fn begun_at(&self) -> Option<(u32, LogOffset)> {
        let (timeline, start) = self.begun.and_then(|begun| begun())?;
        Some((timeline, LogOffset(start.0 - start.0 % self.writer.segment_size())))
    }

    /// After an error of the sink the repository says where to go on.
    fn find_place(&mut self) -> Result<(), AppError> {
        if self.writer.place().is_none() {
            let found =
                LogWriter::resume_point(&self.context.cluster, self.identity, self.writer.segment_size())?;
            self.anew &= found.is_none();
            self.from = found.or(self.from);
        }
        Ok(())
    }

    fn report(&self, server: &ServerIdentity) -> Result<CaptureReport, AppError> {
        let written = self.writer.written();
        let place = match self.writer.place() {
            Some(place) => Some((place.timeline, place.durable)),
            None => LogWriter::resume_point(&self.context.cluster, self.identity, server.segment_size)?,
        };
        let (timeline, position) = place.unwrap_or((server.timeline, LogOffset(0)));
        Ok(CaptureReport {
            timeline,
            position: text::lsn(position),
            segments: written.segments,
            bytes: written.bytes,
        })
    }
}

fn identity_of(context: &ClusterContext, server: &ServerIdentity) -> Result<u32, AppError> {
    Ok(context.cluster.identity_for(server.system, server.version, server.segment_size, false)?.0)
}
