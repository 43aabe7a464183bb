//! Finds the instants at which a segment is stored and the tails that it replaces are not removed yet.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::world::{CLUSTER, World};

/// How long to wait for a compaction.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kills the capture inside a compaction: what the repository holds afterwards shows that it was. A kill that came too
/// late is repeated.
pub(crate) fn kill_inside(world: &mut World) -> Result<()> {
    let log = world.everpoint.home().path().join("repository/clusters").join(CLUSTER).join("log");
    let deadline = Instant::now() + PATIENCE;
    loop {
        while unfinished(&log)?.is_none() {
            if Instant::now() > deadline {
                bail!("no compaction was seen for {} s", PATIENCE.as_secs());
            }
        }
        world.kill_capture()?;
        if unfinished(&log)?.is_some() {
            return Ok(());
        }
        world.start_capture()?;
        sleep(Duration::from_millis(500));
    }
}

/// A segment that is stored beside tails of it.
fn unfinished(log: &Path) -> Result<Option<PathBuf>> {
    let Ok(identities) = fs::read_dir(log) else { return Ok(None) };
    for identity in identities {
        let identity = identity.context("cannot list the repository")?;
        for branch in fs::read_dir(identity.path()).context("cannot list the repository")? {
            let branch = branch.context("cannot list the repository")?.path();
            for entry in fs::read_dir(&branch).context("cannot list a branch")? {
                let Ok(entry) = entry else { continue };
                let name = entry.file_name();
                let Some(segment) = name.to_str().and_then(|name| name.strip_suffix(".tail")) else {
                    continue;
                };
                let has_tails = fs::read_dir(entry.path()).is_ok_and(|mut tails| tails.next().is_some());
                if has_tails && branch.join(segment).exists() {
                    return Ok(Some(branch.join(segment)));
                }
            }
        }
    }
    Ok(None)
}
