//! Progress: bars on a terminal, plain lines each few seconds in a log, nothing where it is not wanted.

use std::fmt::Write;
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use everpoint_app::text::{lsn, time};
use everpoint_app::{Event, Events};
use everpoint_core::{LogOffset, Micros};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::{note, number};

/// Between two lines of progress in a log.
const LOG_EVERY: Duration = Duration::from_secs(5);
/// Between two lines of capture in a log.
const CAPTURE_EVERY: Duration = Duration::from_secs(60);

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Bars.
    Terminal,
    /// Lines.
    Log,
    /// Warnings only.
    Quiet,
    /// Nothing at all.
    Silent,
}

impl Style {
    /// From what was asked for and where standard error goes.
    pub(crate) fn choose(json: bool, quiet: bool, no_progress: bool) -> Self {
        if quiet {
            Self::Silent
        } else if json || no_progress {
            Self::Quiet
        } else if std::io::stderr().is_terminal() {
            Self::Terminal
        } else {
            Self::Log
        }
    }
}

/// Renders events to standard error.
pub(crate) struct Progress {
    style: Style,
    /// Put before each line when several clusters speak at once.
    prefix: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bar: Option<ProgressBar>,
    step: String,
    step_begun: Option<Instant>,
    last_line: Option<Instant>,
    last_capture: Option<Instant>,
    /// When and where replay was first seen.
    replay_begun: Option<(Instant, LogOffset)>,
}

impl Progress {
    pub(crate) fn new(style: Style) -> Self {
        Self { style, prefix: String::new(), state: Mutex::default() }
    }

    /// The same, its lines beginning with `name`.
    pub(crate) fn named(style: Style, name: &str) -> Self {
        Self { style, prefix: format!("{name}: "), state: Mutex::default() }
    }

    fn say(&self, state: &State, text: &str) {
        let text = format!("{}{text}", self.prefix);
        match &state.bar {
            Some(bar) => bar.suspend(|| note(&text)),
            None => note(&text),
        }
    }

    fn step(&self, state: &mut State, words: &str) {
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
        words.clone_into(&mut state.step);
        state.step_begun = Some(Instant::now());
        state.last_line = Some(Instant::now());
        self.say(state, words);
    }

    fn bytes(&self, state: &mut State, done: u64, total: Option<u64>) {
        // A role that may not ask for sizes has no total.
        let total = total.filter(|total| *total > 0);
        if let (Style::Terminal, Some(total)) = (self.style, total) {
            let bar = state.bar.get_or_insert_with(|| new_bar(total));
            bar.set_length(total.max(done));
            bar.set_position(done);
            return;
        }
        if self.style != Style::Terminal && !due(&mut state.last_line, LOG_EVERY) {
            return;
        }
        let rate =
            state.step_begun.map_or(0.0, |begun| done as f64 / begun.elapsed().as_secs_f64().max(0.001));
        let rate = format!("{}/s", number::size(rate as u64));
        let text = amount(done, total, &rate);
        if self.style == Style::Terminal {
            state.bar.get_or_insert_with(new_spinner).set_message(text);
            return;
        }
        self.say(state, &text);
    }

    fn spin(&self, state: &mut State, text: String, every: Duration, of_capture: bool) {
        if self.style == Style::Terminal {
            state.bar.get_or_insert_with(new_spinner).set_message(format!("{}{text}", self.prefix));
            return;
        }
        let last = if of_capture { &mut state.last_capture } else { &mut state.last_line };
        if due(last, every) {
            self.say(state, &text);
        }
    }
}

impl Events for Progress {
    fn emit(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.style, event) {
            (Style::Silent, _) | (_, Event::Failing { .. }) => {}
            (_, event @ (Event::Warning(_) | Event::Gap { .. })) => {
                self.say(&state, &format!("warning: {}", event.warning().unwrap_or_default()));
            }
            (Style::Quiet, _) => {}
            (_, Event::Step(words)) => self.step(&mut state, &words),
            (_, Event::Info(text)) => self.say(&state, &text),
            (_, Event::Progress { done, total }) => self.bytes(&mut state, done, total),
            (_, Event::Captured { timeline, position, covered_until }) => {
                let until =
                    covered_until.map(|at| format!(", everything up to {}", super::time::local(&time(at))));
                let text = format!(
                    "captured to {} (timeline {timeline}){}",
                    lsn(position),
                    until.unwrap_or_default()
                );
                self.spin(&mut state, text, CAPTURE_EVERY, true);
            }
            (_, Event::Replaying { position, target, time: at }) => {
                let begun = *state.replay_begun.get_or_insert((Instant::now(), position));
                let text = replay_text(position, target, at, begun);
                self.spin(&mut state, text, LOG_EVERY, false);
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Where replay is, which moment that is, how fast it goes and how long it will take.
fn replay_text(
    position: LogOffset,
    target: Option<LogOffset>,
    moment: Option<Micros>,
    begun: (Instant, LogOffset),
) -> String {
    let mut text = format!("replayed to {}", lsn(position));
    if let Some(target) = target {
        text.push_str(&format!(" of {}", lsn(target)));
    }
    if let Some(moment) = moment {
        text.push_str(&format!(", {}", super::time::local(&time(moment))));
    }
    let elapsed = begun.0.elapsed().as_secs_f64();
    let rate = position.since(begun.1) as f64 / elapsed.max(0.001);
    // The first moments say nothing about the rate.
    if elapsed > 1.0 && rate >= 1.0 {
        text.push_str(&format!(", {}/s", number::size(rate as u64)));
        if let Some(left) = target.map(|target| target.since(position)).filter(|left| *left > 0) {
            text.push_str(&format!(", {} left", number::seconds(left as f64 / rate)));
        }
    }
    text
}

/// How much is done. What grew while it was read is never more than all of it.
fn amount(done: u64, total: Option<u64>, rate: &str) -> String {
    match total {
        Some(total) => {
            let percent = (u128::from(done) * 100 / u128::from(total.max(1))).min(100);
            format!("{percent} % ({} of {}, {rate})", number::size(done), number::size(total.max(done)))
        }
        None => format!("{} ({rate})", number::size(done)),
    }
}

fn due(last: &mut Option<Instant>, every: Duration) -> bool {
    let due = last.is_none_or(|at| at.elapsed() >= every);
    if due {
        *last = Some(Instant::now());
    }
    due
}

fn new_bar(total: u64) -> ProgressBar {
    let template = "  {bar:30} {percent:>3} %  {done} of {total}  {rate}  {left} left";
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template(template) {
        let style = style
            .with_key("done", |state: &ProgressState, out: &mut dyn Write| {
                tell(out, number::size(state.pos()))
            })
            .with_key("total", |state: &ProgressState, out: &mut dyn Write| {
                tell(out, number::size(state.len().unwrap_or_default()));
            })
            .with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
                tell(out, format!("{}/s", number::size(state.per_sec() as u64)));
            })
            .with_key("left", |state: &ProgressState, out: &mut dyn Write| {
                tell(out, number::duration(state.eta()));
            });
        bar.set_style(style);
    }
    bar
}

/// What can't be drawn is not drawn.
fn tell(out: &mut dyn Write, text: String) {
    let _ = out.write_str(&text);
}

fn new_spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    // A line that is wider than the terminal would be drawn anew below itself.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_that_is_not_known_is_not_reached_from_the_start() {
        assert_eq!(amount(1 << 20, Some(4 << 20), "1.0 MiB/s"), "25 % (1.0 MiB of 4.0 MiB, 1.0 MiB/s)");
        assert_eq!(amount(1 << 20, None, "1.0 MiB/s"), "1.0 MiB (1.0 MiB/s)");
        // A role that may not ask for sizes tells 0.
        let progress = Progress::new(Style::Terminal);
        progress.emit(Event::Progress { done: 1 << 20, total: Some(0) });
        let mut state = progress.state.lock().unwrap();
        let bar = state.bar.take().unwrap();
        assert_eq!(bar.length(), None, "a bar of which all is done");
        assert!(bar.message().contains("1.0 MiB"), "{}", bar.message());
    }

    #[test]
    fn replay_shows_rate_and_time_left() {
        let begun = (Instant::now() - Duration::from_secs(10), LogOffset(0x100_0000));
        let text = replay_text(LogOffset(0x200_0000), Some(LogOffset(0x300_0000)), Some(Micros(0)), begun);
        assert!(text.starts_with("replayed to 0/2000000 of 0/3000000, 1970-01-01"), "{text}");
        assert!(text.contains("1.6 MiB/s, 10 s left"), "{text}");
        let arrived = replay_text(LogOffset(0x200_0000), Some(LogOffset(0x200_0000)), None, begun);
        assert!(!arrived.contains("left"), "{arrived}");
    }
}
