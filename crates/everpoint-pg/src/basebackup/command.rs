//! The command, whose syntax changed with 15.

use everpoint_engine::BackupOptions;

use crate::client::quote_literal;

/// Range of MAX_RATE in KiB per second.
const RATES: std::ops::RangeInclusive<u64> = 32..=1_048_576;

/// BASE_BACKUP for a server of this major version.
///
/// The server checks page checksums itself, although we do so, too: it can read a page again that was just being written,
/// we can't. No manifest: we hash everything ourselves. No waiting for the archive: the log is captured beside it.
pub(super) fn base_backup(major: u32, options: &BackupOptions) -> String {
    let label = quote_literal(&options.label);
    let rate = options
        .rate_limit
        .map(|bytes| (bytes / 1024).max(*RATES.start()))
        .filter(|rate| RATES.contains(rate));
    if major >= 15 {
        let checkpoint = if options.fast_checkpoint { "fast" } else { "spread" };
        let rate = rate.map_or_else(String::new, |rate| format!(", MAX_RATE {rate}"));
        format!(
            "BASE_BACKUP (LABEL {label}, PROGRESS, CHECKPOINT '{checkpoint}', WAIT false, MANIFEST 'no', \
             TABLESPACE_MAP true{rate})"
        )
    } else {
        let fast = if options.fast_checkpoint { " FAST" } else { "" };
        let rate = rate.map_or_else(String::new, |rate| format!(" MAX_RATE {rate}"));
        format!("BASE_BACKUP LABEL {label} PROGRESS{fast} NOWAIT{rate} TABLESPACE_MAP MANIFEST 'no'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use everpoint_engine::StopFlag;

    #[test]
    fn options_are_written_in_the_servers_syntax() {
        let mut options = BackupOptions {
            label: "it's".into(),
            workers: 1,
            rate_limit: Some(10 << 20),
            fast_checkpoint: true,
            stop: StopFlag::default(),
        };
        assert_eq!(
            base_backup(14, &options),
            "BASE_BACKUP LABEL 'it''s' PROGRESS FAST NOWAIT MAX_RATE 10240 TABLESPACE_MAP MANIFEST 'no'"
        );
        options.rate_limit = Some(1);
        assert!(base_backup(15, &options).contains("MAX_RATE 32)"));
        options.rate_limit = Some(u64::MAX);
        assert!(!base_backup(15, &options).contains("MAX_RATE"));
    }
}
