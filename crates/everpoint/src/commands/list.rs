//! `list`: backups, recovery windows, gaps.

use everpoint_app::AppError;
use everpoint_app::list::{self, BackupLine, BranchLine, ClusterListing};

use super::Clusters;
use crate::cli::List;
use crate::render::Done;
use crate::render::number::{seconds, size};
use crate::render::table::Table;
use crate::render::time::local;
use crate::session::Session;

pub(crate) fn run(session: &Session, arguments: &List) -> Result<Done, AppError> {
    let mut clusters = Vec::new();
    for name in session.cluster_names(arguments.cluster.as_deref())? {
        clusters.push(list::run(&session.cluster(&name)?.context)?);
    }
    let text = if clusters.is_empty() {
        "no clusters".to_owned()
    } else {
        clusters.iter().map(text).collect::<Vec<_>>().join("\n")
    };
    Ok(Done::new(&Clusters { clusters }, text))
}

fn text(listing: &ClusterListing) -> String {
    let mut out = format!("{} ({})\n", listing.name, listing.engine);
    let mut backups =
        Table::new(&["backup", "kind", "status", "ended", "took", "size", "stored", "stop"], &[4, 5, 6]);
    listing.backups.iter().for_each(|backup| backups.row(row(backup)));
    if backups.is_empty() {
        out.push_str("  no backups\n");
    } else {
        out.push_str(&backups.render(2));
    }
    for backup in &listing.backups {
        if let Some(reason) = &backup.reason {
            out.push_str(&format!("  {}: {reason}\n", backup.label));
        }
        for warning in &backup.warnings {
            out.push_str(&format!("  {}: warning: {warning}\n", backup.label));
        }
        if let Some(hold) = &backup.hold {
            let until = hold.until.as_deref().map(|until| format!(" until {}", local(until)));
            out.push_str(&format!("  {}: on hold{}\n", backup.label, until.unwrap_or_default()));
        }
    }
    for window in &listing.windows {
        out.push_str(&format!(
            "  can be restored: {} to {} (timeline {}, {} to {})\n",
            local(&window.from),
            local(&window.to),
            window.timeline,
            window.from_lsn,
            window.to_lsn
        ));
    }
    if listing.windows.is_empty() {
        out.push_str("  nothing can be restored yet\n");
    }
    for branch in listing.branches.iter().filter(|branch| matches!(branch.role, "other" | "candidate")) {
        out.push_str(&branch_text(&listing.name, branch));
    }
    for gap in &listing.gaps {
        out.push_str(&format!(
            "  GAP on timeline {}: {} to {}: {}\n",
            gap.timeline, gap.from_lsn, gap.to_lsn, gap.reason
        ));
    }
    out
}

/// A branch that is not, or not certainly, production's.
fn branch_text(cluster: &str, branch: &BranchLine) -> String {
    let fork = branch.forked_at.as_deref().map(|at| format!(", forked at {at}")).unwrap_or_default();
    let what = if branch.role == "other" {
        format!("not production's; to let it go: everpoint expire {cluster} --branch {}", branch.branch)
    } else {
        format!("production may be on it; it is told from the others by: everpoint check {cluster}")
    };
    format!("  branch {} (timeline {}{fork}): {what}\n", branch.branch, branch.timeline)
}

fn row(backup: &BackupLine) -> Vec<String> {
    let took = backup.duration_seconds.map(seconds).unwrap_or_default();
    let sizes = |bytes: u64| {
        if backup.stopped_at.is_some() { size(bytes) } else { String::new() }
    };
    vec![
        backup.label.clone(),
        backup.kind.clone(),
        backup.status.to_owned(),
        backup.stopped_at.as_deref().map(local).unwrap_or_default(),
        took,
        sizes(backup.size_bytes),
        sizes(backup.stored_bytes),
        backup.stop_lsn.clone().unwrap_or_default(),
    ]
}
