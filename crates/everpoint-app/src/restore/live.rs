//! Nothing is written over a server that runs, or may run.

use std::path::Path;

use everpoint_core::{Answer, FailureClass, Life, life};
use everpoint_engine::Engine;

use crate::AppError;

/// Refuses a directory on which a server runs, or on which it is not known that none does. `stopped`: the operator says
/// that none does, which counts where nothing speaks against it; the warning then tells what is not proven.
///
/// # Errors
/// `restore.live_server` with what is known. Nothing was touched.
pub fn refuse(engine: &dyn Engine, directory: &Path, stopped: bool) -> Result<Option<String>, AppError> {
    let signs = engine.life_signs(directory)?;
    let shown = directory.display().to_string();
    let error = |message: String| {
        AppError::new("restore.live_server", FailureClass::Usage, "restore into", shown.clone(), message)
    };
    match life(&signs) {
        Life::Dead(reason) => {
            tracing::debug!(directory = shown, reason, "no server runs there");
            Ok(None)
        }
        Life::Alive(reason) => {
            let unclear = matches!(signs.answer, Answer::Unclear(_));
            let command = engine.stop_command(directory);
            let hint = if unclear && signs.processes.is_empty() && signs.memory.is_none() {
                "if that is this directory's server, stop it; if it is another one, run this where all processes \
                 are seen (as root, outside of containers)"
                    .to_owned()
            } else if let Some(command) = command {
                format!("stop it first: {command}; then run this again")
            } else {
                "stop it first, the way it was started (service, container or pg_ctl), then run this again".to_owned()
            };
            Err(error(format!("a server runs on it: {reason}")).hint(hint))
        }
        Life::Unknown(known) if stopped => {
            Ok(Some(format!("that no server runs on {shown} is your word: {known}")))
        }
        Life::Unknown(known) => Err(error(format!("a server may run on it: {known}")).hint(
            "run this where all processes are seen (as root, outside of containers), or, if you know that no server \
             runs on it anywhere, add --server-is-stopped",
        )),
    }
}

/// Refuses the place of a tablespace in whose part a program writes, or to which a running server's link leads.
///
/// # Errors
/// `restore.live_server` with what is known. Nothing was touched.
pub fn refuse_space(engine: &dyn Engine, place: &Path, part: &str) -> Result<(), AppError> {
    let Some(reason) = engine.tablespace_in_use(place, part) else { return Ok(()) };
    let shown = place.join(part).display().to_string();
    let message = format!("a server has it in use: {reason}");
    Err(AppError::new("restore.live_server", FailureClass::Usage, "put a tablespace into", shown, message)
        .hint("name another directory with --map, or stop that server if its data is to go"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use everpoint_engine::fake::FakeEngine;

    use super::*;

    #[test]
    fn an_engine_that_knows_no_servers_refuses_nothing() {
        let engine: Arc<dyn Engine> = Arc::new(FakeEngine::new(crate::testing::log(1)));
        assert!(refuse(engine.as_ref(), Path::new("/nowhere"), false).unwrap().is_none());
    }
}
