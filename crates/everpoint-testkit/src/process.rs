//! Processes and signals.

use std::fs;
use std::process::Child;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// Sends a signal to a child that has not been waited for, so that its id is still its own.
///
/// # Errors
/// If it can't be signalled.
pub fn signal_child(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no such process")?;
    kill_process(pid, signal).context("cannot signal a process")
}

/// What a process holds at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that lie in RAM (RSS), pages of the program itself included.
    pub memory: u64,
    /// Threads.
    pub threads: u64,
    /// Open files and sockets.
    pub files: u64,
}

impl Usage {
    /// Looks at a process.
    ///
    /// # Errors
    /// If it has gone, or belongs to somebody else.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let number = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let word = line.and_then(|line| line.split_whitespace().next());
            word.and_then(|word| word.parse().ok()).with_context(|| format!("no {name} in {path}"))
        };
        let files = fs::read_dir(format!("/proc/{pid}/fd")).context("cannot list open files")?.count();
        let usage = Self {
            memory: number("VmRSS")? * 1024,
            threads: number("Threads")?,
            files: u64::try_from(files)?,
        };
        ensure!(usage.threads > 0, "process {pid} has ended");
        Ok(usage)
    }
}

/// Processes whose parent is `parent`.
pub(crate) fn children_of(parent: u32) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let of_parent = |id: &i32| {
        let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else {
            return false;
        };
        // The second field is the name in parentheses, which may hold anything; the parent is the second after it.
        let after = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        after.split_whitespace().nth(1).and_then(|field| field.parse::<u32>().ok()) == Some(parent)
    };
    ids.filter(of_parent).filter_map(Pid::from_raw).collect()
}
