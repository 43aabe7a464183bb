//! `man`: manual pages, made from the same description as `--help`.

use std::path::Path;

use clap::CommandFactory as _;
use everpoint_app::AppError;

use crate::cli::Cli;
use crate::render::Done;

pub(crate) fn run(directory: Option<&Path>) -> Result<Done, AppError> {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
        rendered.map_err(|error| AppError::io("make", Path::new("the manual page"), error))?;
        return Ok(Done::plain(String::from_utf8_lossy(&page).into_owned()));
    };
    let wrap = |error| AppError::io("write manual pages into", directory, error);
    std::fs::create_dir_all(directory).map_err(wrap)?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(wrap)?;
    Ok(Done::plain(format!("manual pages are in {}", directory.display())))
}
