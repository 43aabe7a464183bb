//! What a transaction destroys before its end.
//!
//! Files of a dropped database or tablespace go when the drop is replayed, which is before the commit. And before a server
//! removes a database's files it marks the database as unusable, in a record that belongs to no transaction and that
//! nothing undoes: replay that stops between the two brings back a database into which nobody gets.

use crate::digest::{LogEvent, RecordSpan, TransactionEnd};
use crate::path::PathPiece;
use crate::position::LogOffset;
use crate::reader::{PathLog, events};
use crate::resolve::{Found, Notes};
use crate::source::LogSource;

/// Just before the transaction with this end: before its end, or before what it destroys first.
pub(crate) fn before_transaction<S: LogSource>(
    log: &PathLog<'_>,
    end: &TransactionEnd,
    source: &mut S,
    notes: &mut Notes,
) -> Result<Found, S::Error> {
    let record = first_harm(&log.pieces, end, source)?;
    if let Some(record) = record {
        tell(record, notes);
    }
    Ok(Found { record: record.unwrap_or(end.record), inclusive: false })
}

/// Just before the end of the first transaction that is not wanted any more. What it destroys before is kept, too, unless
/// that would cost the commits that lie between.
pub(crate) fn before_end<S: LogSource>(
    pieces: &[PathPiece<'_>],
    end: &TransactionEnd,
    source: &mut S,
    notes: &mut Notes,
) -> Result<Found, S::Error> {
    let mut found = Found { record: end.record, inclusive: false };
    let Some(harm) = first_harm(pieces, end, source)? else {
        return Ok(found);
    };
    if commits_between(pieces, harm, end, source)? {
        notes.warn(format!(
            "transaction {xid} drops a database or tablespace: its files are gone from {} on, although it is listed. To \
             have it whole, without what others committed from then on, restore to before-xid:{xid}",
            harm.start,
            xid = end.xid
        ));
    } else {
        tell(harm, notes);
        found.record = harm;
    }
    Ok(found)
}

fn tell(record: RecordSpan, notes: &mut Notes) {
    notes.reason(format!(
        "the transaction drops a database or tablespace, whose files go before its end: stopping before that, at {}",
        record.start
    ));
}

/// The first record, before the end of the transaction, that destroys what its end was to destroy.
fn first_harm<S: LogSource>(
    pieces: &[PathPiece<'_>],
    end: &TransactionEnd,
    source: &mut S,
) -> Result<Option<RecordSpan>, S::Error> {
    let (mut first, mut dropped) = (None, None);
    let before = |piece: &&PathPiece<'_>| piece.from < end.record.end;
    'pieces: for piece in pieces.iter().rev().filter(before).filter(|it| it.may_name(end.xid)) {
        for event in events(source, piece)?.events.iter().rev() {
            match event {
                LogEvent::DatabaseDrop { xid, database, record, .. } if is_of(end, *xid, *record) => {
                    (first, dropped) = (Some(*record), Some(*database));
                }
                LogEvent::TablespaceDrop { xid, record, .. } if is_of(end, *xid, *record) => {
                    first = Some(*record);
                }
                // The same id, 2^32 transactions ago.
                LogEvent::Commit(it) | LogEvent::Abort(it)
                    if it.xid == end.xid && it.record.start < end.record.start =>
                {
                    break 'pieces;
                }
                _ => {}
            }
        }
    }
    let (Some(first), Some(database)) = (first, dropped) else {
        return Ok(first);
    };
    Ok(Some(mark_of(pieces, database, first.start, source)?.unwrap_or(first)))
}

fn is_of(end: &TransactionEnd, xid: u64, record: RecordSpan) -> bool {
    (end.xid == xid || end.subxids.contains(&xid)) && record.start < end.record.start
}

/// The last record before the drop that marks the database as unusable.
fn mark_of<S: LogSource>(
    pieces: &[PathPiece<'_>],
    dropped: u32,
    drop: LogOffset,
    source: &mut S,
) -> Result<Option<RecordSpan>, S::Error> {
    let may_hold =
        |piece: &&PathPiece<'_>| piece.from < drop && piece.piece.may_hold(piece.piece.counts.places);
    for piece in pieces.iter().rev().filter(may_hold) {
        for event in events(source, piece)?.events.iter().rev().filter(|it| it.record().start < drop) {
            match event {
                // Number 0: some database, the record does not tell which.
                LogEvent::DatabaseDrop { database, tablespaces, record, .. }
                    if tablespaces.is_empty() && [0, dropped].contains(database) =>
                {
                    return Ok(Some(*record));
                }
                // What lies before is about another database that had the number.
                LogEvent::DatabaseDrop { database, .. } | LogEvent::DatabaseCreate { database, .. }
                    if *database == dropped =>
                {
                    return Ok(None);
                }
                _ => {}
            }
        }
    }
    Ok(None)
}

/// Whether another transaction commits behind the harm and before the end.
fn commits_between<S: LogSource>(
    pieces: &[PathPiece<'_>],
    harm: RecordSpan,
    end: &TransactionEnd,
    source: &mut S,
) -> Result<bool, S::Error> {
    let between = |piece: &&PathPiece<'_>| {
        piece.to > harm.start
            && piece.from < end.record.start
            && piece.piece.may_hold(piece.piece.counts.commits)
    };
    for piece in pieces.iter().filter(between) {
        let commits = events(source, piece)?.events.into_iter().any(|event| match event {
            LogEvent::Commit(it) => it.record.start > harm.start && it.record.start < end.record.start,
            _ => false,
        });
        if commits {
            return Ok(true);
        }
    }
    Ok(false)
}
