//! What `check` says of the files that a backup would meet.

use std::path::Path;

use everpoint_engine::{CheckLine, CheckState};

use super::directories;
use super::session::line;
use crate::catalog;
use crate::client::{Config, Purpose, connect};
use crate::files::{Surveyed, survey, survey_for_server};

/// So many paths are named in the line.
const NAMED: usize = 10;

/// Whether a backup would be whole; `None` where the server's directory can't be looked at. `data_dir`: backups read the
/// server's files there.
pub(super) fn check(config: &Config, data_dir: Option<&Path>) -> Option<CheckLine> {
    let live = connect(config, Purpose::Sql).ok().and_then(|mut sql| catalog::live(&mut sql));
    let Some(data_dir) = data_dir else {
        let directory = directories::of(None, Some(config)).into_iter().next()?;
        let surveyed = survey_for_server(&directory, live.as_ref());
        let hint = "put the directory itself in its place, or give it to the server's account; or set data_dir: then Everpoint \
                    reads the files itself and follows links";
        return (surveyed.count > 0).then(|| told(&surveyed, hint));
    };
    Some(match survey(data_dir, live.as_ref()) {
        Ok(surveyed) => told(
            &surveyed,
            "take what is not the server's out of its directory, make it readable, or remove it; what the server needs must \
             be in its place",
        ),
        Err(error) => line("files", CheckState::Error, error.to_string(), error.hint),
    })
}

fn told(surveyed: &Surveyed, hint: &str) -> CheckLine {
    let hint = Some(hint.to_owned());
    if let Some((path, reason)) = &surveyed.ends {
        return line("files", CheckState::Error, format!("a backup would fail at {path}: {reason}"), hint);
    }
    if !surveyed.lacks.is_empty() {
        let mut named: Vec<String> =
            surveyed.lacks.iter().take(NAMED).map(|(path, reason)| format!("{path} ({reason})")).collect();
        let more = surveyed.lacks.len().saturating_sub(NAMED);
        named.extend((more > 0).then(|| format!("{more} more")));
        return line("files", CheckState::Warning, format!("a backup would lack {}", named.join(", ")), hint);
    }
    let among = if surveyed.cut { "the first " } else { "" };
    line(
        "files",
        CheckState::Ok,
        format!("{among}{} files and directories can be read", surveyed.count),
        None,
    )
}
