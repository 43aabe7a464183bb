//! `completion`: a script for a shell.

use everpoint_app::AppError;

use crate::cli::documented;
use crate::render::Done;

#[expect(clippy::unnecessary_wraps, reason = "all commands have one shape")]
pub(crate) fn run(shell: clap_complete::Shell) -> Result<Done, AppError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut documented(), "everpoint", &mut script);
    Ok(Done::plain(String::from_utf8_lossy(&script).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_not_completed() {
        use clap_complete::Shell::{Bash, Elvish, Fish, PowerShell, Zsh};
        for shell in [Bash, Elvish, Fish, PowerShell, Zsh] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut documented(), "everpoint", &mut script);
            let script = String::from_utf8(script).unwrap();
            for part in ["restore-point", "--to", "--key-file"] {
                let fish = part.trim_start_matches('-');
                assert!(script.contains(part) || script.contains(fish), "{shell}: {part}");
            }
            for leftover in ["fetch-via", "archive-prefetch", "given subcommand", "subcmd__help__subcmd"] {
                assert!(!script.contains(leftover), "{shell}: {leftover}");
            }
        }
    }
}
