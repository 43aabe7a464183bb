//! SIGINT and SIGTERM: the first asks to stop cleanly, the second ends the process at once. SIGHUP: the daemon reads its
//! configuration again.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use std::time::Duration;

use everpoint_engine::StopFlag;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::render::note;

/// So long a job may take to end when it was asked to. What hangs (a disk that answers no more) would not end at all, and
/// whatever is cut off is taken up again.
const GRACE: Duration = Duration::from_secs(60);

/// A flag that is set by the first signal. If signals can't be caught the flag is never set, and a signal ends the
/// process as it would without us.
pub(crate) fn stop_flag() -> StopFlag {
    let stop = StopFlag::default();
    let flag = stop.clone();
    if let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) {
        std::thread::spawn(move || {
            for signal in signals.forever() {
                if flag.is_set() {
                    // As a shell reports a process that a signal ended.
                    std::process::exit(128 + signal);
                }
                note("stopping; once more to stop at once");
                flag.stop();
                std::thread::spawn(move || {
                    std::thread::sleep(GRACE);
                    note("it does not stop by itself: stopped");
                    std::process::exit(128 + signal);
                });
            }
        });
    }
    stop
}

/// Whether a hangup has come.
pub(crate) struct Hangup {
    came: Arc<AtomicBool>,
    /// The daemon was started at a terminal: its end means the end of the daemon, as of every other program.
    at_terminal: bool,
}

/// What a hangup asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hung {
    /// To read the configuration again.
    Reload,
    /// To end: the terminal at which it was started is gone.
    End,
}

impl Hangup {
    /// Listens from now on. If signals can't be caught, a hangup ends the process as it would without us.
    pub(crate) fn listen() -> Self {
        let came = Arc::new(AtomicBool::new(false));
        if let Err(error) = signal_hook::flag::register(SIGHUP, Arc::clone(&came)) {
            tracing::warn!(
                "SIGHUP will end this process instead of reading the configuration again: {error}"
            );
        }
        Self { came, at_terminal: std::io::stdin().is_terminal() }
    }

    /// What it asked for since this was called last.
    pub(crate) fn take(&self) -> Option<Hung> {
        let gone = || self.at_terminal && !std::io::stdin().is_terminal();
        self.came.swap(false, Ordering::SeqCst).then(|| if gone() { Hung::End } else { Hung::Reload })
    }
}
