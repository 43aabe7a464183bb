//! `help`: the help of a command.

use clap::CommandFactory as _;
use everpoint_app::AppError;
use everpoint_core::FailureClass;
use everpoint_core::words::known;

use crate::cli::Cli;
use crate::render::Done;

pub(crate) fn run(words: &[String]) -> Result<Done, AppError> {
    let mut root = Cli::command();
    root.build();
    let mut command = &mut root;
    for word in words {
        let below: Vec<String> = command
            .get_subcommands()
            .filter(|it| !it.is_hide_set())
            .map(|it| it.get_name().to_owned())
            .collect();
        command = command.find_subcommand_mut(word).ok_or_else(|| {
            let there = known(word, "commands", below.iter().map(String::as_str));
            AppError::new(
                "usage",
                FailureClass::Usage,
                "find the command",
                word,
                "there is none of that name",
            )
            .hint(there)
        })?;
    }
    Ok(Done::plain(command.render_long_help().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_command_lists_the_known_ones() {
        let error = run(&["restor".to_owned()]).unwrap_err();
        assert!(error.hint.unwrap().starts_with("did you mean restore?"));
        assert!(run(&["key".to_owned(), "rotate".to_owned()]).is_ok());
        assert!(run(&["key".to_owned(), "restore".to_owned()]).is_err());
    }
}
