//! Logging to standard error, started only when somebody wants to read it. Of the daemon's log, which nobody reads as it
//! is written, the same warning is written once, then at intervals (`everpoint_core::repeats`).

use std::fmt::{Debug, Write as _};
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use everpoint_app::text;
use everpoint_core::{Repeats, Say, pattern};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Where a line comes from that says that something is over.
pub(crate) const OVER: &str = "everpoint::over";
/// Alerts have their own rule of when they are said again.
const ALERTS: &str = "everpoint::alerts::sink";

/// Whether this process is the daemon.
static DAEMON: AtomicBool = AtomicBool::new(false);

/// Starts logging as the daemon does.
pub(crate) fn begin_daemon(verbose: u8) {
    DAEMON.store(true, Ordering::SeqCst);
    begin(verbose);
}

/// Starts logging at the level that `-v` asks for; `$EVERPOINT_LOG` says it in more detail.
pub(crate) fn begin(verbose: u8) {
    let asked = std::env::var("EVERPOINT_LOG").ok().filter(|value| !value.is_empty());
    let default = match (verbose, &asked) {
        (0, None) => return,
        (0 | 1, _) => "info",
        (2, _) => "debug",
        _ => "trace",
    };
    let directives = asked.unwrap_or_else(|| default.to_owned());
    let filter = EnvFilter::try_new(&directives).unwrap_or_else(|_| EnvFilter::new(default));
    // It fails only if logging was begun before.
    let _ = tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        .event_format(NotTooOften { plain: Format::default(), said: Mutex::default() })
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}

/// Leaves out what was written a short while ago.
struct NotTooOften {
    plain: Format,
    said: Mutex<Repeats<String>>,
}

impl NotTooOften {
    fn say(&self, event: &Event<'_>) -> Say {
        let (target, level) = (event.metadata().target(), *event.metadata().level());
        let is_known = level <= Level::WARN && !target.starts_with(ALERTS) || target == OVER;
        if !DAEMON.load(Ordering::SeqCst) || !is_known {
            return Say::First;
        }
        let mut words = Words(format!("{target} {level}"));
        event.record(&mut words);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.seen(pattern(&words.0), text::now())
    }
}

impl<S, N> FormatEvent<S, N> for NotTooOften
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        match self.say(event) {
            Say::Nothing => return Ok(()),
            Say::First => {}
            Say::Again { times, since } => write!(writer, "({times} times since {}) ", text::time(since))?,
        }
        self.plain.format_event(context, writer, event)
    }
}

/// All that an event says.
struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing into a String can't fail.
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_daemon_says_a_warning_once() {
        DAEMON.store(true, Ordering::SeqCst);
        let kept = Kept::default();
        let writer = kept.clone();
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(NotTooOften { plain: Format::default(), said: Mutex::default() })
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(log, || {
            for number in 0..18 {
                tracing::warn!(cluster = "a", "the key lies open, for {number} seconds");
            }
            tracing::warn!(cluster = "b", "the key lies open, for 5 seconds");
            tracing::error!("no disk");
            tracing::info!("done");
            tracing::info!("done");
        });
        DAEMON.store(false, Ordering::SeqCst);
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert!(lines[1].contains("cluster=\"b\"") && lines[4].ends_with("done"), "{text}");
    }
}
