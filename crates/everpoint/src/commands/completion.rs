//! `completion`: a script for a shell.

use clap::CommandFactory as _;
use everpoint_app::AppError;

use crate::cli::Cli;
use crate::render::Done;

#[expect(clippy::unnecessary_wraps, reason = "all commands have one shape")]
pub(crate) fn run(shell: clap_complete::Shell) -> Result<Done, AppError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "everpoint", &mut script);
    Ok(Done::plain(String::from_utf8_lossy(&script).into_owned()))
}
