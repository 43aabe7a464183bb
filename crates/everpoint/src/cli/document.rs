//! The command line as manual pages and completions describe it: without what is hidden.

use clap::{Command, CommandFactory as _};

use super::Cli;

/// The command and all below it.
pub(crate) fn documented() -> Command {
    let mut command = visible(&Cli::command());
    command.build();
    command
}

/// A copy: nothing can be taken out of a command.
fn visible(command: &Command) -> Command {
    let name = command.get_name().to_owned();
    let mut copy = Command::new(name)
        .disable_help_subcommand(true)
        .propagate_version(true)
        .max_term_width(100)
        .subcommand_value_name("COMMAND")
        .subcommand_help_heading("Commands")
        .subcommand_required(command.is_subcommand_required_set())
        .args(command.get_arguments().filter(|argument| !argument.is_hide_set()).cloned())
        .subcommands(command.get_subcommands().filter(|below| !below.is_hide_set()).map(visible));
    if let Some(about) = command.get_about() {
        copy = copy.about(about.clone());
    }
    if let Some(more) = command.get_after_help() {
        copy = copy.after_help(more.clone());
    }
    if let Some(version) = command.get_version() {
        copy = copy.version(version.to_owned());
    }
    copy
}
