//! The plan of a restore: which backup, which log, where to stop.

use crate::choose::choose;
use crate::continuity::Run;
use crate::created::{CreatedTablespace, path_of};
use crate::digest::{LogEvent, RecordSpan};
use crate::facts::{BackupFacts, BranchFacts, LogFacts};
use crate::leaf::{leaves, names, told};
use crate::nearest::nearest;
use crate::path::PathPiece;
use crate::position::{BranchId, LogOffset, Micros, Span};
use crate::reader::{PathLog, events, last_commit};
use crate::resolve::{Found, Notes, Refusal, resolve};
use crate::source::LogSource;
use crate::target::{RestoreRequest, Stop, Target};

/// A state that a restore can bring back, or has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reachable {
    /// First position that is not replayed.
    pub position: LogOffset,
    /// For a place to restore to: a moment that leads there. For a plan: time of the last commit replayed. `None`: the
    /// stored log tells none, or none leads there because a clock was put back.
    pub time: Option<Micros>,
    /// Transaction id of the last commit replayed; `None` if the stored log holds none before.
    pub xid: Option<u64>,
}

/// A piece that replay needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeededPiece {
    /// Its branch.
    pub branch: BranchId,
    /// The piece.
    pub span: Span,
}

/// How a target is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePlan {
    /// Label of the backup to restore.
    pub backup: String,
    /// Bytes of its image.
    pub image_bytes: u64,
    /// Identity of all of it.
    pub identity: u32,
    /// The branch to follow. Replay may stop before it begins, on one that it goes on from.
    pub branch: BranchId,
    /// The branch on which replay stops.
    pub stop_branch: BranchId,
    /// Timeline number of the branch on which replay stops: the one that recovery is pinned to. A younger one would make
    /// the restored server write a history whose positions do not grow.
    pub timeline: u32,
    /// The branches from the root to `branch`, with the part of the log that is taken from each.
    pub path: Vec<(BranchId, Span)>,
    /// Where replay stops.
    pub stop: Stop,
    /// What the restored server will have replayed.
    pub reached: Reachable,
    /// The pieces that replay reads, in order.
    pub pieces: Vec<NeededPiece>,
    /// Bytes of the log from the backup's start to the end of the record to stop at.
    pub log_bytes: u64,
    /// Least values, in the log to be replayed, of max_connections, max_worker_processes, max_wal_senders,
    /// max_prepared_transactions and max_locks_per_transaction, as (name, value): the largest that it states. Empty
    /// if it states none.
    pub limits: Vec<(String, String)>,
    /// Tablespaces that the log to be replayed creates.
    pub created_tablespaces: Vec<CreatedTablespace>,
    /// Kinds of records that only an extension can replay, each with the start of its first one in the log to be replayed.
    pub extensions: Vec<(u32, LogOffset)>,
    /// Why this backup, this branch and this stop, in words.
    pub reasons: Vec<String>,
    /// What the operator should know, in words.
    pub warnings: Vec<String>,
}

/// Why a target can't be reached, and what can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// In words.
    pub reason: String,
    /// The last state before the target that can be brought back.
    pub nearest_before: Option<Reachable>,
    /// The first state after it.
    pub nearest_after: Option<Reachable>,
}

/// Plans a restore: which branch, where to stop, from which backup.
///
/// Without a wanted branch that of production is followed, in the newest identity first and in older ones after it, so that
/// a moment before an upgrade is found. Where nothing tells which of several branches production is on, they have to lead
/// to the same, or the request is refused: it is never guessed.
///
/// # Errors
/// What `source` says if something can't be read. A target that can't be reached is no error but a [`Shortfall`].
pub fn plan_restore<S: LogSource>(
    log: &LogFacts,
    backups: &[BackupFacts],
    request: &RestoreRequest,
    source: &mut S,
) -> Result<Result<RestorePlan, Shortfall>, S::Error> {
    let groups = match leaves(log, backups, request) {
        Ok(groups) => groups,
        Err(reason) => return Ok(Err(unclear(reason, &[]))),
    };
    let mut refused: Option<Shortfall> = None;
    for group in groups {
        let mut plans: Vec<RestorePlan> = Vec::new();
        for leaf in &group {
            let path_log = PathLog::new(log, leaf, backups, &request.skip);
            match plan_on(&path_log, leaf, backups, request, source, Notes::default()) {
                Ok(plan) => plans.push(plan),
                Err(Refusal::Source(error)) => return Err(error),
                Err(Refusal::Shortfall { reason, place }) => {
                    let (before, after) = nearest(&path_log, place, source)?;
                    let known = refused.get_or_insert(Shortfall {
                        reason,
                        nearest_before: None,
                        nearest_after: None,
                    });
                    known.nearest_before = known.nearest_before.or(before);
                    // Identities are tried from the newest on, so that what an older one has after the target is nearer.
                    known.nearest_after = after.or(known.nearest_after);
                }
            }
        }
        let same = |plan: &RestorePlan| plans.iter().all(|other| agree(plan, other));
        match plans.first().cloned() {
            Some(plan) if same(&plan) && (plans.len() == group.len() || request.target != Target::Latest) => {
                return Ok(Ok(plan));
            }
            None => {}
            Some(_) => return Ok(Err(either(&group))),
        }
    }
    Ok(Err(refused.unwrap_or_else(|| nothing_stored(request))))
}

/// Whether two plans bring back the same: they stop at the same record before their ways part.
fn agree(one: &RestorePlan, other: &RestorePlan) -> bool {
    (one.stop, &one.stop_branch, &one.backup) == (other.stop, &other.stop_branch, &other.backup)
}

fn either(group: &[&BranchFacts]) -> Shortfall {
    let reason = format!("production may be on either of {} branches: {}", group.len(), told(group));
    let names: Vec<BranchId> = group.iter().map(|branch| branch.id.clone()).collect();
    unclear(reason, &names)
}

fn unclear(reason: String, branches: &[BranchId]) -> Shortfall {
    let say = if branches.is_empty() { "--timeline and its name".to_owned() } else { names(branches) };
    let reason = format!("{reason}; say which you mean with {say}");
    Shortfall { reason, nearest_before: None, nearest_after: None }
}

fn nothing_stored(request: &RestoreRequest) -> Shortfall {
    let reason = match (&request.timeline, &request.target) {
        (Some(wanted), _) => format!("nothing is stored of {wanted}"),
        (None, Target::Backup(label)) => format!("no log is stored of the branch of backup {label}"),
        (None, _) => "no log is stored".to_owned(),
    };
    Shortfall { reason, nearest_before: None, nearest_after: None }
}

fn plan_on<S: LogSource>(
    log: &PathLog<'_>,
    leaf: &BranchFacts,
    backups: &[BackupFacts],
    request: &RestoreRequest,
    source: &mut S,
    mut notes: Notes,
) -> Result<RestorePlan, Refusal<S::Error>> {
    let found = resolve(log, backups, request, source, &mut notes)?;
    let (backup, run) = choose(log, found, request, source, &mut notes)?;
    let span = Span { from: backup.start, to: found.record.end };
    let replayed = replayed(log, run, span, found, source).map_err(Refusal::Source)?;
    warn_of_prepared(run, found, source, &mut notes).map_err(Refusal::Source)?;
    let position = if found.inclusive { found.record.end } else { found.record.start };
    let last = last_commit(source, run, position).map_err(Refusal::Source)?;
    let stop_branch = stop_branch(log, leaf, found);
    Ok(RestorePlan {
        backup: backup.label.clone(),
        image_bytes: backup.size,
        identity: leaf.identity,
        branch: leaf.id.clone(),
        stop_branch: stop_branch.id.clone(),
        timeline: stop_branch.timeline,
        path: log.path.iter().map(|step| (step.branch.id.clone(), step.span)).collect(),
        stop: Stop { record: found.record.start, inclusive: found.inclusive },
        reached: Reachable {
            position,
            time: last.as_ref().map(|end| end.time),
            xid: last.map(|end| end.xid),
        },
        pieces: replayed.pieces,
        log_bytes: span.to.since(span.from),
        limits: replayed.limits,
        created_tablespaces: replayed.created_tablespaces,
        extensions: replayed.extensions,
        reasons: notes.reasons,
        warnings: notes.warnings,
    })
}

/// The branch that wrote the record to stop at: the youngest of the path that had begun there. A segment in which a branch
/// forked holds the end of the older one, too.
fn stop_branch<'a>(log: &PathLog<'a>, leaf: &'a BranchFacts, found: Found) -> &'a BranchFacts {
    let begun = log.path.iter().rev().skip(1).position(|older| older.fork <= found.record.start);
    let at = begun.map(|younger| log.path.len().saturating_sub(1 + younger)).unwrap_or_default();
    log.path.get(at).map_or(leaf, |step| step.branch)
}

/// What the log to be replayed holds that a restore must prepare for.
#[derive(Default)]
struct Replayed {
    pieces: Vec<NeededPiece>,
    limits: Vec<(String, String)>,
    created_tablespaces: Vec<CreatedTablespace>,
    extensions: Vec<(u32, LogOffset)>,
}

/// Names of the limits that [`LogEvent::Parameters`] states, in its order.
const LIMITS: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

fn replayed<S: LogSource>(
    log: &PathLog<'_>,
    run: &Run<'_>,
    span: Span,
    found: Found,
    source: &mut S,
) -> Result<Replayed, S::Error> {
    let mut replayed = Replayed::default();
    let mut created: Vec<(u64, CreatedTablespace)> = Vec::new();
    let mut highest: Option<[i32; 5]> = None;
    for piece in run.pieces.iter().filter(|piece| piece.to > span.from && piece.from < span.to) {
        replayed.pieces.push(NeededPiece { branch: piece.branch.id.clone(), span: piece.piece.span });
        let counts = piece.piece.counts;
        if !piece.piece.may_hold(counts.parameters.max(counts.places).max(counts.extensions)) {
            continue;
        }
        let events = events(source, piece)?.events;
        note_extensions(&events, span, found, &mut replayed.extensions);
        for event in events {
            if event.record().start < span.from || !found.replays(event.record()) {
                continue;
            }
            match event {
                LogEvent::Parameters { limits, .. } => {
                    let before = highest.get_or_insert(limits);
                    before.iter_mut().zip(limits).for_each(|(high, value)| *high = value.max(*high));
                }
                LogEvent::TablespaceCreate { xid, tablespace: oid, path, record } => {
                    let path = if path.is_empty() { path_of(log, oid, record, source)? } else { path };
                    created.push((xid, CreatedTablespace { oid, path, finished: true }));
                }
                _ => {}
            }
        }
    }
    let named = |limits: [i32; 5]| {
        LIMITS.iter().map(|name| (*name).to_owned()).zip(limits.map(|value| value.to_string()))
    };
    replayed.limits = highest.into_iter().flat_map(named).collect();
    for (xid, tablespace) in created {
        let finished = commits(run, xid, found, source)?;
        replayed.created_tablespaces.push(CreatedTablespace { finished, ..tablespace });
    }
    Ok(replayed)
}

/// Whether a transaction has committed where replay stops. One whose id the log does not name is taken to have.
fn commits<S: LogSource>(run: &Run<'_>, xid: u64, found: Found, source: &mut S) -> Result<bool, S::Error> {
    if xid == 0 {
        return Ok(true);
    }
    for piece in run.pieces.iter().filter(|piece| piece.may_name(xid)) {
        let ends = |event: &LogEvent| match event {
            LogEvent::Commit(end) => {
                found.replays(end.record) && (end.xid == xid || end.subxids.contains(&xid))
            }
            _ => false,
        };
        if events(source, piece)?.events.iter().any(ends) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Notes which kinds of an extension's records a piece's part of the replay holds. Only the first and the last of a piece
/// are known: where they lie on both sides of the part, one within it is assumed.
fn note_extensions(events: &[LogEvent], span: Span, found: Found, into: &mut Vec<(u32, LogOffset)>) {
    let all = events.iter().filter_map(|event| match event {
        LogEvent::Extension { manager, record } => Some((*manager, *record)),
        _ => None,
    });
    let all: Vec<(u32, RecordSpan)> = all.collect();
    for (manager, record) in &all {
        if into.iter().any(|(known, _)| known == manager) {
            continue;
        }
        let before = record.start < span.from;
        let behind = |(other, last): &(u32, RecordSpan)| other == manager && last.start >= span.from;
        if !before && found.replays(*record) {
            into.push((*manager, record.start));
        } else if before && all.iter().any(behind) {
            into.push((*manager, span.from));
        }
    }
}

/// Transactions that are prepared at the stop will be open in the restored server, and hold their locks.
fn warn_of_prepared<S: LogSource>(
    run: &Run<'_>,
    found: Found,
    source: &mut S,
    notes: &mut Notes,
) -> Result<(), S::Error> {
    let mut open: Vec<(u64, String)> = Vec::new();
    let told = |piece: &&PathPiece<'_>| {
        piece.piece.may_hold(piece.piece.counts.prepared) && piece.from <= found.record.end
    };
    for piece in run.pieces.iter().filter(told) {
        for event in events(source, piece)?.events {
            if !found.replays(event.record()) {
                continue;
            }
            match event {
                LogEvent::Prepare { xid, gid, .. } => open.push((xid, gid)),
                LogEvent::Commit(end) | LogEvent::Abort(end) if end.prepared => {
                    open.retain(|(xid, _)| *xid != end.xid);
                }
                _ => {}
            }
        }
    }
    for (xid, gid) in open {
        notes.warn(format!(
            "transaction {xid} is prepared as \"{gid}\" at that point and will be open: commit it or roll it back"
        ));
    }
    Ok(())
}
