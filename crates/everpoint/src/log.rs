//! Logging to standard error, started only when somebody wants to read it.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging at the level that `-v` asks for; `$EVERPOINT_LOG` says it in more detail.
pub(crate) fn begin(verbose: u8) {
    let asked = std::env::var("EVERPOINT_LOG").ok().filter(|value| !value.is_empty());
    let default = match (verbose, &asked) {
        (0, None) => return,
        (0 | 1, _) => "info",
        (2, _) => "debug",
        _ => "trace",
    };
    let directives = asked.unwrap_or_else(|| default.to_owned());
    let filter = EnvFilter::try_new(&directives).unwrap_or_else(|_| EnvFilter::new(default));
    // It fails only if logging was begun before.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}
