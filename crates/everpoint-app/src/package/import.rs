//! Packages put into a repository, so that a restore from them is planned, checked and done like any other.

use std::collections::HashMap;
use std::io::Read;

use everpoint_core::package::pieces_added;
use everpoint_core::{BranchId, FailureClass, LogOffset, Micros, RestorePlan, SeenBy, Sighting, Span};
use everpoint_engine::{
    BackupBegin, FileKind, FileMeta, ImageSink, ImageWorker, LogSink, PART_BYTES, Part, StopFlag,
    TablespaceLink,
};
use everpoint_format::codec::Codec;
use everpoint_format::manifest::BackupRecord;
use everpoint_format::package::{PackageManifest, PackagedCluster, PackagedLog};
use serde::Serialize;

use super::read::Opening;
use super::room;
use crate::backup::image::ImageWriter;
use crate::backup::resume::Resumed;
use crate::backup::spill::EntrySorter;
use crate::lineage::branch_id;
use crate::log_file::{LogFile, SegmentName};
use crate::log_writer::LogWriter;
use crate::restore::image::EXTERNAL;
use crate::{AppError, ClusterContext, Event, Events};

/// Memory for sorting the entries of an image, in bytes.
const SORT_BUFFER: usize = 16 << 20;
/// What is stored goes away right after the restore: fast compression.
const CODEC: Codec = Codec::Lz4;

/// What was put in.
#[derive(Debug, Clone, Serialize)]
pub struct ImportReport {
    /// The packages, in the order in which they were made.
    pub packages: Vec<Imported>,
}

/// One package that was put in.
#[derive(Debug, Clone, Serialize)]
pub struct Imported {
    /// Its name.
    pub name: String,
    /// Id of the repository from which it was made.
    #[serde(skip)]
    pub repository: String,
    /// The base image in it.
    pub base: Option<String>,
    /// The image was not stored before.
    #[serde(skip)]
    pub base_added: bool,
    /// Segments of log that it added.
    pub segments: u64,
    /// The log that it added.
    #[serde(skip)]
    pub added: Vec<(BranchId, Span)>,
}

impl ImportReport {
    /// Where what a restore takes comes from, in words: from packages, or from the repository that they were put into.
    #[must_use]
    pub fn sources(&self, plan: &RestorePlan) -> Vec<String> {
        let has = |package: &&Imported| package.base_added && package.base.as_ref() == Some(&plan.backup);
        let image = match self.packages.iter().find(has) {
            Some(package) => format!("package {}", package.name),
            None => "the repository".to_owned(),
        };
        let added: Vec<_> = self.packages.iter().flat_map(|package| package.added.iter().cloned()).collect();
        let packaged = pieces_added(&plan.pieces, &added);
        let stored = plan.pieces.len() - packaged;
        vec![
            format!("the image {} comes from {image}", plan.backup),
            format!(
                "of the log {packaged} segments or parts of them come from packages and {stored} from the repository"
            ),
        ]
    }
}

/// Puts the context's cluster from these packages into the context's repository, the oldest first. Each is compared with
/// its sums on the way.
///
/// # Errors
/// `Damaged` if a package is; `Usage` if none holds the cluster. What was put in until then stays.
pub fn import(
    context: &ClusterContext,
    openings: &[Opening<'_>],
    events: &dyn Events,
) -> Result<ImportReport, AppError> {
    let mut ordered = Vec::new();
    for opening in openings {
        ordered.push((opening.manifest()?, opening));
    }
    ordered.sort_by_key(|(manifest, _)| manifest.made_at);
    room::to_import(context, ordered.iter().map(|(manifest, _)| manifest))?;
    let mut packages = Vec::new();
    // What a repository knows of production is younger than what a package that was put over it tells.
    let tells = context.cluster.sightings()?.is_empty();
    for (manifest, opening) in ordered {
        let Some(cluster) = manifest.cluster(&context.name) else { continue };
        events.emit(Event::Step(format!("reading {}", manifest.name)));
        packages.push(one(context, opening, &manifest, cluster, tells, events)?);
    }
    if packages.is_empty() {
        let message = "none of the packages holds this cluster";
        let error =
            AppError::new("package.no_cluster", FailureClass::Usage, "restore", &context.name, message);
        return Err(error.hint("everpoint offsite unpack FILE DIR shows what is in one: MANIFEST.json"));
    }
    Ok(ImportReport { packages })
}

fn one(
    context: &ClusterContext,
    opening: &Opening<'_>,
    manifest: &PackageManifest,
    cluster: &PackagedCluster,
    tells_production: bool,
    events: &dyn Events,
) -> Result<Imported, AppError> {
    let mut identities = HashMap::new();
    for identity in &cluster.identities {
        let system = identity.system_identifier.parse().map_err(|_| {
            let message = format!("identity {} has no system identifier", identity.number);
            AppError::new("package.damaged", FailureClass::Damaged, "read", &cluster.name, message)
        })?;
        let (number, _) =
            context.cluster.identity_for(system, identity.server_version, identity.segment_size, true)?;
        identities.insert(identity.number, (number, identity.segment_size));
    }
    let base = cluster.base.as_ref();
    let known = context.cluster.backups()?.into_iter().filter(|listing| listing.record.is_some());
    let stored =
        known.map(|listing| listing.label).any(|label| base.is_some_and(|base| base.record.label == label));
    let mut logs = Logs { context, identities: &identities, open: None, added: Vec::new() };
    opening.each(&mut |_, path, contents| {
        if let Some(base) = base.filter(|base| base.member == path && !stored) {
            let number =
                identities.get(&base.record.identity).map_or(base.record.identity, |(number, _)| *number);
            let record =
                BackupRecord { identity: number, encrypted: false, base: None, ..base.record.clone() };
            return image(context, record, contents, opening.stop, events);
        }
        let Some((directory, name)) = path.rsplit_once('/') else { return Ok(()) };
        match cluster.log.iter().find(|log| log.directory == directory) {
            Some(log) => logs.file(log, name, contents),
            None => Ok(()),
        }
    })?;
    logs.close()?;
    if let Some(seen) = cluster.production.as_ref().filter(|_| tells_production)
        && let Some(branch) = BranchId::parse(&seen.branch)
    {
        let identity = identities.get(&seen.identity).map_or(seen.identity, |(number, _)| *number);
        let at = Micros(manifest.made_at);
        let sighting = Sighting { identity, branch, position: LogOffset(0), at, by: SeenBy::Server };
        context.cluster.note_production(&sighting)?;
    }
    Ok(Imported {
        name: manifest.name.clone(),
        repository: manifest.repository.clone(),
        base: base.map(|base| base.record.label.clone()),
        base_added: base.is_some() && !stored,
        segments: logs.added.len() as u64,
        added: logs.added,
    })
}

/// Stores a base image from its tar.
fn image(
    context: &ClusterContext,
    record: BackupRecord,
    contents: &mut dyn Read,
    stop: &StopFlag,
    events: &dyn Events,
) -> Result<(), AppError> {
    let sorter = EntrySorter::new(&context.scratch, SORT_BUFFER);
    let image =
        ImageWriter::new(&context.cluster, CODEC, None, Resumed::default(), sorter, stop.clone(), events);
    image.begin(&begin(&record))?;
    let damaged = |error: std::io::Error| {
        AppError::new("package.damaged", FailureClass::Damaged, "read", "the base image", error.to_string())
    };
    let mut archive = tar::Archive::new(zstd::Decoder::new(contents).map_err(damaged)?);
    let mut worker = image.worker()?;
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let meta = meta(&entry).map_err(damaged)?;
        parts(worker.as_mut(), &meta, &mut entry)?;
    }
    // The end of the stream holds zstd's own checksum.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).map_err(damaged)?;
    worker.finish()?;
    let (_, _, sorter) = image.into_parts()?;
    let mut writer = context.cluster.write_backup(&record.label, &record)?;
    sorter.drain(|spilled| Ok(writer.entry(spilled.entry, &spilled.hashes)?))?;
    Ok(writer.finish()?)
}

fn begin(record: &BackupRecord) -> BackupBegin {
    let link = |space: &everpoint_format::manifest::TablespaceRecord| TablespaceLink {
        oid: space.oid,
        path: space.path.clone(),
    };
    BackupBegin {
        start: LogOffset(record.start),
        timeline: record.timeline,
        started_at: Micros(record.started_at),
        tablespaces: record.tablespaces.iter().map(link).collect(),
        expected_bytes: record.size_bytes,
        page_size: record.page_size,
        method: "package",
    }
}

fn meta<R: Read>(entry: &tar::Entry<'_, R>) -> std::io::Result<FileMeta> {
    let path = everpoint_core::name::escape(&entry.path_bytes());
    let header = entry.header();
    let (kind, path) = match path.strip_prefix(EXTERNAL).and_then(|rest| rest.strip_prefix('/')) {
        Some(outside) => (FileKind::External, outside.to_owned()),
        None if header.entry_type().is_dir() => (FileKind::Directory, path.trim_end_matches('/').to_owned()),
        None => (FileKind::Plain, path),
    };
    let seconds = i64::try_from(header.mtime()?).unwrap_or_default();
    let modified = Micros(seconds.saturating_mul(1_000_000));
    Ok(FileMeta { path, kind, mode: header.mode()?, modified, size_hint: entry.size() })
}

fn parts<R: Read>(
    worker: &mut dyn ImageWorker,
    meta: &FileMeta,
    entry: &mut tar::Entry<'_, R>,
) -> Result<(), AppError> {
    let (mut left, mut offset, mut buffer) = (meta.size_hint, 0, Vec::new());
    loop {
        let length = left.min(PART_BYTES as u64);
        buffer.resize(usize::try_from(length).unwrap_or(PART_BYTES), 0);
        entry.read_exact(&mut buffer).map_err(|error| {
            AppError::new("package.damaged", FailureClass::Damaged, "read", &meta.path, error.to_string())
        })?;
        left -= length;
        worker.part(meta, Part { offset, data: &buffer, last: left == 0, damaged_pages: &[] })?;
        offset += length;
        if left == 0 {
            return Ok(());
        }
    }
}

/// Takes files of the log as they come.
struct Logs<'a> {
    context: &'a ClusterContext,
    /// Number in the package: number here and bytes of a segment.
    identities: &'a HashMap<u32, (u32, u64)>,
    open: Option<Open>,
    added: Vec<(BranchId, Span)>,
}

/// The branch of which files come.
struct Open {
    log: PackagedLog,
    history: Vec<u8>,
    writer: LogWriter,
    /// What was stored before, once a segment has come.
    held: Option<Vec<Span>>,
    /// Where the next byte goes, once one has been written.
    position: Option<LogOffset>,
}

impl Logs<'_> {
    /// Number and segment size here of the identity that a log in the package belongs to.
    fn identity_of(&self, log: &PackagedLog) -> Result<(u32, u64), AppError> {
        self.identities.get(&log.identity).copied().ok_or_else(|| {
            let message = format!("identity {} is not in the package", log.identity);
            AppError::new("package.damaged", FailureClass::Damaged, "read", &log.directory, message)
        })
    }

    fn file(&mut self, log: &PackagedLog, name: &str, contents: &mut dyn Read) -> Result<(), AppError> {
        if self.open.as_ref().is_none_or(|open| open.log.directory != log.directory) {
            self.close()?;
            let (identity, size) = self.identity_of(log)?;
            let writer = LogWriter::open(self.context, identity, size)?;
            self.open =
                Some(Open { log: log.clone(), history: Vec::new(), writer, held: None, position: None });
        }
        let (identity, size) = self.identity_of(log)?;
        let Some(open) = &mut self.open else { return Ok(()) };
        let damaged =
            |message: String| AppError::new("package.damaged", FailureClass::Damaged, "read", name, message);
        let io = |error: std::io::Error| damaged(error.to_string());
        if let Some(LogFile::History(_)) = LogFile::parse(name) {
            contents.read_to_end(&mut open.history).map_err(io)?;
            return Ok(());
        }
        let segment = name.strip_suffix(".zst").and_then(LogFile::parse);
        let Some(LogFile::Segment(segment)) = segment else {
            return Err(damaged("its name is none of a file of the log".to_owned()));
        };
        let mut bytes = Vec::new();
        zstd::stream::copy_decode(contents, &mut bytes).map_err(io)?;
        if open.held.is_none() {
            let pieces = self.context.cluster.log(identity, open.branch(), size).pieces()?;
            open.held =
                Some(pieces.iter().filter(|piece| piece.has_digest).map(|piece| piece.span).collect());
        }
        self.added.extend(open.segment(segment, &bytes)?.map(|span| (open.branch(), span)));
        Ok(())
    }

    /// Stores what is left of the open branch, and what is known beyond it.
    fn close(&mut self) -> Result<(), AppError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let end = open.position;
        if let (Some(end), Some((position, until))) = (end, open.log.covered)
            && position <= end.0
        {
            open.writer.covered(LogOffset(position), Micros(until))?;
        }
        open.writer.flush()?;
        if let Some((identity, size)) = self.identities.get(&open.log.identity) {
            let store = self.context.cluster.log(*identity, open.branch(), *size);
            for (from, to, reason) in &open.log.gaps {
                let span = Span { from: LogOffset(*from), to: LogOffset(*to) };
                if !covers(open.held.as_deref().unwrap_or_default(), span) {
                    store.put_gap(span, reason)?;
                }
            }
        }
        Ok(())
    }
}

impl Open {
    fn branch(&self) -> BranchId {
        branch_id(self.log.timeline, &self.history)
    }

    /// Takes a segment; which stretch it added, if anything of it was new.
    fn segment(&mut self, name: SegmentName, bytes: &[u8]) -> Result<Option<Span>, AppError> {
        let size = self.writer.segment_size();
        let start = name.start(size).filter(|_| bytes.len() as u64 == size);
        let Some(start) = start else {
            let message = "it is no whole segment";
            return Err(AppError::new(
                "package.damaged",
                FailureClass::Damaged,
                "read",
                name.to_string(),
                message,
            ));
        };
        // Where the stored log ends inside of a segment, zeros follow in the package.
        let inside = self.log.ranges.iter().find(|range| range.from <= start.0 && start.0 < range.to);
        let to = inside.map_or(start.plus(size), |range| LogOffset(range.to).min(start.plus(size)));
        let keep = usize::try_from(to.since(start)).unwrap_or(usize::MAX);
        let span = Span { from: start, to };
        if covers(self.held.as_deref().unwrap_or_default(), span) {
            return Ok(None);
        }
        if self.position != Some(start) {
            // Another stretch. A writer that jumped there would record a gap, and what lies between may be stored.
            self.writer.flush()?;
            self.writer.abandon();
            self.writer.timeline(self.log.timeline, &self.history, start)?;
        }
        self.writer.write(start, bytes.get(..keep).unwrap_or(bytes))?;
        self.position = Some(to);
        Ok(Some(span))
    }
}

/// Whether these pieces, which ascend, hold all of the span.
fn covers(held: &[Span], span: Span) -> bool {
    let mut at = span.from;
    for piece in held {
        if piece.from <= at && at < piece.to {
            at = piece.to;
        }
    }
    at >= span.to
}
