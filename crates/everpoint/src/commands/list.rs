//! `list`: backups, recovery windows, restore points, branches, gaps.

use everpoint_app::AppError;
use everpoint_app::list::{self, BackupLine, BranchLine, ClusterListing};
use serde::Serialize;

use super::{Clusters, list_packages};
use crate::cli::List;
use crate::render::Done;
use crate::render::number::{seconds, size};
use crate::render::table::Table;
use crate::render::time::{local, local_exact};
use crate::session::{Opened, Session};

/// So many restore points are shown; `--json` has all.
const POINTS: usize = 30;

pub(crate) fn run(session: &Session, arguments: &List) -> Result<Done, AppError> {
    if !arguments.package.is_empty() {
        return list_packages::run(session, arguments);
    }
    let mut clusters = Vec::new();
    for name in session.cluster_names(arguments.cluster.as_deref())? {
        clusters.push(listed(session, &session.stored_cluster(&name)?)?);
    }
    if arguments.cluster.is_none() && session.global.repo.is_none() {
        for opened in session.only_stored()? {
            clusters.push(listed(session, &opened)?);
        }
    }
    let text = if clusters.is_empty() {
        "no clusters".to_owned()
    } else {
        clusters.iter().map(Listed::text).collect::<Vec<_>>().join("\n")
    };
    Ok(Done::new(&Clusters { clusters }, text))
}

/// A cluster, and where it is, if no configuration names it.
#[derive(Debug, Serialize)]
struct Listed {
    #[serde(flatten)]
    listing: ClusterListing,
    /// `false`, or it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    configured: Option<bool>,
    #[serde(skip)]
    repository: String,
}

fn listed(session: &Session, opened: &Opened) -> Result<Listed, AppError> {
    let listing = list::run(&opened.context)?;
    let configured = session.lacks(&listing.name).then_some(false);
    Ok(Listed { listing, configured, repository: everpoint_store::shown_url(&opened.repository.url) })
}

impl Listed {
    fn text(&self) -> String {
        let Some(_) = self.configured else { return text(&self.listing, "") };
        text(&self.listing, &format!(", not configured: {} holds it", self.repository))
    }
}

fn text(listing: &ClusterListing, note: &str) -> String {
    let mut out = format!("{} ({}){note}\n", listing.name, listing.engine);
    let mut backups =
        Table::new(&["backup", "kind", "status", "ended", "took", "size", "stored", "stop"], &[4, 5, 6]);
    listing.backups.iter().for_each(|backup| backups.row(row(backup)));
    if backups.is_empty() {
        out.push_str("  no backups\n");
    } else {
        out.push_str(&backups.render(2));
    }
    listing.backups.iter().for_each(|backup| out.push_str(&more(backup)));
    for window in &listing.windows {
        out.push_str(&format!(
            "  can be restored: {} to {} (timeline {}, {} to {})\n",
            local_exact(&window.from),
            local_exact(&window.to),
            window.timeline,
            window.from_lsn,
            window.to_lsn
        ));
    }
    if listing.windows.is_empty() {
        out.push_str("  nothing can be restored yet\n");
    }
    let hidden = listing.restore_points.len().saturating_sub(POINTS);
    if hidden > 0 {
        out.push_str(&format!("  {hidden} earlier restore points are shown with --json\n"));
    }
    for point in listing.restore_points.iter().skip(hidden) {
        out.push_str(&format!(
            "  restore point {}: {} (timeline {}, {})\n",
            point.name,
            local_exact(&point.time),
            point.timeline,
            point.lsn
        ));
    }
    if let Some(why) = &listing.restore_points_unread {
        out.push_str(&format!("  restore points can't be read: {why}\n"));
    }
    let several = listing
        .branches
        .iter()
        .any(|branch| Some(branch.identity) != listing.branches.first().map(|it| it.identity));
    let others: Vec<&BranchLine> = listing.branches.iter().filter(|branch| is_other(branch)).collect();
    let alone = |branch: &&BranchLine| others.len() == 1 || !is_other(branch);
    for branch in listing.branches.iter().filter(alone) {
        out.push_str(&branch_text(&listing.name, branch, several));
    }
    if others.len() > 1 {
        out.push_str(&others_text(&listing.name, &others, several));
    }
    for gap in &listing.gaps {
        out.push_str(&format!(
            "  GAP on timeline {}: {} to {}: {}\n",
            gap.timeline, gap.from_lsn, gap.to_lsn, gap.reason
        ));
    }
    out
}

/// What does not fit into the table.
fn more(backup: &BackupLine) -> String {
    let mut out = String::new();
    if let Some(reason) = &backup.reason {
        out.push_str(&format!("  {}: {reason}\n", backup.label));
    }
    for warning in &backup.warnings {
        out.push_str(&format!("  {}: warning: {warning}\n", backup.label));
    }
    if !backup.labels.is_empty() {
        let labels: Vec<String> = backup.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        out.push_str(&format!("  {}: labels {}\n", backup.label, labels.join(", ")));
    }
    if let Some(hold) = &backup.hold {
        let until = hold.until.as_deref().map(|until| format!(" until {}", local(until)));
        out.push_str(&format!("  {}: on hold{}\n", backup.label, until.unwrap_or_default()));
    }
    out
}

/// What copies and recoveries have left.
fn is_other(branch: &BranchLine) -> bool {
    !matches!(branch.role, "production" | "ancestor" | "candidate")
}

/// Several of them: one line.
fn others_text(cluster: &str, others: &[&BranchLine], several: bool) -> String {
    let named: Vec<String> =
        others.iter().map(|branch| format!("{} ({})", branch.branch, place(branch, several))).collect();
    format!(
        "  {} branches are not production's; restored with --timeline; one that nobody needs goes with: everpoint expire {cluster} \
         --branch NAME --dry-run: {}\n",
        others.len(),
        named.join(", ")
    )
}

/// Where a branch lies.
fn place(branch: &BranchLine, several: bool) -> String {
    // The first branches of two systems have one name.
    let system = branch.system_identifier.as_deref().filter(|_| several);
    let of = system.map(|it| format!("system {it}, identity {}, ", branch.identity)).unwrap_or_default();
    let fork = branch.forked_at.as_deref().map(|at| format!(", forked at {at}")).unwrap_or_default();
    format!("{of}timeline {}{fork}", branch.timeline)
}

/// A branch, and where it is not, or not certainly, production's, what to do.
fn branch_text(cluster: &str, branch: &BranchLine, several: bool) -> String {
    let what = match branch.role {
        "production" => "production is on it".to_owned(),
        "ancestor" => "production came from it".to_owned(),
        "candidate" => {
            format!("production may be on it; it is told from the others by: everpoint check {cluster}")
        }
        _ => format!(
            "not production's; restored with --timeline; if nobody needs it: everpoint expire {cluster} --branch {} --dry-run",
            branch.branch
        ),
    };
    format!("  branch {} ({}): {what}\n", branch.branch, place(branch, several))
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

#[cfg(test)]
mod tests {
    use everpoint_app::list::{Proof, WindowLine};
    use everpoint_app::restore_points::RestorePointLine;

    use super::*;

    #[test]
    fn labels_points_and_branches_are_shown() {
        let backup = BackupLine {
            label: "20260129-143000F".to_owned(),
            kind: "full".to_owned(),
            started_at: "2026-01-29T14:30:00.000000Z".to_owned(),
            stopped_at: Some("2026-01-29T14:31:00.000000Z".to_owned()),
            start_lsn: None,
            stop_lsn: Some("0/3000148".to_owned()),
            timeline: Some(1),
            size_bytes: 1536,
            stored_bytes: 1024,
            compression_ratio: None,
            status: "ok",
            reason: None,
            hold: None,
            labels: [("ticket".to_owned(), "4711".to_owned())].into(),
            server_version: None,
            duration_seconds: Some(60.0),
            encrypted: true,
            method: None,
            proof: Proof { state: "none", at: None },
            incomplete: true,
            warnings: vec!["lacks base/5".to_owned()],
        };
        let branch = |branch: &str, role| BranchLine {
            branch: branch.to_owned(),
            timeline: 1,
            identity: if role == "other" { 1 } else { 2 },
            system_identifier: Some(if role == "other" { "7" } else { "8" }.to_owned()),
            forked_from: None,
            forked_at: None,
            to_lsn: None,
            role,
        };
        let listing = ClusterListing {
            name: "order-db".to_owned(),
            engine: "postgresql".to_owned(),
            system_identifier: "7".to_owned(),
            backups: vec![backup],
            windows: vec![WindowLine {
                timeline: 1,
                from: "2026-01-29T14:31:00.000001Z".to_owned(),
                to: "2026-01-29T15:00:00.500000Z".to_owned(),
                from_lsn: "0/3000148".to_owned(),
                to_lsn: "0/4000000".to_owned(),
            }],
            gaps: Vec::new(),
            branches: vec![
                branch("00000001-0000000000000000", "production"),
                branch("00000002-4f2a91c04f2a91c0", "other"),
            ],
            restore_points: vec![RestorePointLine {
                cluster: "order-db".to_owned(),
                name: "before-upgrade".to_owned(),
                time: "2026-01-29T14:45:00.000000Z".to_owned(),
                lsn: "0/3800000".to_owned(),
                timeline: 1,
            }],
            restore_points_unread: None,
        };
        let shown = text(&listing, "");
        for part in [
            "20260129-143000F: labels ticket=4711",
            "restore point before-upgrade: 2026-01-29",
            "branch 00000001-0000000000000000 (system 8, identity 2, timeline 1): production is on it",
            "everpoint expire order-db --branch 00000002-4f2a91c04f2a91c0",
            // What is pasted behind --to must lie in the window.
            ":00.000001 ",
        ] {
            assert!(shown.contains(part), "{shown} lacks {part}");
        }
        let more = [branch("00000003-4f2a91c04f2a91c0", "other")];
        let branches = listing.branches.iter().cloned().chain(more).collect();
        let shown = text(&ClusterListing { branches, ..listing.clone() }, "");
        let line = shown.lines().find(|line| line.contains("2 branches are not production's")).unwrap();
        assert!(
            line.contains("00000002-4f2a91c04f2a91c0 (") && line.contains("00000003-4f2a91c04f2a91c0 ("),
            "{line}"
        );
        assert_eq!(shown.matches("--branch").count(), 1, "{shown}");
    }
}
