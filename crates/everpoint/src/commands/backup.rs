//! `backup`: takes a backup.

use std::collections::BTreeMap;

use everpoint_app::backup::{self, BackupMode, BackupReport, BackupRequest, DEFAULT_CODEC};
use everpoint_app::{AppError, health, twin};
use everpoint_core::FailureClass;
use everpoint_engine::StopFlag;
use everpoint_format::codec::Codec;

use crate::cli::Backup;
use crate::config::{Checkpoint, Compression};
use crate::render::Done;
use crate::render::number::{seconds, size};
use crate::session::{Opened, Session};
use crate::signal::stop_flag;

/// Damaged pages that are shown one by one.
const SHOWN: usize = 20;

pub(crate) fn run(session: &Session, arguments: Backup) -> Result<Done, AppError> {
    let opened = session.cluster(&arguments.cluster)?;
    twin::refuse(&opened.context, &opened.others())?;
    let mode = match (arguments.full, arguments.incremental) {
        (true, _) => BackupMode::Full,
        (_, true) => BackupMode::Incremental,
        _ => BackupMode::Auto,
    };
    if !arguments.skip_checks {
        health::run(&opened.context)?.iter().for_each(|told| session.warn(told));
    }
    let mut request = request(session, &opened, mode, stop_flag());
    request.labels = arguments.label.into_iter().collect();
    request.fast_checkpoint &= !arguments.spread_checkpoint;
    let report = {
        let progress = session.progress();
        backup::run(&opened.context, &request, &progress)?
    };
    let code = if report.status == "ok" { 0 } else { FailureClass::Damaged.exit_code() };
    Ok(Done::new(&report, text(&report)).code(code))
}

/// A request as the configuration wants it.
pub(crate) fn request(session: &Session, opened: &Opened, mode: BackupMode, stop: StopFlag) -> BackupRequest {
    BackupRequest {
        mode,
        labels: BTreeMap::new(),
        workers: opened.context.workers,
        rate_limit: session.limits().read_rate,
        codec: match opened.compression {
            Compression::Auto => DEFAULT_CODEC,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd(level) => Codec::Zstd(level),
            Compression::None => Codec::Raw,
        },
        fast_checkpoint: opened.checkpoint == Checkpoint::Fast,
        slot: opened.slot.clone(),
        stop,
    }
}

/// A backup's report for people.
pub(crate) fn text(report: &BackupReport) -> String {
    let mut out = format!(
        "{} backup {}: {} in {} files, {} stored, in {}\nfrom {} to {}, timeline {}",
        report.kind,
        report.label,
        size(report.size_bytes),
        report.files,
        size(report.stored_bytes),
        seconds(report.seconds),
        report.start_lsn,
        report.stop_lsn,
        report.timeline
    );
    for warning in &report.warnings {
        out.push_str(&format!("\nwarning: {warning}"));
    }
    if !report.damaged.is_empty() {
        let number = report.damaged.len();
        out.push_str(&format!("\n{number} damaged pages on the server; the backup is kept and marked:"));
        for page in report.damaged.iter().take(SHOWN) {
            out.push_str(&format!("\n  {} block {}", page.file, page.block));
        }
        if number > SHOWN {
            out.push_str("\n  … (all of them with --json)");
        }
    }
    out
}
