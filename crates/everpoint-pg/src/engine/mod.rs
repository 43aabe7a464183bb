//! PostgreSQL as an [`Engine`]: the parts of this crate behind the one trait that the use-cases know.

pub(crate) mod copies;
mod data_dir;
mod directories;
mod outside;
mod running;
mod session;
mod whole;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use everpoint_core::{
    Carry, FailureClass, HistoryEntry, LifeSigns, LogKeeping, LogOffset, Micros, RecordSpan, SaysCopy, Span,
};
use everpoint_engine::{
    BackupEnd, BackupOptions, CaptureFrom, CaptureOptions, CheckLine, CheckState, ConfigurationFile,
    DirectoryProof, Engine, EngineError, ImageSink, LocalLog, LocalPlace, LocalTimeline, LogDecoder, LogHead,
    LogSink, Neighbour, NextSteps, RecoveryEvent, RecoveryReached, RecoverySettings, ServerIdentity,
    SlotHolds, StartOptions, Unstartable,
};

use crate::catalog::SqlBackup;
use crate::client::{Config, Connection, PasswordSource, Purpose, connect};
use crate::control::{CONTROL_FILE, Control};
use crate::files::backup_files;
use crate::history::History;
use crate::replication::CaptureSource;
use crate::wal::{SegmentHead, WalDecoder, WalFormat};
use crate::{basebackup, catalog, recovery, replication, wal};
pub(crate) use directories::relative_of;
use running::is_running_in;
use session::{LocalBackup, STANDBY_LAG, line};

/// How to reach a cluster.
#[derive(Debug, Clone, Default)]
pub struct PgOptions {
    /// `postgres://...` or `name=value ...`; `None`: no server, only directories can be restored.
    pub address: Option<String>,
    /// Password, if it does not come from the address, the environment or a password file.
    pub password: Option<PasswordSource>,
    /// Data directory of the server, if it can be read here.
    pub data_dir: Option<PathBuf>,
    /// Directory with the server's programs; `None`: found by version.
    pub programs: Option<PathBuf>,
    /// Name shown in pg_stat_replication and matched with synchronous_standby_names, unless the address has one.
    pub application_name: Option<String>,
    /// A standby that is further behind its primary is an error of `check`; microseconds.
    pub standby_lag: Option<Micros>,
}

/// A PostgreSQL cluster.
#[derive(Debug)]
pub struct PgEngine {
    config: Option<Config>,
    data_dir: Option<PathBuf>,
    programs: Option<PathBuf>,
    standby_lag: Micros,
    /// System identifier that the server had when it was last asked; 0: it was not. With several hosts in the address the
    /// next connection may lead to another one.
    system: AtomicU64,
}

impl PgEngine {
    /// Reads the address; connects to nothing yet.
    ///
    /// # Errors
    /// Class `Usage` if the address can't be understood.
    pub fn new(options: PgOptions) -> Result<Self, EngineError> {
        let parse = |address: &String| {
            let mut config = Config::parse(address)
                .map_err(|error| error.at("understand", "the address of the server"))?;
            config.password_source.clone_from(&options.password);
            // A name given in the address or in PGAPPNAME is the operator's choice.
            let chosen = address.contains("application_name") || std::env::var_os("PGAPPNAME").is_some();
            if let Some(name) = options.application_name.as_ref().filter(|_| !chosen) {
                config.application_name.clone_from(name);
            }
            Ok::<_, EngineError>(config)
        };
        let config = options.address.as_ref().map(parse).transpose()?;
        let system = AtomicU64::new(0);
        let standby_lag = options.standby_lag.unwrap_or(STANDBY_LAG);
        Ok(Self { config, data_dir: options.data_dir, programs: options.programs, standby_lag, system })
    }

    /// Whether the database of the address exists, as far as the server lets one ask: all else goes without it, so that a
    /// mistyped one would stay unseen.
    ///
    /// # Errors
    /// `pg.database`: it does not.
    pub fn has_database(&self) -> Result<(), EngineError> {
        catalog::has_database(self.config()?)
    }

    fn known_system(&self) -> Option<u64> {
        Some(self.system.load(Ordering::Relaxed)).filter(|system| *system != 0)
    }

    fn config(&self) -> Result<&Config, EngineError> {
        self.config.as_ref().ok_or_else(|| {
            EngineError::new("pg.no_address", "connect to", "the server", "no configuration says where it is")
                .class(FailureClass::Usage)
                .hint("add a table [cluster.NAME] with postgres = \"postgres://…\", or use --config")
        })
    }

    /// The data directory, if it can be read here and holds this very server's files.
    fn readable_data_dir(&self, sql: &mut Connection, system: u64) -> Result<Option<PathBuf>, String> {
        let Some(data_dir) = &self.data_dir else { return Ok(None) };
        let path = data_dir.join(CONTROL_FILE);
        let shown = path.display();
        let bytes = std::fs::read(&path).map_err(|error| format!("{shown} can't be read: {error}"))?;
        let found = Control::parse(&bytes).map_err(|error| error.to_string())?.system;
        if found != system {
            return Err(format!("{shown} has system identifier {found}, the server {system}"));
        }
        if !is_running_in(sql, data_dir) {
            return Err(format!("the server does not run in {}, but a copy of it may", data_dir.display()));
        }
        Ok(Some(data_dir.clone()))
    }
}

impl Engine for PgEngine {
    fn kind(&self) -> &'static str {
        "postgresql"
    }

    fn describe(&self) -> String {
        self.config.as_ref().map_or_else(|| "the server".to_owned(), ToString::to_string)
    }

    fn identify(&self) -> Result<ServerIdentity, EngineError> {
        let server = catalog::identify(self.config()?)?;
        self.system.store(server.system, Ordering::Relaxed);
        Ok(server)
    }

    fn has_file(&self, name: &str) -> Option<bool> {
        copies::has_file(self.config.as_ref()?, self.data_dir.as_deref(), name)
    }

    fn says_copy(&self) -> SaysCopy {
        self.config.as_ref().map_or(SaysCopy::No, copies::says_copy)
    }

    fn forget_copy(&self, directory: &Path) -> Result<bool, EngineError> {
        recovery::forget_copy(directory)
    }

    fn local_place(&self, directory: &Path) -> Result<LocalPlace, EngineError> {
        recovery::local_place(directory)
    }

    fn runs_in(&self, directory: &Path) -> Option<bool> {
        let mut sql = connect(self.config.as_ref()?, Purpose::Sql).ok()?;
        Some(is_running_in(&mut sql, directory))
    }

    fn check(&self, slot: Option<&str>) -> Vec<CheckLine> {
        let config = match self.config() {
            Ok(config) => config,
            Err(error) => {
                return vec![line("connection", CheckState::Error, error.to_string(), error.hint)];
            }
        };
        let mut lines = catalog::check(config, slot, self.standby_lag);
        let (data_dir, files) = self.check_data_dir(config);
        lines.extend(files);
        if !lines.iter().any(|line| line.name == "connection" && line.state == CheckState::Error) {
            lines.push(outside::check(config, data_dir.as_deref()));
            lines.extend(whole::check(config, data_dir.as_deref()));
        }
        lines
    }

    fn size(&self) -> Option<u64> {
        catalog::size(self.config().ok()?)
    }

    fn capture(
        &self,
        from: &CaptureFrom,
        options: &CaptureOptions,
        sink: &mut dyn LogSink,
    ) -> Result<(), EngineError> {
        let source = CaptureSource { config: self.config()?, system: self.known_system() };
        replication::capture(source, from, options, sink)
    }

    fn read_log(&self, timeline: u32, span: Span) -> Option<Vec<u8>> {
        let read = replication::read_log(self.config.as_ref()?, timeline, span);
        read.inspect_err(|error| tracing::debug!(%error, timeline, "the log can't be compared")).ok()
    }

    fn log_keeping(&self) -> Option<LogKeeping> {
        catalog::log_keeping(self.config.as_ref()?)
    }

    fn drop_slot(&self, slot: &str) -> Result<(), EngineError> {
        replication::drop_slot(self.config()?, slot)
    }

    fn make_slot(&self, slot: &str) -> Result<bool, EngineError> {
        replication::make_slot(self.config()?, slot)
    }

    fn slot_holds(&self, slot: &str) -> Result<SlotHolds, EngineError> {
        replication::slot_holds(self.config()?, slot)
    }

    fn backup(&self, options: &BackupOptions, sink: &dyn ImageSink) -> Result<BackupEnd, EngineError> {
        let config = self.config()?;
        if self.data_dir.is_some() {
            match self.local_files(config) {
                Ok(data_dir) => {
                    let outside = basebackup::beside(config, Some(&data_dir));
                    let mut session = LocalBackup {
                        session: SqlBackup::open(config, &options.stop)?,
                        data_dir: data_dir.clone(),
                    };
                    let mut end = backup_files(&data_dir, &outside.files, &mut session, options, sink)?;
                    end.facts.extend(outside.facts());
                    return Ok(end);
                }
                Err(reason) => sink.warn(&format!("files are copied over the network: {reason}")),
            }
        }
        basebackup::base_backup(config, self.known_system(), options, sink)
    }

    fn image_warnings(&self, facts: &[(String, String)]) -> Vec<String> {
        outside::warnings(self.config.as_ref(), facts)
    }

    fn restore_point(&self, name: &str) -> Result<LogOffset, EngineError> {
        catalog::restore_point(self.config()?, name)
    }

    fn decoder(&self, segment_size: u64, carry: Carry) -> Box<dyn LogDecoder> {
        Box::new(WalDecoder::new(segment_size, carry))
    }

    fn log_head(&self, bytes: &[u8]) -> Result<LogHead, EngineError> {
        let head = SegmentHead::parse(bytes)
            .map_err(|reason| EngineError::new("wal.head", "understand", "the log segment", reason))?;
        let format = u16::try_from(head.log_format).ok().and_then(WalFormat::from_magic);
        Ok(LogHead {
            system: head.system,
            version: format.map_or(0, |format| format.major() * 10_000),
            timeline: head.timeline,
            start: head.start,
            segment_size: head.segment_size,
            log_format: head.log_format,
        })
    }

    fn rewrite_for_copy(
        &self,
        segment: &mut [u8],
        start: LogOffset,
        segment_size: u64,
        neighbour: Neighbour<'_>,
    ) -> Result<bool, EngineError> {
        recovery::rewrite_for_copy(segment, start, segment_size, neighbour)
    }

    fn history(&self, bytes: &[u8]) -> Result<Vec<HistoryEntry>, EngineError> {
        // The file does not say whose history it is; any timeline in it must be older than that one.
        let history = History::parse(u32::MAX, bytes).map_err(|error| {
            EngineError::new("wal.history", "understand", "a timeline history", error.to_string())
                .class(FailureClass::Damaged)
        })?;
        Ok(history.entries())
    }

    fn last_record(
        &self,
        bytes: &[u8],
        start: LogOffset,
        segment_size: u64,
        before: Option<Carry>,
        at: LogOffset,
    ) -> Option<RecordSpan> {
        wal::record_starts(bytes, start, segment_size, before).take_while(|record| record.start <= at).last()
    }

    fn carry_of(&self, segment: &[u8], start: LogOffset, segment_size: u64) -> Carry {
        wal::last_carry_of_segment(segment, start, segment_size, None)
    }

    fn local_log(
        &self,
        directory: &Path,
        of: &LocalTimeline,
        segment_size: u64,
    ) -> Result<LocalLog, EngineError> {
        recovery::local_log(directory, of, segment_size)
    }

    fn data_directory(&self) -> Option<PathBuf> {
        self.data_dir.clone()
    }

    fn directory_proof(&self, directory: &Path) -> DirectoryProof {
        recovery::directory_proof(directory)
    }

    fn tablespace_directory(&self, version: u32) -> Option<String> {
        recovery::tablespace_directory(version)
    }

    fn takes_tablespaces_inside(&self, version: u32) -> bool {
        recovery::takes_tablespaces_inside(version)
    }

    fn is_log_name(&self, name: &str) -> bool {
        recovery::is_log_name(name)
    }

    fn directories(&self) -> Vec<PathBuf> {
        directories::of(self.data_dir.as_deref(), self.config.as_ref())
    }

    fn life_signs(&self, directory: &Path) -> Result<LifeSigns, EngineError> {
        recovery::life_signs(directory)
    }

    fn tablespace_in_use(&self, place: &Path, part: &str) -> Option<String> {
        recovery::tablespace_in_use(place, part)
    }

    fn prepare_recovery(&self, settings: &RecoverySettings) -> Result<(), EngineError> {
        recovery::prepare_recovery(settings)
    }

    fn links_out(&self, directory: &Path) -> Vec<PathBuf> {
        crate::outside::links_out(directory)
    }

    fn configuration(&self, directory: &Path, facts: &[(String, String)]) -> Vec<ConfigurationFile> {
        recovery::kept_configuration(directory, facts)
    }

    fn programs(
        &self,
        named: Option<&Path>,
        (directory, earlier): (&Path, Option<&Path>),
        version: u32,
    ) -> Result<Option<PathBuf>, EngineError> {
        let named = named.or(self.programs.as_deref()).map(Path::to_owned);
        let wanted = named
            .or_else(|| recovery::noted_programs(directory))
            .or_else(|| earlier.and_then(|earlier| recovery::trusted_programs(&earlier.join("postgres"))));
        recovery::find_programs(wanted.as_deref(), version / 10_000).map(Some)
    }

    fn differences(&self, facts: &[(String, String)]) -> Vec<String> {
        recovery::compare_collations(facts)
    }

    fn replay_libraries(
        &self,
        programs: Option<&Path>,
        version: u32,
        records: &[(u32, LogOffset)],
        facts: &[(String, String)],
    ) -> Result<Vec<String>, EngineError> {
        recovery::replay_libraries(programs.or(self.programs.as_deref()), version, records, facts)
    }

    fn start_settings(&self, settings: &RecoverySettings) -> Vec<(String, String)> {
        recovery::start_settings(settings)
    }

    fn unstartable(&self, settings: &RecoverySettings, programs: Option<&Path>) -> Option<Unstartable> {
        recovery::unstartable(settings, programs.or(self.programs.as_deref()))
    }

    fn stop_command(&self, directory: &Path) -> Option<String> {
        recovery::stop_command(directory, self.programs.as_deref())
    }

    fn next_steps(&self, settings: &RecoverySettings, port: Option<u16>) -> NextSteps {
        recovery::next_steps(settings, self.programs.as_deref(), port)
    }

    fn start(
        &self,
        options: &StartOptions,
        events: &mut dyn FnMut(RecoveryEvent),
    ) -> Result<RecoveryReached, EngineError> {
        let programs = options.programs.clone().or_else(|| self.programs.clone());
        recovery::start(&StartOptions { programs, ..options.clone() }, events)
    }
}
