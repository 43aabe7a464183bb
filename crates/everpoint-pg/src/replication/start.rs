//! Decides where a stream begins, from where the sink stands and what the server is.

use everpoint_core::LogOffset;
use everpoint_engine::ServerIdentity;

use super::slot::SlotPosition;
use crate::history::History;

/// Where to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Timeline to stream.
    pub timeline: u32,
    /// From here.
    pub position: LogOffset,
    /// The sink's own timeline is over: close it here first. Nothing of it follows.
    pub close: Option<LogOffset>,
}

/// Why the server can't go on where the sink stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// A standby that has not received as much as the sink: it will.
    Behind,
    /// The same timeline ends before the sink: the server was restored, rewound, or is a copy.
    ServerShorter,
    /// The server's history does not contain the sink's timeline.
    OtherHistory,
    /// The sink has followed a younger timeline than the server's: an old primary came back.
    OlderTimeline,
}

/// Decides. `sink` is where the sink stands, `history` that of the server's timeline, `slot` where its slot stands.
///
/// # Errors
/// The obstacle, if the server has not what the sink needs.
pub fn plan_start(
    sink: Option<(u32, LogOffset)>,
    server: &ServerIdentity,
    history: &History,
    slot: Option<SlotPosition>,
) -> Result<Start, Obstacle> {
    let Some((timeline, position)) = sink else {
        return Ok(first_start(server, history, slot));
    };
    let go_on = Start { timeline, position, close: None };
    if timeline == server.timeline {
        return match (position <= server.position, server.in_recovery) {
            (true, _) => Ok(go_on),
            (false, true) => Err(Obstacle::Behind),
            (false, false) => Err(Obstacle::ServerShorter),
        };
    }
    if timeline > server.timeline {
        return Err(if server.in_recovery { Obstacle::Behind } else { Obstacle::OlderTimeline });
    }
    let Some(left) = history.left_at(timeline) else {
        return Err(Obstacle::OtherHistory);
    };
    if position <= left {
        return Ok(go_on);
    }
    // A failover lost what the sink has beyond the fork. That branch is kept as it is; the log goes on beside it.
    Ok(Start { close: Some(position), ..after(left, server, history) })
}

/// Where the log goes on at a position at which the server's history leaves a timeline.
pub(super) fn after(left: LogOffset, server: &ServerIdentity, history: &History) -> Start {
    let position = segment_start(left, server.segment_size);
    Start { timeline: history.timeline_at(left), position, close: None }
}

fn first_start(server: &ServerIdentity, history: &History, slot: Option<SlotPosition>) -> Start {
    let kept = slot.and_then(|slot| slot.restart);
    let position = kept.unwrap_or(server.position);
    let timeline = slot.and_then(|slot| slot.timeline).unwrap_or_else(|| history.timeline_at(position));
    Start { timeline, position: segment_start(position, server.segment_size), close: None }
}

/// Start of the segment that holds a position.
pub(super) const fn segment_start(position: LogOffset, segment_size: u64) -> LogOffset {
    match position.0.checked_rem(segment_size) {
        Some(rest) => LogOffset(position.0 - rest),
        None => position,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Ancestor;

    const SEGMENT: u64 = 16 << 20;

    fn server(timeline: u32, position: u64, in_recovery: bool) -> ServerIdentity {
        ServerIdentity {
            system: 1,
            version: 150_000,
            version_text: "15".into(),
            timeline,
            history: Vec::new(),
            segment_size: SEGMENT,
            position: LogOffset(position),
            in_recovery,
        }
    }

    fn history(timeline: u32, forks: &[(u32, u64)]) -> History {
        let ancestor = |&(timeline, until): &(u32, u64)| Ancestor {
            timeline,
            until: LogOffset(until),
            reason: String::new(),
        };
        History { timeline, ancestors: forks.iter().map(ancestor).collect() }
    }

    fn at(timeline: u32, position: u64) -> Option<(u32, LogOffset)> {
        Some((timeline, LogOffset(position)))
    }

    #[test]
    fn a_sink_goes_on_where_it_stands() {
        let start = plan_start(at(1, 0x123_4567), &server(1, 0x200_0000, false), &history(1, &[]), None);
        assert_eq!(start, Ok(Start { timeline: 1, position: LogOffset(0x123_4567), close: None }));
    }

    #[test]
    fn a_server_behind_the_sink_is_an_alarm_unless_it_is_a_standby() {
        let none = history(1, &[]);
        let plan =
            |in_recovery| plan_start(at(1, 0x300_0000), &server(1, 0x200_0000, in_recovery), &none, None);
        assert_eq!(plan(false), Err(Obstacle::ServerShorter));
        assert_eq!(plan(true), Err(Obstacle::Behind));
        let plan = plan_start(at(2, 1), &server(1, 0x200_0000, false), &none, None);
        assert_eq!(plan, Err(Obstacle::OlderTimeline));
    }

    #[test]
    fn a_new_timeline_is_followed_from_the_forks_segment() {
        let now = server(3, 0x900_0000, false);
        let path = history(3, &[(1, 0x210_0000), (2, 0x610_0000)]);
        // Before the fork: the rest of the old timeline comes first.
        let start = plan_start(at(1, 0x210_0000), &now, &path, None);
        assert_eq!(start, Ok(Start { timeline: 1, position: LogOffset(0x210_0000), close: None }));
        // Beyond it: the old branch is closed where it stands, the new one begins with the fork's segment.
        let start = plan_start(at(1, 0x220_0000), &now, &path, None);
        let expected =
            Start { timeline: 2, position: LogOffset(0x200_0000), close: Some(LogOffset(0x220_0000)) };
        assert_eq!(start, Ok(expected));
        // Back to before the fork of timeline 2, from which the sink comes.
        let path = history(3, &[(1, 0x610_0000), (2, 0x210_0000)]);
        for beyond in [at(2, 0x680_0000), at(1, 0x220_0000)] {
            let close = beyond.map(|(_, position)| position);
            let expected = Start { timeline: 3, position: LogOffset(0x200_0000), close };
            assert_eq!(plan_start(beyond, &now, &path, None), Ok(expected));
        }
        let path = history(3, &[(1, 0x210_0000)]);
        assert_eq!(plan_start(at(2, 1), &now, &path, None), Err(Obstacle::OtherHistory));
    }

    #[test]
    fn an_empty_sink_begins_with_the_segment_that_the_slot_keeps() {
        let now = server(2, 0x900_0123, false);
        let path = history(2, &[(1, 0x510_0000)]);
        let slot = SlotPosition { restart: Some(LogOffset(0x410_0000)), timeline: None };
        let start = plan_start(None, &now, &path, Some(slot));
        assert_eq!(start, Ok(Start { timeline: 1, position: LogOffset(0x400_0000), close: None }));
        let start = plan_start(None, &now, &path, None);
        assert_eq!(start, Ok(Start { timeline: 2, position: LogOffset(0x900_0000), close: None }));
    }
}
