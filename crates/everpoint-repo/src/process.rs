//! Who holds a lease, so that a holder on the same machine that has died is noticed at once.

use std::fs;

/// Marks a process: boot of the machine, namespace of process ids, process id, start time in clock ticks.
///
/// Only a process that sees the same boot and namespace can judge; others wait until the lease expires.
pub(crate) fn mark() -> Option<String> {
    mark_of(std::process::id())
}

fn mark_of(pid: u32) -> Option<String> {
    let (boot, namespace) = surroundings()?;
    Some(format!("{boot}/{namespace}/{pid}/{}", started(pid)?))
}

/// Whether the marked process is certainly dead.
pub(crate) fn is_dead(mark: &str) -> bool {
    let mut parts = mark.split('/');
    let (Some(boot), Some(namespace), Some(Ok(pid))) =
        (parts.next(), parts.next(), parts.next().map(str::parse))
    else {
        return false;
    };
    if surroundings().is_none_or(|ours| (&*ours.0, &*ours.1) != (boot, namespace)) {
        return false;
    }
    // A process of that id with another start time is another process.
    fs::exists("/proc/self/stat").unwrap_or(false) && mark_of(pid).is_none_or(|found| found != mark)
}

fn surroundings() -> Option<(String, String)> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
    let link = fs::read_link("/proc/self/ns/pid").ok()?;
    let namespace: String = link.to_str()?.chars().filter(char::is_ascii_digit).collect();
    (!boot.is_empty() && !namespace.is_empty()).then_some((boot, namespace))
}

/// Field 22 of /proc/<pid>/stat; the second field is in parentheses and may hold anything. A zombie is dead.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_live_and_the_dead_are_dead() {
        let own = mark().unwrap();
        assert!(!is_dead(&own));
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let other = mark_of(child.id()).unwrap();
        assert!(!is_dead(&other));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_dead(&other));
    }

    #[test]
    fn a_reused_process_id_is_another_process_and_strangers_are_not_judged() {
        let own = mark().unwrap();
        let (rest, start) = own.rsplit_once('/').unwrap();
        assert!(is_dead(&format!("{rest}/{}", start.parse::<u64>().unwrap() + 1)));
        assert!(!is_dead(&format!("other-boot/{}", own.split_once('/').unwrap().1)));
        assert!(!is_dead(""));
        assert!(!is_dead("a/b/c/d"));
    }
}
