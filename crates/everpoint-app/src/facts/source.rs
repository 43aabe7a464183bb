//! What planning asks for beyond the facts: digests, records, bytes of the log.

use everpoint_core::{
    BranchFacts, Carry, Digest, FailureClass, LogOffset, LogSource, PieceFacts, RecordSpan, Span,
};
use everpoint_repo::{LogStore, PieceKind, code};

use crate::restore::{LOG_DAMAGED, REPLACED};
use crate::{AppError, ClusterContext, text};

/// How often what holds the log is looked up anew, when it is replaced meanwhile.
const LOOKS: usize = 20;

/// Reads `span` from whatever holds it now. Looked up anew: a tail may have become a segment since.
pub(super) fn read(store: &LogStore, span: Span, take: &mut dyn FnMut(&[u8])) -> Result<(), AppError> {
    let mut at = span.from;
    for _ in 0..LOOKS {
        match read_on(store, &mut at, span, take) {
            Err(error) if error.code == code::REPLACED => {}
            result => return result,
        }
    }
    read_on(store, &mut at, span, take)
}

/// Reads from `at` on, which moves with every whole piece.
fn read_on(
    store: &LogStore,
    at: &mut LogOffset,
    span: Span,
    take: &mut dyn FnMut(&[u8]),
) -> Result<(), AppError> {
    let pieces = store.readable_between(*at, span.to)?;
    for piece in pieces {
        if piece.span.to <= *at || piece.span.from >= span.to {
            continue;
        }
        if piece.span.from > *at {
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
        *at = end;
    }
    if *at >= span.to {
        return Ok(());
    }
    let object = format!("the log from {}", text::lsn(*at));
    Err(AppError::new(
        "log.missing",
        FailureClass::Damaged,
        "read",
        object,
        "it is no longer in the repository",
    ))
}

/// Says of an error that reading the log from there met, if it is damage, what can be done.
pub(crate) fn log_damaged(context: &ClusterContext, from: LogOffset, error: AppError) -> AppError {
    if error.class != FailureClass::Damaged {
        return error;
    }
    let object = format!("the log of {} from {}", context.name, text::lsn(from));
    AppError::new(LOG_DAMAGED, FailureClass::Damaged, "read", object, error.message.clone())
        .hint("restore to a moment before it, or to one after the next backup (everpoint list shows the windows)")
        .cause(error)
}

/// Gives planning digests and records.
pub(crate) struct Source<'a> {
    pub(super) context: &'a ClusterContext,
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
            expired: None,
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
        read(&self.store(branch), Span { from: start, to: end }, &mut |part| bytes.extend_from_slice(part))
            .map_err(|error| log_damaged(self.context, start, error))?;
        Ok((bytes, start, self.carry_before(branch, start)?))
    }
}

impl LogSource for Source<'_> {
    type Error = AppError;

    fn digest(&mut self, branch: &BranchFacts, piece: &PieceFacts) -> Result<Digest, AppError> {
        let store = self.store(branch);
        let stored = store.readable_between(piece.span.from, piece.span.to)?;
        let Some(found) = stored.iter().find(|known| known.span == piece.span) else {
            let object = format!("the log from {}", text::lsn(piece.span.from));
            let error = AppError::new(
                REPLACED,
                FailureClass::Failed,
                "read",
                object,
                "it was replaced while this ran",
            );
            return Err(error.hint("run the same command again"));
        };
        let digest = store.digest(found).map_err(|error| {
            let replaced = error.code == code::REPLACED;
            let mut error = AppError::from(error);
            if replaced {
                REPLACED.clone_into(&mut error.code);
            }
            error
        })?;
        let digest = Digest { span: piece.span, ..digest };
        if !digest.head_unknown {
            return Ok(digest);
        }
        let (bytes, start, carry) = match self.segment_until(branch, piece.span.to) {
            Ok(found) => found,
            // The plan may well do without this segment; if not, whoever reads it says that it is damaged.
            Err(error) if error.class == FailureClass::Damaged => {
                tracing::warn!(%error, "a part of the log can't be read");
                return Ok(digest);
            }
            Err(error) => return Err(error),
        };
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
