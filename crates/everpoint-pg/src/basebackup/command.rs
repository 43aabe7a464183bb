//! The command, whose syntax changed with 15.

use everpoint_core::name::unescape;
use everpoint_engine::{BackupOptions, TablespaceLink};

use crate::client::quote_literal;

/// Range of MAX_RATE in KiB per second.
const RATES: std::ops::RangeInclusive<u64> = 32..=1_048_576;

/// BASE_BACKUP for a server of this major version.
///
/// The server checks page checksums itself, although we do so, too: it can read a page again that was just being written,
/// we can't. No manifest: we hash everything ourselves. No waiting for the archive: the log is captured beside it.
/// [`makes_map`] says when the server's own tablespace map is not asked for.
pub(super) fn base_backup(major: u32, options: &BackupOptions) -> String {
    let label = quote_literal(&options.label);
    let rate = options
        .rate_limit
        .map(|bytes| (bytes / 1024).max(*RATES.start()))
        .filter(|rate| RATES.contains(rate));
    if major >= 15 {
        let checkpoint = if options.fast_checkpoint { "fast" } else { "spread" };
        let rate = rate.map_or_else(String::new, |rate| format!(", MAX_RATE {rate}"));
        let map = !makes_map(major);
        format!(
            "BASE_BACKUP (LABEL {label}, PROGRESS, CHECKPOINT '{checkpoint}', WAIT false, MANIFEST 'no', \
             TABLESPACE_MAP {map}{rate})"
        )
    } else {
        let fast = if options.fast_checkpoint { " FAST" } else { "" };
        let rate = rate.map_or_else(String::new, |rate| format!(" MAX_RATE {rate}"));
        let map = if makes_map(major) { "" } else { " TABLESPACE_MAP" };
        format!("BASE_BACKUP LABEL {label} PROGRESS{fast} NOWAIT{rate}{map} MANIFEST 'no'")
    }
}

/// Whether we write `tablespace_map` ourselves. A server up to version 15 that is asked for it leaves out everything below
/// `pg_tblspc`, also the tablespaces that lie there themselves (in-place), and tells of them in no other way.
pub(super) const fn makes_map(major: u32) -> bool {
    major <= 15
}

/// The content of `tablespace_map`: oid and path of each tablespace outside the data directory.
pub(super) fn tablespace_map<'a>(links: impl Iterator<Item = &'a TablespaceLink>) -> Vec<u8> {
    let mut map = Vec::new();
    for link in links {
        let Some(path) = &link.path else { continue };
        map.extend(format!("{} ", link.oid).bytes());
        for byte in unescape(path).iter().copied() {
            if matches!(byte, b'\n' | b'\r' | b'\\') {
                map.push(b'\\');
            }
            map.push(byte);
        }
        map.push(b'\n');
    }
    map
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
            leave_out: Vec::new(),
            stop: StopFlag::default(),
        };
        assert_eq!(
            base_backup(14, &options),
            "BASE_BACKUP LABEL 'it''s' PROGRESS FAST NOWAIT MAX_RATE 10240 MANIFEST 'no'"
        );
        options.rate_limit = Some(1);
        assert!(base_backup(15, &options).contains("MAX_RATE 32)"));
        options.rate_limit = Some(u64::MAX);
        assert!(!base_backup(15, &options).contains("MAX_RATE"));
    }

    #[test]
    fn odd_paths_are_escaped_in_a_tablespace_map() {
        let link = |oid, path: Option<&str>| TablespaceLink { oid, path: path.map(str::to_owned) };
        let links = [link(7, Some("/a\nb\\c")), link(8, None), link(9, Some("/d\\xe9"))];
        assert_eq!(tablespace_map(links.iter()), b"7 /a\\\nb\\\\c\n9 /d\xe9\n");
    }
}
