//! `mock-offsite`: a real HTTP server that takes a few calls a day, to try the daily package against.

use std::path::PathBuf;
use std::time::Duration;

use everpoint_app::AppError;
use everpoint_core::FailureClass;
use everpoint_offsite::mock::{MockOptions, MockPeriod, MockServer};
use jiff::tz::TimeZone;

use crate::cli::MockOffsite;
use crate::render::{Done, note};
use crate::signal;

/// How long a signal may wait to be noticed.
const POLL: Duration = Duration::from_millis(100);

pub(crate) fn run(arguments: MockOffsite) -> Result<Done, AppError> {
    let dir = arguments.dir.clone().unwrap_or_else(|| PathBuf::from("mock-offsite"));
    let server = MockServer::start(&options(arguments, &dir)).map_err(|error| {
        AppError::new("offsite.mock", FailureClass::Failed, "start", "the mock", error.to_string())
            .hint("another --listen address or --dir may be free and writable")
    })?;
    note(&format!(
        "listening on http://{}; what arrives is kept in {}; counts at /stats",
        server.address(),
        dir.display()
    ));
    let stop = signal::stop_flag();
    while !stop.is_set() {
        std::thread::sleep(POLL);
    }
    let stats = server.stats();
    server.stop();
    let text = format!(
        "{} uploads, {} refused, at most {} in a day and {} within 24 h",
        stats.uploads.len(),
        stats.refused,
        stats.most_in_a_day,
        stats.most_in_24h
    );
    Ok(Done::new(&stats, text))
}

fn options(arguments: MockOffsite, dir: &std::path::Path) -> MockOptions {
    let zone = arguments.zone.unwrap_or(TimeZone::UTC);
    MockOptions {
        listen: arguments.listen,
        dir: dir.to_owned(),
        calls: arguments.calls,
        period: if arguments.rolling { MockPeriod::Rolling } else { MockPeriod::Day(zone) },
        latency: Duration::from_millis(arguments.latency),
        failure_rate: arguments.failure_rate,
        storage_limit: arguments.storage_limit,
        seed: arguments.seed,
    }
}
