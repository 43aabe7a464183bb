//! What must be right before a backup begins: what the backup itself would only notice late, or never.

use everpoint_core::FailureClass;
use everpoint_core::health::{LEAST_FREE_PERCENT, LEAST_LOG, RoomHealth, expected_size, is_full, room};
use everpoint_core::words::size;
use everpoint_engine::{CheckLine, CheckState};
use everpoint_repo::BackupListing;
use everpoint_store::Space;

use crate::{AppError, ClusterContext};

/// Lines of `check` that keep a backup from beginning. What else may be wrong with the server (connection, privileges)
/// the backup meets at its first step, and says so itself.
const BLOCKING: [&str; 3] = ["managed_service", "standby_lag", "archive"];

/// Lines of `check` that a backup tells and goes on.
const TOLD: [&str; 2] = ["recovery_settings", "orphaned_slot"];

/// Looks at the server and at the room in the repository. Returns what to tell while the backup goes on, in words.
///
/// # Errors
/// `backup.unhealthy` with all that is wrong, `backup.no_room`.
pub fn run(context: &ClusterContext) -> Result<Vec<String>, AppError> {
    let lines = context.engine.check(None);
    let blocking =
        |line: &&CheckLine| line.state == CheckState::Error && BLOCKING.contains(&line.name.as_str());
    let wrong: Vec<&CheckLine> = lines.iter().filter(blocking).collect();
    if !wrong.is_empty() {
        let said: Vec<String> = wrong.iter().map(|line| format!("{}: {}", line.name, line.message)).collect();
        let hints: Vec<&str> = wrong.iter().filter_map(|line| line.hint.as_deref()).collect();
        let class = FailureClass::Failed;
        return Err(AppError::new("backup.unhealthy", class, "back up", &context.name, said.join("; "))
            .hint(format!("{}; to take it all the same: --skip-checks", hints.join("; "))));
    }
    let told = told(&lines);
    match space(context, &context.cluster.backups()?).filter(|line| line.state == CheckState::Error) {
        None => Ok(told),
        Some(line) => {
            let error =
                AppError::new("backup.no_room", FailureClass::Failed, "back up", &context.name, line.message);
            let hint = line.hint.unwrap_or_default();
            Err(error.hint(format!("{hint}; to take it all the same: --skip-checks")))
        }
    }
}

/// Of the lines of `check` those that are told while work goes on, in words.
#[must_use]
pub fn told(lines: &[CheckLine]) -> Vec<String> {
    let text = |line: &CheckLine| {
        let hint = line.hint.as_ref().map_or(String::new(), |hint| format!("; to mend it: {hint}"));
        format!("{}{hint}", line.message)
    };
    lines.iter().filter(|line| TOLD.contains(&line.name.as_str())).map(text).collect()
}

/// What is said of a repository that takes nothing more: what there is, what is needed, and what to do.
pub(crate) fn full_told(context: &ClusterContext, space: Option<Space>) -> (String, String) {
    let listings = context.cluster.backups().unwrap_or_default();
    let largest = listings.iter().filter_map(|listing| listing.record.as_ref()).map(|r| r.stored_bytes).max();
    let backup = expected_size(largest, largest.is_none().then(|| context.engine.size()).flatten());
    let needed = backup.saturating_mul(2).saturating_add(LEAST_LOG);
    let there = match space {
        Some(space) if is_full(space.free, space.total) => {
            format!("{} free of {}", size(space.free), size(space.total))
        }
        // A quota, or no file can be made any more.
        Some(space) => {
            format!("it takes nothing more, although {} of {} are free", size(space.free), size(space.total))
        }
        None => "it takes nothing more".to_owned(),
    };
    let message = format!(
        "the repository is full: {there}; needed: {}, for the log and two backups. What happens now is not stored",
        size(needed)
    );
    let hint = format!(
        "make room there or move the repository to a larger disk; everpoint expire {} --dry-run shows what the policy lets go",
        context.name
    );
    (message, hint)
}

/// The line of `check` about the room in the repository; `None` where the store can't tell.
pub(crate) fn space(context: &ClusterContext, listings: &[BackupListing]) -> Option<CheckLine> {
    let line = |state, message, hint: Option<&str>| {
        let hint = hint.map(str::to_owned);
        Some(CheckLine { name: "space".to_owned(), state, message, hint })
    };
    let space = match context.repository.store().space() {
        Ok(space) => space?,
        Err(error) => {
            return line(CheckState::Warning, format!("can't tell how much is free: {error}"), None);
        }
    };
    let percent = u128::from(space.free) * 100 / u128::from(space.total.max(1));
    let largest = listings.iter().filter_map(|listing| listing.record.as_ref()).map(|r| r.stored_bytes).max();
    // The server is only asked where nothing is known from before.
    let cluster = largest.is_none().then(|| context.engine.size()).flatten();
    let free = format!("{} free, {percent} %", size(space.free));
    let hint = Some("make room there, or move the repository to a larger disk");
    match room(space.free, space.total, expected_size(largest, cluster)) {
        RoomHealth::Enough => line(CheckState::Ok, free, None),
        RoomHealth::SmallShare => {
            line(CheckState::Error, format!("{free}: less than {LEAST_FREE_PERCENT} %"), hint)
        }
        RoomHealth::TooLittle { needed } => {
            let message = format!("{free}: less than two backups need ({})", size(needed));
            line(CheckState::Error, message, hint)
        }
    }
}
