//! Threads that work beside a busy server step back.

/// On a busy machine a thread of this niceness gets a tenth of the time that one of the server gets; on an idle one all of
/// it. With a third (5) a backup took more from the server's transactions than pg_basebackup does. The kernel derives the thread's IO priority from it, too.
const NICE: i32 = 10;

/// Lowers the priority of the calling thread, for good.
pub(crate) fn step_back() {
    // Not being allowed to be polite is no reason to do no backup.
    let _refused = rustix::process::nice(NICE);
}
