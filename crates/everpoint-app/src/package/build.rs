//! Makes a package: members in scratch, what fits under the limit, the file, and its verification.

use std::fs::File;
use std::path::{Path, PathBuf};

use everpoint_core::{FailureClass, RestorePlan, production};
use everpoint_engine::{StopFlag, beside};
use everpoint_format::manifest::BackupRecord;
use everpoint_format::package::{
    INSTRUCTIONS, MANIFEST, POINTS, PackageManifest, PackagedBase, PackagedCluster, PackagedIdentity,
    PackagedProduction, PackagedTarget, SUMS, VERSION,
};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::Serialize;

use super::log::MadeLog;
use super::member::{Made, Sum, Workshop};
use super::planned::Planned;
use super::read::Opening;
use super::report::PackagedReport;
use super::room;
use super::scratch::Scratch;
use super::shrink::shrink;
use super::{ArrivedBranch, Contents, envelope, instructions};
use crate::facts::Facts;
use crate::{AppError, ClusterContext, Event, Events, restore_points, text};

/// What to make.
pub struct BuildRequest {
    /// Name of the file.
    pub name: String,
    /// Directory in which it is made.
    pub directory: PathBuf,
    /// To whom it is encrypted.
    pub recipients: Vec<age::x25519::Recipient>,
    /// Most bytes that it may have.
    pub limit: Option<u64>,
    /// What packages hold that arrived.
    pub arrived: Contents,
    /// Opens what was made, so that all of it is read back; without one only the bytes on disk are compared.
    pub identity: Option<age::x25519::Identity>,
    /// What is known to be missing before it begins, in words.
    pub shortfalls: Vec<String>,
    /// Asks to stop.
    pub stop: StopFlag,
}

/// What was made.
#[derive(Debug, Clone, Serialize)]
pub struct BuildReport {
    /// Name of the file.
    pub name: String,
    /// Where it lies.
    pub file: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// SHA-256 of it.
    pub sha256: String,
    /// All of it was decrypted and compared; else the bytes on disk were.
    pub read_back: bool,
    /// The clusters, by priority.
    pub clusters: Vec<PackagedReport>,
    /// What should be in it and is not, in words.
    pub shortfalls: Vec<String>,
    /// What it covers, for the ledger.
    #[serde(skip)]
    pub contents: Contents,
}

/// A cluster on its way into the package.
pub(super) struct Part<'a> {
    pub(super) context: &'a ClusterContext,
    pub(super) facts: Facts,
    pub(super) identities: Vec<PackagedIdentity>,
    pub(super) plan: Option<RestorePlan>,
    pub(super) logs: Vec<MadeLog>,
    pub(super) base: Option<(BackupRecord, Made)>,
}

/// Makes the package of these clusters, which stand by priority.
///
/// # Errors
/// If something can't be read, nothing fits under the limit, or what was made does not read back as it should.
pub fn build(
    clusters: &[ClusterContext],
    request: &BuildRequest,
    events: &dyn Events,
) -> Result<BuildReport, AppError> {
    let file = request.directory.join(&request.name);
    // Whatever already has this name is not ours to write over.
    if file.symlink_metadata().is_ok() {
        return Err(AppError::io("make", &file, std::io::ErrorKind::AlreadyExists.into()));
    }
    let scratch = Scratch::new(&request.directory)?;
    let (mut workshop, mut shortfalls) = (Workshop::new(scratch.path()), request.shortfalls.clone());
    let mut parts = parts(clusters, request, &mut workshop, &mut shortfalls, events)?;
    shrink(&mut parts, request, &mut shortfalls)?;
    let contents = contents(&parts);
    events.emit(Event::Step(format!("writing {}", request.name)));
    let made = assemble(&parts, request, &mut workshop, &shortfalls)?;
    let reports = parts.iter().map(PackagedReport::of).collect();
    let made_file = scratch.path().join("package");
    let created =
        beside::create_new(&made_file, 0o644).map_err(|error| AppError::io("make", &made_file, error))?;
    let (size, sha256) = seal(created, &made_file, request, &made, events)?;
    place(&made_file, &request.directory, &file)?;
    let read_back = request.identity.is_some();
    let name = request.name.clone();
    Ok(BuildReport { name, file, size, sha256, read_back, clusters: reports, shortfalls, contents })
}

/// One cluster that can't be packed does not keep the others from their day.
fn parts<'a>(
    clusters: &'a [ClusterContext],
    request: &BuildRequest,
    workshop: &mut Workshop,
    shortfalls: &mut Vec<String>,
    events: &dyn Events,
) -> Result<Vec<Part<'a>>, AppError> {
    let left_out =
        |context: &ClusterContext, error: &AppError| format!("{}: it is left out: {error}", context.name);
    let (mut planned, mut parts, mut failure) = (Vec::new(), Vec::new(), None);
    for context in clusters {
        match Planned::of(context, shortfalls) {
            Ok(cluster) => planned.push(cluster),
            Err(error) => {
                shortfalls.push(left_out(context, &error));
                failure = Some(error);
            }
        }
    }
    room::to_build(&planned, request)?;
    for cluster in planned {
        let context = cluster.context;
        events.emit(Event::Step(format!("packing {}", context.name)));
        match part(cluster, request, workshop, shortfalls) {
            Ok(part) => parts.push(part),
            Err(error) if request.stop.is_set() => return Err(error),
            Err(error) => {
                shortfalls.push(left_out(context, &error));
                failure = Some(error);
            }
        }
    }
    match failure {
        Some(failure) if parts.is_empty() => Err(failure),
        _ => Ok(parts),
    }
}

fn part<'a>(
    mut planned: Planned<'a>,
    request: &BuildRequest,
    workshop: &mut Workshop,
    shortfalls: &mut Vec<String>,
) -> Result<Part<'a>, AppError> {
    // The log reaches back to the image that goes in.
    let base = planned.image(request, workshop, shortfalls)?;
    let logs = planned.log(request).make(workshop, shortfalls)?;
    let base = match base {
        Some((record, made)) => planned.shorten(&record.label, &logs, shortfalls)?.then_some((record, made)),
        None => None,
    };
    let Planned { context, facts, plan } = planned;
    let identities = context.cluster.identities()?.into_iter().map(|(number, identity)| PackagedIdentity {
        number,
        system_identifier: identity.system_identifier,
        server_version: identity.server_version,
        segment_size: identity.segment_size,
    });
    let identities = identities.collect();
    Ok(Part { context, facts, identities, plan, logs, base })
}

fn contents(parts: &[Part<'_>]) -> Contents {
    let mut all = Contents::default();
    for part in parts {
        let branches = part.logs.iter().filter_map(|log| {
            let to = log.held_to()?.0;
            Some(ArrivedBranch { identity: log.log.identity, branch: log.log.branch.clone(), to })
        });
        all.clusters.insert(part.context.name.clone(), branches.collect());
    }
    all
}

/// What goes into the file after its front.
struct Assembled {
    front: Vec<envelope::Front>,
    members: Vec<Made>,
    seconds: u64,
}

fn assemble(
    parts: &[Part<'_>],
    request: &BuildRequest,
    workshop: &mut Workshop,
    shortfalls: &[String],
) -> Result<Assembled, AppError> {
    let now = text::now();
    let clusters: Vec<PackagedCluster> = parts.iter().map(packaged).collect();
    let mut members =
        vec![instructions_member(&clusters, parts, request, workshop)?, points(parts, workshop)?];
    for part in parts {
        members.extend(part.base.iter().map(|(_, made)| made.clone()));
        for log in &part.logs {
            members.extend(log.history.iter().filter(|_| !log.segments.is_empty()).cloned());
            members.extend(log.segments.iter().map(|(_, made)| made.clone()));
        }
    }
    let repository = parts.first().map(|part| part.context.repository.id().to_string()).unwrap_or_default();
    let manifest = PackageManifest {
        everpoint_package: VERSION,
        name: request.name.clone(),
        repository,
        made_at: now.0,
        clusters,
        shortfalls: shortfalls.to_vec(),
        members: members.iter().map(|made| made.member.clone()).collect(),
    };
    let encoded = manifest.encode();
    let mut sum = Sum::new();
    sum.add(&encoded);
    let sums = manifest.sums(&sum.finish().1);
    let front = vec![(MANIFEST.to_owned(), encoded), (SUMS.to_owned(), sums)];
    let seconds = u64::try_from(now.0 / 1_000_000).unwrap_or_default();
    Ok(Assembled { front, members, seconds })
}

fn instructions_member(
    clusters: &[PackagedCluster],
    parts: &[Part<'_>],
    request: &BuildRequest,
    workshop: &mut Workshop,
) -> Result<Made, AppError> {
    let plans: Vec<Option<&RestorePlan>> = parts.iter().map(|part| part.plan.as_ref()).collect();
    let paths: Vec<_> =
        parts.iter().map(|part| part.plan.as_ref().map(|plan| directories(part, plan))).collect();
    let written = instructions::write(&request.name, clusters, &plans, &paths);
    bytes(workshop, INSTRUCTIONS, written.as_bytes())
}

fn points(parts: &[Part<'_>], workshop: &mut Workshop) -> Result<Made, AppError> {
    let mut lines = Vec::new();
    for part in parts {
        let found = restore_points::find(part.context, &part.facts)?;
        lines.extend(found.iter().map(|point| point.line(&part.context.name)));
    }
    let mut encoded = serde_json::to_vec_pretty(&lines).unwrap_or_default();
    encoded.push(b'\n');
    bytes(workshop, POINTS, &encoded)
}

fn bytes(workshop: &mut Workshop, path: &str, bytes: &[u8]) -> Result<Made, AppError> {
    workshop.plain(path, &mut |out| {
        out.write_all(bytes).map_err(|error| AppError::io("write", Path::new(path), error))
    })
}

fn packaged(part: &Part<'_>) -> PackagedCluster {
    let base = part
        .base
        .as_ref()
        .map(|(record, made)| PackagedBase { member: made.member.path.clone(), record: record.clone() });
    let newest = part.plan.as_ref().filter(|_| base.is_some()).map(|plan| PackagedTarget {
        record: plan.stop.record.0,
        timeline: plan.timeline,
        path: directories(part, plan),
    });
    PackagedCluster {
        name: part.context.name.clone(),
        engine: part.context.engine.kind().to_owned(),
        identities: part.identities.clone(),
        base,
        log: part.logs.iter().filter(|log| !log.segments.is_empty()).map(|log| log.log.clone()).collect(),
        newest,
        production: part.facts.identity.as_ref().and_then(|(identity, _)| {
            let branch = production(&part.facts.log, *identity).certain()?;
            Some(PackagedProduction { identity: *identity, branch: branch.id.to_string() })
        }),
    }
}

/// Where a replay finds its segments, the newest branch first.
fn directories(part: &Part<'_>, plan: &RestorePlan) -> Vec<String> {
    let steps = plan.path.iter().rev();
    let found = steps.filter_map(|(id, _)| {
        let of = |log: &&MadeLog| log.log.identity == plan.identity && log.log.branch == id.to_string();
        part.logs.iter().find(of).filter(|log| !log.segments.is_empty())
    });
    found.map(|log| log.log.directory.clone()).collect()
}

/// Gives the finished package its name, if that is free: under it there is all of it, or nothing, whatever happens.
fn place(made: &Path, directory: &Path, file: &Path) -> Result<(), AppError> {
    let moved = match renameat_with(CWD, made, CWD, file, RenameFlags::NOREPLACE) {
        Err(error) if beside::is_lacking(error) => std::fs::hard_link(made, file).or_else(|error| {
            let errno = error.raw_os_error().map(Errno::from_raw_os_error);
            if errno.is_some_and(beside::is_lacking) { place_over(made, file) } else { Err(error) }
        }),
        moved => moved.map_err(std::io::Error::from),
    };
    moved.map_err(|error| AppError::io("make", file, error))?;
    beside::sync_directory(directory).map_err(|error| AppError::io("make durable", directory, error))
}

/// Where a name can't be taken in one step, as on memory sticks, it is taken by an empty file first.
fn place_over(made: &Path, file: &Path) -> std::io::Result<()> {
    drop(File::create_new(file)?);
    std::fs::rename(made, file).inspect_err(|_| {
        // Empty, and ours.
        let _ = std::fs::remove_file(file);
    })
}

/// Writes the file and proves that it can be read: all of it before the day's call is spent on it.
fn seal(
    created: File,
    file: &Path,
    request: &BuildRequest,
    made: &Assembled,
    events: &dyn Events,
) -> Result<(u64, String), AppError> {
    let (size, sha256) =
        envelope::write(created, file, &request.recipients, &made.front, &made.members, made.seconds)?;
    let failed = |code: &str, message: String| {
        let object = file.display().to_string();
        AppError::new(code, FailureClass::Failed, "make the package", object, message)
    };
    if let Some(limit) = request.limit.filter(|limit| size > *limit) {
        return Err(failed(
            "package.limit",
            format!(
                "it has {}, and the provider takes {}",
                everpoint_core::words::size(size),
                everpoint_core::words::size(limit)
            ),
        ));
    }
    events.emit(Event::Step("reading the package back".to_owned()));
    if envelope::sum(file)? != (size, sha256.clone()) {
        let message = "the disk does not give back what was written to it".to_owned();
        return Err(failed("package.scratch", message).hint("check the disk of scratch_dir"));
    }
    if let Some(identity) = &request.identity {
        let identities = [identity.clone()];
        Opening { file, identities: &identities, stop: &request.stop }.verify()?;
    }
    Ok((size, sha256))
}
