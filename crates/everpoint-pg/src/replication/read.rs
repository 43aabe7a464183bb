//! Reads a part of the log that the server has, and acknowledges nothing.

use std::time::{Duration, Instant};

use everpoint_core::{LogOffset, Span};

use super::Replication;
use super::stream::StreamEvent;
use crate::client::{Config, PgError};

/// So long it may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The bytes of a span of a timeline, which the server has written to its end already, over a connection of its own.
///
/// # Errors
/// If the server does not have it any more, or is not reached in time.
pub(crate) fn read_log(config: &Config, timeline: u32, span: Span) -> Result<Vec<u8>, PgError> {
    read_span(&mut Replication::open(config)?, timeline, span)
}

/// The same over a connection that streams nothing. Fewer bytes where the timeline ends before.
///
/// # Errors
/// As [`read_log`].
pub(super) fn read_span(
    replication: &mut Replication,
    timeline: u32,
    span: Span,
) -> Result<Vec<u8>, PgError> {
    let (mut bytes, until) = (Vec::new(), Instant::now() + PATIENCE);
    let length = usize::try_from(span.to.since(span.from)).unwrap_or(usize::MAX);
    let mut stream = replication.stream(None, timeline, span.from)?;
    while bytes.len() < length {
        let left = until.saturating_duration_since(Instant::now());
        match stream.next(Some(left))? {
            Some(StreamEvent::Data { bytes: more, .. }) => bytes.extend_from_slice(&more),
            Some(StreamEvent::Keepalive { reply_requested, .. }) => {
                if reply_requested {
                    stream.send_status(LogOffset(0), LogOffset(0), LogOffset(0), false)?;
                }
            }
            Some(StreamEvent::TimelineEnd { .. }) => break,
            None => return Err(PgError::Timeout(PATIENCE)),
        }
    }
    stream.finish(PATIENCE)?;
    bytes.truncate(length);
    Ok(bytes)
}
