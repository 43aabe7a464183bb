//! What every sink of a log must do, whatever is behind it.

use std::time::{Duration, Instant};

use everpoint_core::{LogOffset, Micros};

use super::FakeLog;
use crate::LogSink;

/// Reads what a sink's store holds of a branch (timeline and history) from a position on, as far as it is contiguous.
pub type ReadBack<'a> = &'a dyn Fn(u32, &[u8], LogOffset) -> Vec<u8>;

/// How long a sink may take to make something durable.
const PATIENCE: Duration = Duration::from_secs(5);

type Sink = Box<dyn LogSink>;

/// Runs the suite. `make` opens a sink over the store that it opened over before (as after a restart of the process);
/// the store is empty at first. `log` has at least two segments and ends within one.
///
/// # Errors
/// In words, what a sink does wrong.
pub fn log_sink(make: &mut dyn FnMut() -> Sink, read: ReadBack<'_>, log: &FakeLog) -> Result<(), String> {
    let (begin, end) = (log.start(), log.end());
    let middle = log.records().get(log.records().len() / 2).map_or(end, |record| record.span.end);
    takes_the_log_in_any_chunks(make, read, log, middle)?;
    goes_on_after_a_restart(make, read, log, middle)?;
    refuses_holes(make, log)?;
    takes_repetitions(make, read, log)?;
    follows_a_fork(make, read, log, middle)?;
    let stored = read(log.timeline(), &[], begin);
    same("the first branch after the fork", &stored, log.slice(begin, end))
}

fn call<T>(what: &str, result: Result<T, crate::EngineError>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

fn same(what: &str, stored: &[u8], sent: &[u8]) -> Result<(), String> {
    if stored == sent {
        return Ok(());
    }
    let first = stored.iter().zip(sent).take_while(|(a, b)| a == b).count();
    Err(format!("{what}: {} bytes stored, {} sent, the first {first} are equal", stored.len(), sent.len()))
}

/// Ticks until everything up to `to` is durable.
fn settle(sink: &mut dyn LogSink, to: LogOffset) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let durable = call("tick", sink.tick())?;
        if durable > to {
            return Err(format!("{durable} is said to be durable, and only {to} was sent"));
        }
        if durable == to {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("only {durable} of {to} is durable after {PATIENCE:?}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn takes_the_log_in_any_chunks(
    make: &mut dyn FnMut() -> Sink,
    read: ReadBack<'_>,
    log: &FakeLog,
    to: LogOffset,
) -> Result<(), String> {
    let mut sink = make();
    call("timeline", sink.timeline(log.timeline(), &[], log.start()))?;
    let (mut position, mut length) = (log.start(), 1);
    while position < to {
        let bytes = log.slice(position, position.plus(length).min(to));
        call("write", sink.write(position, bytes))?;
        position = position.plus(bytes.len() as u64);
        length = length * 3 % 300_007 + 1;
        let durable = call("tick", sink.tick())?;
        if durable > position {
            return Err(format!("{durable} is said to be durable, and only {position} was sent"));
        }
    }
    settle(sink.as_mut(), to)?;
    call("covered", sink.covered(to, Micros(1_000_000)))?;
    settle(sink.as_mut(), to)?;
    same("a log in chunks", &read(log.timeline(), &[], log.start()), log.slice(log.start(), to))
}

fn goes_on_after_a_restart(
    make: &mut dyn FnMut() -> Sink,
    read: ReadBack<'_>,
    log: &FakeLog,
    from: LogOffset,
) -> Result<(), String> {
    let mut sink = make();
    call("timeline after a restart", sink.timeline(log.timeline(), &[], from))?;
    let durable = call("tick after a restart", sink.tick())?;
    if durable != from {
        return Err(format!("{from} was durable before the restart, {durable} is after it"));
    }
    call("write after a restart", sink.write(from, log.slice(from, log.end())))?;
    settle(sink.as_mut(), log.end())?;
    same("a log after a restart", &read(log.timeline(), &[], log.start()), log.slice(log.start(), log.end()))
}

fn refuses_holes(make: &mut dyn FnMut() -> Sink, log: &FakeLog) -> Result<(), String> {
    let mut sink = make();
    if sink.write(log.end(), b"early").is_ok() {
        return Err("bytes were taken before a timeline was named".to_owned());
    }
    call("timeline", sink.timeline(log.timeline(), &[], log.end()))?;
    if sink.write(log.end().plus(1), b"hole").is_ok() {
        return Err("bytes were taken that leave a hole".to_owned());
    }
    Ok(())
}

fn takes_repetitions(
    make: &mut dyn FnMut() -> Sink,
    read: ReadBack<'_>,
    log: &FakeLog,
) -> Result<(), String> {
    let mut sink = make();
    call("timeline from the start again", sink.timeline(log.timeline(), &[], log.start()))?;
    call("write again", sink.write(log.start(), log.slice(log.start(), log.end())))?;
    settle(sink.as_mut(), log.end())?;
    same("a log sent twice", &read(log.timeline(), &[], log.start()), log.slice(log.start(), log.end()))
}

fn follows_a_fork(
    make: &mut dyn FnMut() -> Sink,
    read: ReadBack<'_>,
    log: &FakeLog,
    at: LogOffset,
) -> Result<(), String> {
    let timeline = log.timeline() + 1;
    let history = format!("{}\t{at}\tno recovery target specified\n", log.timeline()).into_bytes();
    let mut fork = log.fork(timeline, at);
    (1..=30).for_each(|xid| {
        fork.commit(1_000_000 + xid, Micros(2_000_000), 20_000);
    });
    let mut sink = make();
    call("timeline before the fork", sink.timeline(log.timeline(), &[], log.end()))?;
    call("timeline_end", sink.timeline_end(log.end()))?;
    call("timeline after the fork", sink.timeline(timeline, &history, fork.start()))?;
    call("write after the fork", sink.write(fork.start(), fork.slice(fork.start(), fork.end())))?;
    settle(sink.as_mut(), fork.end())?;
    let stored = read(timeline, &history, fork.start());
    same("the branch after a fork", &stored, fork.slice(fork.start(), fork.end()))
}
