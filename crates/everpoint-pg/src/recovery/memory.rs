//! Memory of a copy's server: replay that has less than production's reads and writes most pages again and again.

use std::fs;

use crate::replication::parse_size;

/// PostgreSQL's default of `shared_buffers`, in bytes.
const DEFAULT: u64 = 128 << 20;
/// A guest takes so much of what is free: one part of eight.
const PART: u64 = 8;

/// `shared_buffers` of a copy, in bytes: as much as production had, but of the machine's free memory (`available`) only a part.
pub(super) fn buffers(facts: &[(String, String)], available: Option<u64>) -> u64 {
    let recorded = facts.iter().find(|(name, _)| name == "shared_buffers");
    let productions = recorded.and_then(|(_, value)| parse_size(value)).unwrap_or_default();
    productions.min(available.unwrap_or_default() / PART).max(DEFAULT)
}

/// Bytes that may be taken on this machine, or in this container (`memory.max`, `memory.current`: Linux, cgroup v2; the files of
/// version 1 beside them).
pub(super) fn available() -> Option<u64> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let machine = of_machine(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let group = |limit: &str, used: &str| Some(number(limit)?.saturating_sub(number(used)?));
    let limits = [
        group("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        group("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ];
    limits.into_iter().flatten().chain([machine]).min()
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn of_machine(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_as_much_as_production_if_that_is_little_of_what_is_free() {
        let facts = |value: &str| vec![("shared_buffers".to_owned(), value.to_owned())];
        let gib = 1 << 30;
        assert_eq!(buffers(&facts("512MB"), Some(16 * gib)), 512 << 20);
        assert_eq!(buffers(&facts("32GB"), Some(16 * gib)), 2 * gib);
        assert_eq!(buffers(&facts("512MB"), Some(gib / 2)), DEFAULT, "a small machine");
        assert_eq!(buffers(&facts("16MB"), Some(16 * gib)), DEFAULT);
        assert_eq!(buffers(&facts("512MB"), None), DEFAULT);
        assert_eq!(buffers(&[], Some(16 * gib)), DEFAULT, "an older backup");
    }

    #[test]
    fn what_is_free_is_read() {
        assert_eq!(of_machine("MemTotal: 9 kB\nMemAvailable:   22290 kB\n"), Some(22290 * 1024));
        assert_eq!(of_machine("MemTotal: 9 kB\n"), None);
        assert!(available().is_some());
    }
}
