//! Everpoint: continuous backup and point-in-time recovery. This crate is its edge: command line, configuration,
//! rendering. What it does stands in `everpoint-app`.

mod access;
mod alerts;
mod api;
mod cli;
mod commands;
mod config;
mod fetch;
mod log;
mod metrics;
mod render;
mod run;
mod serve;
mod session;
mod signal;
mod target;
mod trace;
mod zone;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(run::run(std::env::args_os().collect()))
}
