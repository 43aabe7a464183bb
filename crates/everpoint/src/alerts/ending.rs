//! Ends threads without waiting for what may take long.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long one waits for a thread that may be in the middle of a call over the network.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits for threads that were told to end; those that don't in time end with the process.
pub(super) fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    let until = Instant::now() + PATIENCE;
    for thread in threads {
        while !thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
}
