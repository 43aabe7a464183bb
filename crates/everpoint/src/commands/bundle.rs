//! `bundle`: joins the log of each hour into one object.

use std::io::Write as _;
use std::path::Path;

use everpoint_app::AppError;
use everpoint_app::bundle::{self, BundleLine, BundleReport, BundleRequest};
use everpoint_app::restore_points::RestorePointLine;
use everpoint_core::FailureClass;
use everpoint_engine::beside;
use serde::Serialize;

use crate::cli::Bundle;
use crate::render::Done;
use crate::render::number::size;
use crate::render::table::Table;
use crate::render::time::local;
use crate::session::Session;
use crate::signal::stop_flag;

pub(crate) fn run(session: &Session, arguments: &Bundle) -> Result<Done, AppError> {
    let opened = session.cluster(&arguments.cluster)?;
    let request =
        BundleRequest { close: arguments.close, zone: session.zone(), list: true, stop: stop_flag() };
    let report = {
        let progress = session.progress();
        bundle::run(&opened.context, &request, &progress)?
    };
    if let Some(file) = &arguments.restore_points {
        write_points(file, &report.restore_points)?;
    }
    let code = if report.left.is_empty() { 0 } else { FailureClass::Damaged.exit_code() };
    Ok(Done::new(&report, text(&report)).code(code))
}

/// The shape of `restore-points.json`.
#[derive(Serialize)]
struct Points<'a> {
    restore_points: &'a [RestorePointLine],
}

fn write_points(file: &Path, points: &[RestorePointLine]) -> Result<(), AppError> {
    let fail = |error| AppError::io("write", file, error);
    let text = serde_json::to_string_pretty(&Points { restore_points: points })
        .map_err(|error| fail(error.into()))?;
    let mut made = beside::open_or_create(file, 0o644).map_err(fail)?;
    made.set_len(0).and_then(|()| made.write_all((text + "\n").as_bytes())).map_err(fail)
}

fn text(report: &BundleReport) -> String {
    let mut out = String::new();
    if report.made.is_empty() {
        out.push_str("nothing to bundle: hours that still run are left alone unless --close is given\n");
    } else {
        let number = report.made.len();
        let saved = report.replaced_bytes.saturating_sub(report.stored_bytes) * 100;
        out.push_str(&format!(
            "{number} {} made: {} instead of {} ({}% less)\n",
            if number == 1 { "bundle" } else { "bundles" },
            size(report.stored_bytes),
            size(report.replaced_bytes),
            saved.checked_div(report.replaced_bytes).unwrap_or_default()
        ));
    }
    report.left.iter().for_each(|left| out.push_str(&format!("left as it is: {left}\n")));
    let mut bundles =
        Table::new(&["hour", "timeline", "from", "to", "segments", "size", "stored"], &[1, 4, 5, 6]);
    report.bundles.iter().for_each(|bundle| bundles.row(row(bundle)));
    if !bundles.is_empty() {
        out.push_str(&bundles.render(2));
    }
    for point in &report.restore_points {
        out.push_str(&format!("  restore point {}: {} ({})\n", point.name, local(&point.time), point.lsn));
    }
    out
}

fn row(bundle: &BundleLine) -> Vec<String> {
    vec![
        bundle.hour.clone(),
        bundle.timeline.to_string(),
        bundle.from_lsn.clone(),
        bundle.to_lsn.clone(),
        bundle.segments.to_string(),
        size(bundle.raw_bytes),
        size(bundle.stored_bytes),
    ]
}
