//! What planning has to know of a cluster, read from its repository.

use everpoint_core::{
    BackupFacts, BackupStatus, BranchFacts, BranchId, Carry, Digest, FailureClass, HistoryEntry, KnownGap,
    LogFacts, LogOffset, LogSource, Micros, PieceFacts, RecordSpan, RestorePlan, RestoreRequest, Shortfall,
    Span, parent_branch,
};
use everpoint_format::identity::Identity;
use everpoint_format::manifest::BackupRecord;
use everpoint_repo::{BackupListing, LogStore, Piece, PieceKind};

use crate::{AppError, ClusterContext, text};

/// So often a branch is listed anew before its log is said to be unreadable.
const LISTINGS: u32 = 10;

/// See the module.
#[derive(Debug)]
pub struct Facts {
    /// The newest identity, if the cluster has any.
    pub identity: Option<(u32, Identity)>,
    /// All backups and attempts, oldest first.
    pub listings: Vec<BackupListing>,
    /// The usable and unusable backups, in brief.
    pub backups: Vec<BackupFacts>,
    /// The log of all identities.
    pub log: LogFacts,
}

/// Reads them.
///
/// # Errors
/// If the repository can't be read.
pub fn load(context: &ClusterContext) -> Result<Facts, AppError> {
    let mut identities = context.cluster.identities()?;
    identities.sort_by_key(|(number, _)| *number);
    let mut branches = Vec::new();
    for (number, identity) in &identities {
        branches.extend(load_branches(context, *number, identity)?);
    }
    let mut listings = context.cluster.backups()?;
    listings.sort_by_key(|listing| (began(listing), listing.label.clone()));
    let backups = listings.iter().filter_map(|listing| backup_facts(listing, &branches)).collect();
    Ok(Facts { identity: identities.pop(), listings, backups, log: LogFacts { branches } })
}

fn began(listing: &BackupListing) -> i64 {
    let attempted = listing.attempt.as_ref().map(|attempt| attempt.started_at);
    attempted.or(listing.record.as_ref().map(|record| record.started_at)).unwrap_or_default()
}

fn load_branches(
    context: &ClusterContext,
    number: u32,
    identity: &Identity,
) -> Result<Vec<BranchFacts>, AppError> {
    let mut histories: Vec<(BranchId, Vec<HistoryEntry>)> = Vec::new();
    for id in context.cluster.branches(number)? {
        let store = context.cluster.log(number, id.clone(), identity.segment_size);
        let history = store.history()?.map(|bytes| context.engine.history(&bytes)).transpose()?;
        histories.push((id, history.unwrap_or_default()));
    }
    let known: Vec<(&BranchId, &[HistoryEntry])> =
        histories.iter().map(|(id, steps)| (id, steps.as_slice())).collect();
    let mut branches = Vec::new();
    for (id, steps) in &histories {
        let store = context.cluster.log(number, id.clone(), identity.segment_size);
        let pieces = load_pieces(&store)?;
        branches.push(BranchFacts {
            identity: number,
            id: id.clone(),
            timeline: id.timeline(),
            segment_size: identity.segment_size,
            parent: parent_branch(steps, known.iter().copied()),
            pieces,
            covered: store.covered()?,
            gaps: store
                .gaps()?
                .into_iter()
                .map(|(span, gap)| KnownGap { span, reason: gap.reason })
                .collect(),
        });
    }
    Ok(branches)
}

/// Tails become segments while this reads: a piece that was replaced since it was listed is listed anew.
fn load_pieces(store: &LogStore) -> Result<Vec<PieceFacts>, AppError> {
    let mut tries = 0;
    loop {
        let pieces = store.pieces()?;
        match pieces.iter().map(|piece| piece_facts(store, piece)).collect::<Result<Vec<_>, _>>() {
            Ok(found) => return Ok(found.into_iter().flatten().collect()),
            Err(error) if error.code == everpoint_repo::code::REPLACED && tries < LISTINGS => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

/// A piece whose digest can't be read is no part of the log: it leaves a hole that planning names. One that was replaced
/// meanwhile is in the next listing.
fn piece_facts(store: &LogStore, piece: &Piece) -> Result<Option<PieceFacts>, AppError> {
    match store.digest(piece) {
        Ok(digest) => Ok(Some(PieceFacts::from(&Digest { span: piece.span, ..digest }))),
        Err(error) if error.is_missing() || error.is_damaged() => {
            tracing::warn!(%error, "a piece of the log can't be used");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn backup_facts(listing: &BackupListing, branches: &[BranchFacts]) -> Option<BackupFacts> {
    let record = listing.record.as_ref()?;
    let branch = BranchId::parse(&record.branch).or_else(|| {
        // A record that does not say has the branch of its timeline, if there is only one.
        let mut fitting =
            branches.iter().filter(|b| b.identity == record.identity && b.timeline == record.timeline);
        fitting.next().filter(|_| fitting.next().is_none()).map(|branch| branch.id.clone())
    })?;
    Some(BackupFacts {
        label: record.label.clone(),
        kind: record.kind.clone(),
        identity: record.identity,
        branch,
        timeline: record.timeline,
        start: LogOffset(record.start),
        stop: LogOffset(record.stop),
        started_at: Micros(record.started_at),
        stopped_at: Micros(record.stopped_at),
        size: record.size_bytes,
        status: planning_status(listing),
        from_standby: record.from_standby,
    })
}

/// A backup that holds pages which were damaged on the server already is what the server had: it can be restored, and
/// says so. One that lost something in the repository can't.
fn planning_status(listing: &BackupListing) -> BackupStatus {
    if listing.damage.is_empty() && listing.unreadable.is_none() {
        BackupStatus::Ok
    } else {
        BackupStatus::Damaged
    }
}

/// The status of a backup or an attempt, as it is listed.
#[must_use]
pub fn status(listing: &BackupListing) -> BackupStatus {
    match &listing.record {
        Some(record) if record.damaged_count > 0 => BackupStatus::Damaged,
        Some(_) => planning_status(listing),
        None if listing.unreadable.is_some() => BackupStatus::Damaged,
        None if listing.running && listing.failure.is_none() => BackupStatus::Running,
        None => BackupStatus::Failed,
    }
}

/// Its name.
#[must_use]
pub const fn status_name(status: BackupStatus) -> &'static str {
    match status {
        BackupStatus::Ok => "ok",
        BackupStatus::Damaged => "damaged",
        BackupStatus::Failed => "failed",
        BackupStatus::Running => "running",
    }
}

/// What is damaged, in words.
#[must_use]
pub fn damage_text(listing: &BackupListing) -> String {
    let mut parts: Vec<String> = listing.damage.iter().map(|damage| damage.message.clone()).collect();
    parts.extend(listing.unreadable.clone());
    if let Some(record) = listing.record.as_ref().filter(|record| record.damaged_count > 0) {
        let first =
            record.damaged.first().map(|page| format!(", the first is block {} of {}", page.page, page.path));
        let count = record.damaged_count;
        parts.push(format!(
            "{count} pages were damaged on the server when it was taken{}",
            first.unwrap_or_default()
        ));
    }
    parts.join("; ")
}

/// The record of a backup.
///
/// # Errors
/// If there is no such backup.
pub fn record<'a>(facts: &'a Facts, label: &str) -> Result<&'a BackupRecord, AppError> {
    let found = facts
        .listings
        .iter()
        .filter(|listing| listing.label == label)
        .find_map(|listing| listing.record.as_ref());
    found.ok_or_else(|| {
        AppError::new(
            "backup.unknown",
            FailureClass::Usage,
            "find the backup",
            label,
            "there is none of that label",
        )
    })
}

/// Plans a restore.
///
/// # Errors
/// If digests or log that planning needs can't be read. A target that can't be reached is no error but a shortfall.
pub fn plan(
    context: &ClusterContext,
    facts: &Facts,
    wanted: &RestoreRequest,
) -> Result<Result<RestorePlan, Shortfall>, AppError> {
    let mut source = Source { context };
    everpoint_core::plan_restore(&facts.log, &facts.backups, wanted, &mut source)
}

impl Facts {
    /// Reads a piece of the log and checks it.
    ///
    /// # Errors
    /// If it is missing or damaged.
    pub fn read_piece(
        &self,
        context: &ClusterContext,
        identity: u32,
        branch: &BranchId,
        span: Span,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), AppError> {
        let known = self.log.branch(identity, branch);
        let size = known.map(|branch| branch.segment_size).unwrap_or_default();
        read(&context.cluster.log(identity, branch.clone(), size), span, take)
    }
}

/// Reads `span` from whatever holds it now. Looked up anew: a tail may have become a segment since.
fn read(store: &LogStore, span: Span, take: &mut dyn FnMut(&[u8])) -> Result<(), AppError> {
    let pieces = store.pieces_between(span.from, span.to)?;
    let mut at = span.from;
    for piece in pieces {
        if piece.span.to <= at || piece.span.from >= span.to {
            continue;
        }
        if piece.span.from > at {
            break;
        }
        let skip = usize::try_from(at.since(piece.stored.from)).unwrap_or(usize::MAX);
        let end = piece.span.to.min(span.to);
        let keep = usize::try_from(end.since(piece.stored.from)).unwrap_or(usize::MAX);
        match piece.kind {
            PieceKind::Tail => take(store.read_tail(&piece)?.1.get(skip..keep).unwrap_or_default()),
            PieceKind::Segment => {
                let mut seen = 0_usize;
                store.read_segment(piece.stored.from, &mut |bytes| {
                    let from = skip.saturating_sub(seen).min(bytes.len());
                    let to = keep.saturating_sub(seen).min(bytes.len());
                    take(bytes.get(from..to).unwrap_or_default());
                    seen += bytes.len();
                })?;
            }
        }
        at = end;
    }
    if at >= span.to {
        return Ok(());
    }
    let object = format!("the log from {}", text::lsn(at));
    Err(AppError::new(
        "log.missing",
        FailureClass::Damaged,
        "read",
        object,
        "it is no longer in the repository",
    ))
}

/// Gives planning digests and records.
struct Source<'a> {
    context: &'a ClusterContext,
}

impl Source<'_> {
    fn store(&self, branch: &BranchFacts) -> LogStore {
        self.context.cluster.log(branch.identity, branch.id.clone(), branch.segment_size)
    }

    /// The unfinished record with which the log before `start`, the start of a segment, ends.
    fn carry_before(&self, branch: &BranchFacts, start: LogOffset) -> Result<Option<Carry>, AppError> {
        let Some(from) = start.0.checked_sub(branch.segment_size).map(LogOffset) else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        match read(&self.store(branch), Span { from, to: start }, &mut |part| bytes.extend_from_slice(part)) {
            Ok(()) => Ok(Some(self.context.engine.carry_of(&bytes, from, branch.segment_size))),
            // The segment before may lie on the branch that this one forked from, which has the same bytes.
            Err(_) => match self.parent(branch) {
                Some(parent) => self.carry_before(&parent, start),
                None => Ok(None),
            },
        }
    }

    fn parent(&self, branch: &BranchFacts) -> Option<BranchFacts> {
        let (id, _) = branch.parent.as_ref()?;
        Some(BranchFacts {
            id: id.clone(),
            parent: None,
            pieces: Vec::new(),
            covered: None,
            gaps: Vec::new(),
            ..branch.clone()
        })
    }

    /// All bytes of the piece's segment up to the end of the piece, where they begin, and the carry before them.
    fn segment_until(
        &self,
        branch: &BranchFacts,
        end: LogOffset,
    ) -> Result<(Vec<u8>, LogOffset, Option<Carry>), AppError> {
        let inside = end.0.saturating_sub(1);
        let start = LogOffset(inside - inside % branch.segment_size);
        let mut bytes = Vec::new();
        read(&self.store(branch), Span { from: start, to: end }, &mut |part| bytes.extend_from_slice(part))?;
        Ok((bytes, start, self.carry_before(branch, start)?))
    }
}

impl LogSource for Source<'_> {
    type Error = AppError;

    fn digest(&mut self, branch: &BranchFacts, piece: &PieceFacts) -> Result<Digest, AppError> {
        let store = self.store(branch);
        let stored = store.pieces_between(piece.span.from, piece.span.to)?;
        let Some(found) = stored.iter().find(|known| known.span == piece.span) else {
            let object = format!("the log from {}", text::lsn(piece.span.from));
            let error = AppError::new(
                "log.replanned",
                FailureClass::Failed,
                "read",
                object,
                "it was replaced while this ran",
            );
            return Err(error.hint("run the same command again"));
        };
        let digest = Digest { span: piece.span, ..store.digest(found)? };
        if !digest.head_unknown {
            return Ok(digest);
        }
        let (bytes, start, carry) = self.segment_until(branch, piece.span.to)?;
        let Some(carry) = carry.filter(|_| piece.span.from == start) else {
            return Ok(digest);
        };
        let mut decoder = self.context.engine.decoder(branch.segment_size, carry);
        decoder.feed(&bytes);
        let decoded = decoder.cut();
        Ok(Digest {
            head_unknown: decoded.head_unknown,
            last_record: decoded.last_record,
            records: decoded.records,
            events: decoded.events,
            ..digest
        })
    }

    fn last_record(
        &mut self,
        branch: &BranchFacts,
        piece: &PieceFacts,
        at: LogOffset,
    ) -> Result<Option<RecordSpan>, AppError> {
        let (bytes, start, carry) = self.segment_until(branch, piece.span.to)?;
        let found = self.context.engine.last_record(&bytes, start, branch.segment_size, carry, at);
        Ok(found.filter(|record| record.end > piece.span.from))
    }
}
