//! `backup`: takes an image of a cluster into the repository, with the log that belongs to it.

pub mod files;
pub mod image;
mod noted;
pub mod prior;
pub mod resume;
pub mod spill;
mod with_log;
mod worker;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use everpoint_core::{BranchId, FailureClass, LogOffset, Micros};
use everpoint_engine::{
    BackupBegin, BackupEnd, BackupOptions, EngineError, ServerIdentity, SlotHolds, StopFlag,
};
use everpoint_format::attempt::{Attempt, Failure};
use everpoint_format::codec::Codec;
use everpoint_format::manifest::{BackupRecord, DamagedPage, TablespaceRecord};
use serde::Serialize;

use crate::{AppError, ClusterContext, Event, Events, captured, production, text};
use image::{ImageWriter, Totals};
use noted::Noted;
use prior::PriorImage;
use resume::Resumed;
use spill::EntrySorter;

/// Size of a page. PostgreSQL can be built with others; such servers are refused.
pub const PAGE: usize = 8192;
/// Raw bytes of a full frame.
pub const CHUNK: usize = 256 << 10;
/// A pack is closed when it has this many bytes.
pub const PACK_TARGET: u64 = 64 << 20;
/// Memory for entries before they are sorted outside.
const SORT_BUFFER: usize = 16 << 20;
/// How frames are compressed unless the operator says otherwise.
pub const DEFAULT_CODEC: Codec = Codec::Zstd(3);

/// Which backup to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackupMode {
    /// Incremental if there is an image to compare with, else full.
    #[default]
    Auto,
    /// Everything is stored anew.
    Full,
    /// Only what differs from the newest image; an error if there is none.
    Incremental,
}

/// What to do.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// Which backup to take.
    pub mode: BackupMode,
    /// Labels of the operator, stored with it.
    pub labels: BTreeMap<String, String>,
    /// Threads.
    pub workers: usize,
    /// Bytes per second to read at most.
    pub rate_limit: Option<u64>,
    /// Compression.
    pub codec: Codec,
    /// Ask for an immediate checkpoint.
    pub fast_checkpoint: bool,
    /// Name of the slot that capture uses.
    pub slot: String,
    /// Asks to stop.
    pub stop: StopFlag,
}

/// A damaged page.
#[derive(Debug, Clone, Serialize)]
pub struct DamagedBlock {
    /// File, relative to the data directory.
    pub file: String,
    /// Number of the page within the file.
    pub block: u32,
}

/// What was done.
#[derive(Debug, Clone, Serialize)]
pub struct BackupReport {
    /// Name of the backup.
    pub label: String,
    /// `full` or `incremental`.
    pub kind: String,
    /// `ok`, or `damaged` if pages failed their checksums.
    pub status: &'static str,
    /// Start position.
    pub start_lsn: String,
    /// Stop position.
    pub stop_lsn: String,
    /// Timeline.
    pub timeline: u32,
    /// Bytes of the image.
    pub size_bytes: u64,
    /// Bytes stored for it.
    pub stored_bytes: u64,
    /// Number of files.
    pub files: u64,
    /// Damaged pages, the first 10,000 of them.
    pub damaged: Vec<DamagedBlock>,
    /// How long it took.
    pub seconds: f64,
    /// What the operator was warned of while it was taken, and what the image lacks.
    pub warnings: Vec<String>,
}

/// Takes a backup.
///
/// # Errors
/// `Locked` if one of this cluster runs already. After any other error the repository is valid, the attempt is listed
/// with its reason, and the next backup reuses what was stored.
pub fn run(
    context: &ClusterContext,
    request: &BackupRequest,
    events: &dyn Events,
) -> Result<BackupReport, AppError> {
    let begun = Instant::now();
    let noted = Noted::new(events);
    let events = &noted;
    let lease = with_log::BackupLease::take(context)?;
    events.emit(Event::Step(format!("asking {} who it is", context.engine.describe())));
    let server = context.engine.identify()?;
    let (identity, _) =
        context.cluster.identity_for(server.system, server.version, server.segment_size, false)?;
    if let Some(copy) = production::seen(context, &server, identity)? {
        events.emit(Event::Warning(copy));
    }
    // After a restore in place or a failover a running capture has yet to come back and make its slot anew: the checkpoint of
    // this backup must not let the server recycle the log until then.
    if captured::is_running(context)
        && matches!(context.engine.slot_holds(&request.slot), Ok(SlotHolds::Nothing))
        && let Err(error) = context.engine.make_slot(&request.slot)
    {
        let text = format!("the slot of the capture is not there, and could not be made: {error}");
        events.emit(Event::Warning(text));
    }
    let base = choose_base(context, request.mode, identity, &server)?;
    let full = base.is_none();
    let label = free_label(context, full)?;
    let attempt = Attempt::new(&label, kind_name(full), text::now().0, std::process::id());
    context.cluster.begin_backup(&label, &attempt)?;
    let job = Job { context, request, events, server: &server, identity, label: &label, base, begun };
    let done = job.take();
    lease.release();
    if let Err(error) = &done {
        // Best effort: the attempt itself already says that it never became a backup.
        let failure = Failure::new(text::now().0, &error.code, &error.to_string());
        if context.cluster.fail_backup(&label, &failure).is_err() {
            events.emit(Event::Warning("the failure could not be recorded in the repository".to_owned()));
        }
    }
    done
}

struct Job<'a> {
    context: &'a ClusterContext,
    request: &'a BackupRequest,
    events: &'a Noted<'a>,
    server: &'a ServerIdentity,
    identity: u32,
    label: &'a str,
    base: Option<String>,
    begun: Instant,
}

impl Job<'_> {
    fn take(&self) -> Result<BackupReport, AppError> {
        let context = self.context;
        crate::package::prepare_scratch(&context.scratch)?;
        let prior = self.prior()?;
        let resumed = Resumed::load(&context.cluster)?;
        if resumed.bytes() > 0 {
            let reused = everpoint_core::words::size(resumed.bytes());
            self.events.emit(Event::Info(format!("{reused} of an interrupted backup can be reused")));
        }
        let sorter = EntrySorter::new(&context.scratch, SORT_BUFFER);
        let stop = self.request.stop.clone();
        let image =
            ImageWriter::new(&context.cluster, self.request.codec, prior, resumed, sorter, stop, self.events)
                .damage_told_to(self.events.aside());
        let options = BackupOptions {
            label: format!("everpoint {}", self.label),
            workers: self.request.workers.max(1),
            rate_limit: self.request.rate_limit,
            fast_checkpoint: self.request.fast_checkpoint,
            leave_out: self.leave_out(),
            stop: self.request.stop.clone(),
        };
        self.events.emit(Event::Step(format!("copying {} as {}", context.name, self.label)));
        let (end, branch) = with_log::backup(
            context,
            self.request,
            self.server,
            self.identity,
            &options,
            &image,
            self.events,
        )?;
        let begin = image.begun().cloned().ok_or_else(|| {
            EngineError::new("internal", "finish", "the backup", "the engine never said where it began")
        })?;
        let (totals, damaged, sorter) = image.into_parts()?;
        self.events.emit(Event::Step("writing the image map".to_owned()));
        let lacks = context.engine.image_warnings(&end.facts);
        lacks.iter().for_each(|lack| self.events.aside().emit(Event::Warning(lack.clone())));
        let record = self.record(&begin, &end, &branch, &totals, &damaged);
        let mut writer = context.cluster.write_backup(self.label, &record)?;
        sorter.drain(|spilled| Ok(writer.entry(spilled.entry, &spilled.hashes)?))?;
        writer.finish()?;
        let warnings = lacks.into_iter().chain(self.events.warnings()).collect();
        Ok(BackupReport { warnings, ..self.report(&record, damaged) })
    }

    /// Our own files inside the server's directories: each backup would hold all those before it.
    fn leave_out(&self) -> Vec<std::path::PathBuf> {
        let found = crate::belongings::of(self.context);
        for it in &found {
            let text = format!("critical: {}; it is left out of the backup", it.told());
            self.events.emit(Event::Warning(text));
        }
        found.into_iter().map(|it| it.belonging.path).collect()
    }

    fn prior(&self) -> Result<Option<PriorImage>, AppError> {
        let Some(base) = &self.base else { return Ok(None) };
        match PriorImage::open(&self.context.cluster, base, &self.context.scratch) {
            Ok(prior) => Ok(Some(prior)),
            Err(error) if self.request.mode == BackupMode::Auto => {
                let warning =
                    format!("the image of {base} can't be read ({error}); everything is stored anew");
                self.events.emit(Event::Warning(warning));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn record(
        &self,
        begin: &BackupBegin,
        end: &BackupEnd,
        branch: &BranchId,
        totals: &Totals,
        damaged: &[(String, u32)],
    ) -> BackupRecord {
        let fact =
            |name: &str| end.facts.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        BackupRecord {
            label: self.label.to_owned(),
            cluster: self.context.name.clone(),
            engine: self.context.engine.kind().to_owned(),
            kind: kind_name(self.base.is_none()).to_owned(),
            base: self.base.clone(),
            identity: self.identity,
            system_identifier: self.server.system.to_string(),
            server_version: self.server.version,
            server_version_text: self.server.version_text.clone(),
            timeline: end.timeline,
            branch: branch.as_str().to_owned(),
            started_at: begin.started_at.0,
            stopped_at: end.stopped_at.0,
            start: begin.start.0,
            stop: end.stop.0,
            page_size: begin.page_size,
            segment_size: self.server.segment_size,
            method: begin.method.to_owned(),
            from_standby: fact("from_standby") == Some("true"),
            size_bytes: totals.image.load(Ordering::Relaxed),
            stored_bytes: totals.stored.load(Ordering::Relaxed),
            file_count: totals.files.load(Ordering::Relaxed),
            pages_total: totals.image.load(Ordering::Relaxed) / PAGE as u64,
            pages_changed: totals.new.load(Ordering::Relaxed) / PAGE as u64,
            damaged: damaged
                .iter()
                .map(|(path, page)| DamagedPage { path: path.clone(), page: *page })
                .collect(),
            damaged_count: totals.damaged.load(Ordering::Relaxed),
            tablespaces: begin
                .tablespaces
                .iter()
                .map(|link| TablespaceRecord { oid: link.oid, path: link.path.clone() })
                .collect(),
            facts: end.facts.clone(),
            warnings: self.events.warnings(),
            labels: self.request.labels.clone(),
            everpoint_version: env!("CARGO_PKG_VERSION").to_owned(),
            duration_micros: u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX),
            encrypted: self.context.repository.is_encrypted(),
            codec: format!("{:?}", self.request.codec).to_lowercase(),
        }
    }

    fn report(&self, record: &BackupRecord, damaged: Vec<(String, u32)>) -> BackupReport {
        BackupReport {
            label: record.label.clone(),
            kind: record.kind.clone(),
            status: if record.damaged_count == 0 { "ok" } else { "damaged" },
            start_lsn: text::lsn(LogOffset(record.start)),
            stop_lsn: text::lsn(LogOffset(record.stop)),
            timeline: record.timeline,
            size_bytes: record.size_bytes,
            stored_bytes: record.stored_bytes,
            files: record.file_count,
            damaged: damaged.into_iter().map(|(file, block)| DamagedBlock { file, block }).collect(),
            seconds: self.begun.elapsed().as_secs_f64(),
            warnings: Vec::new(),
        }
    }
}

const fn kind_name(full: bool) -> &'static str {
    if full { "full" } else { "incremental" }
}

/// The newest whole image of the same cluster, if the mode wants one.
///
/// An image of another branch may serve too: pages are compared by content, so nothing of an abandoned branch comes back.
/// Not after pg_checksums switched checksums, as every page differs then anyway.
fn choose_base(
    context: &ClusterContext,
    mode: BackupMode,
    identity: u32,
    server: &ServerIdentity,
) -> Result<Option<String>, AppError> {
    if mode == BackupMode::Full {
        return Ok(None);
    }
    let newest = context
        .cluster
        .backups()?
        .into_iter()
        .filter(|listing| listing.damage.is_empty())
        .filter_map(|listing| listing.record)
        .filter(|record| {
            record.identity == identity && record.server_version / 10_000 == server.version / 10_000
        })
        .max_by_key(|record| (record.stopped_at, record.label.clone()));
    match newest {
        Some(record) => Ok(Some(record.label)),
        None if mode == BackupMode::Auto => Ok(None),
        None => Err(AppError::new(
            "backup.no_base",
            FailureClass::Usage,
            "take an incremental backup of",
            context.name.clone(),
            "there is no earlier backup to compare with",
        )
        .hint(format!("take a full one first: everpoint backup {} --full", context.name))),
    }
}

/// A label that is not taken: time in UTC and a letter for the kind.
fn free_label(context: &ClusterContext, full: bool) -> Result<String, AppError> {
    let taken: Vec<String> = context.cluster.backups()?.into_iter().map(|listing| listing.label).collect();
    let letter = if full { 'F' } else { 'I' };
    loop {
        let Micros(micros) = text::now();
        let stamp = jiff::Timestamp::from_microsecond(micros).unwrap_or_default();
        let label = format!("{}{letter}", stamp.strftime("%Y%m%d-%H%M%S"));
        if !taken.contains(&label) {
            return Ok(label);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn engine_error(error: AppError) -> EngineError {
    let mut made =
        EngineError::new("backup.store", "store the image of", error.object.clone(), error.to_string());
    made.class = error.class;
    made.hint.clone_from(&error.hint);
    made.cause(error)
}

/// The hash of a page as the side object has it: the first 8 bytes of its BLAKE3, never 0; an all-zero page has 0.
#[must_use]
pub fn page_hash(page: &[u8]) -> u64 {
    if worker::is_zero(page) {
        return 0;
    }
    worker::short(&blake3::hash(page))
}
