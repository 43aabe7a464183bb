//! SIGINT and SIGTERM: the first asks to stop cleanly, the second ends the process at once.

use std::time::Duration;

use everpoint_engine::StopFlag;
use signal_hook::consts::{SIGINT, SIGTERM};
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
