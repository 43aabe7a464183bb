//! From arguments to an exit code.

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};

use clap::Parser as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use everpoint_app::AppError;
use everpoint_core::FailureClass;

use crate::cli::{Cli, Command};
use crate::commands::{self, archive_get};
use crate::render::{self, Done, error};
use crate::session::Session;

/// Exit code of a panic, as Rust has it.
const PANICKED: u8 = 101;

/// Runs the program.
pub(crate) fn run(arguments: Vec<OsString>) -> u8 {
    // PostgreSQL takes any code below 126 of a restore_command as "that file does not exist" and would end its
    // recovery there. So nothing that goes wrong around archive-get, not even a panic, may end with such a code.
    let fetching = archive_get::is_asked_for(&arguments);
    let fail = |code: u8| if fetching { archive_get::uncertain() } else { code };
    match catch_unwind(AssertUnwindSafe(|| parsed(arguments))) {
        Ok(Ok(code)) => code,
        Ok(Err(code)) => fail(code),
        Err(_) => fail(PANICKED),
    }
}

/// `Err` holds the code of something that went wrong.
fn parsed(arguments: Vec<OsString>) -> Result<u8, u8> {
    let json = arguments.iter().any(|argument| argument == "--json");
    let cli = Cli::try_parse_from(arguments).map_err(|error| usage(&error, json));
    let cli = match cli {
        Ok(cli) => cli,
        Err(0) => return Ok(0),
        Err(code) => return Err(code),
    };
    crate::log::begin(cli.global.verbose);
    let json = cli.global.json;
    let session = Session::new(cli.global);
    match dispatch(&session, cli.command) {
        Ok(done) => {
            done.show(json);
            Ok(done.code)
        }
        Err(failure) => {
            show(&failure, json);
            Err(failure.class.exit_code())
        }
    }
}

fn dispatch(session: &Session, command: Command) -> Result<Done, AppError> {
    match command {
        Command::Protect(arguments) => commands::protect::run(session, &arguments),
        Command::Init(arguments) => commands::init::run(session, &arguments),
        Command::Check(arguments) => commands::check::run(session, &arguments),
        Command::Capture(arguments) => commands::capture::run(session, &arguments),
        Command::ArchivePush(arguments) => commands::archive_push::run(session, &arguments),
        Command::ArchiveGet(arguments) => archive_get::run(session, &arguments),
        Command::ArchivePrefetch(arguments) => commands::archive_prefetch::run(session, arguments),
        Command::Backup(arguments) => commands::backup::run(session, arguments),
        Command::Bundle(arguments) => commands::bundle::run(session, &arguments),
        Command::Expire(arguments) => commands::expire::run(session, &arguments),
        Command::Hold(arguments) => commands::hold::run(session, &arguments),
        Command::List(arguments) => commands::list::run(session, &arguments),
        Command::Status(arguments) => commands::status::run(session, &arguments),
        Command::Restore(arguments) => commands::restore::run(session, arguments),
        Command::Serve => crate::serve::run(session),
        Command::Adopt(arguments) => commands::adopt::run(session, &arguments),
        Command::Forget(arguments) => commands::forget::run(session, &arguments),
        Command::RestorePoint(arguments) => commands::restore_point::run(session, &arguments),
        Command::Offsite(arguments) => commands::offsite::run(session, &arguments),
        Command::Key(arguments) => commands::key::run(session, &arguments),
        Command::MockOffsite(arguments) => commands::mock_offsite::run(arguments),
        Command::Completion { shell } => commands::completion::run(shell),
        Command::Help { command } => commands::help::run(&command),
        Command::Man { directory } => commands::man::run(directory.as_deref()),
    }
}

/// Shows what clap says; help and version go to standard output and are no error.
fn usage(problem: &clap::Error, json: bool) -> u8 {
    let asked = matches!(problem.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if let Some(message) = unrepeated(problem) {
        let failure = AppError::new("usage", FailureClass::Usage, "understand", "the command line", message);
        show(&failure.hint("put quotation marks around what holds spaces; see: everpoint --help"), json);
    } else if asked || !json {
        // A reader that went away is no error.
        let _ = problem.print();
    } else {
        let text = problem.render().to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let failure = AppError::new("usage", FailureClass::Usage, "understand", "the command line", message)
            .hint("see: everpoint --help");
        show(&failure, true);
    }
    if asked { 0 } else { FailureClass::Usage.exit_code() }
}

/// An argument at a wrong place is not repeated where it may be an address with a password, or a piece of one that was not
/// quoted: then this is said in place of what clap says.
fn unrepeated(problem: &clap::Error) -> Option<String> {
    let value = |kind| match problem.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '-') && text.len() <= 24;
    match problem.kind() {
        ErrorKind::InvalidSubcommand if !value(ContextKind::InvalidSubcommand).is_some_and(plain) => {
            Some("there is no such command".to_owned())
        }
        ErrorKind::UnknownArgument
            if !value(ContextKind::InvalidArg).is_some_and(|text| text.starts_with("--") && plain(text)) =>
        {
            Some("there is an argument that this command does not take".to_owned())
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation
            if value(ContextKind::InvalidValue).is_some_and(|text| {
                text.contains('@') || text.contains("://") || text.contains("password")
            }) =>
        {
            Some(format!("{} can't have that value", value(ContextKind::InvalidArg).unwrap_or("an argument")))
        }
        _ => None,
    }
}

fn show(failure: &AppError, json: bool) {
    if json {
        render::line(&mut std::io::stdout(), &error::json(failure).to_string());
    } else {
        render::note(&error::text(failure));
    }
}
