//! On which branch a backup was taken.

use everpoint_core::{BranchFacts, BranchId, LogOffset};
use everpoint_format::manifest::BackupRecord;

use crate::lineage::branch_id;

/// A backup's branch.
pub(super) struct Placed {
    pub(super) branch: BranchId,
    /// In words, if its record does not say it.
    pub(super) derived: Option<String>,
}

/// The branch that the record names. Versions before 0.1.1 could write none when the server did not answer at the end of the
/// backup: then it is the only one that it can be, a first timeline's, or the one whose log holds the backup from start to stop.
///
/// # Errors
/// In words: if that leaves more than one, or none.
pub(super) fn branch_of(record: &BackupRecord, branches: &[BranchFacts]) -> Result<Placed, String> {
    if let Some(branch) = BranchId::parse(&record.branch) {
        return Ok(Placed { branch, derived: None });
    }
    let timeline = record.timeline;
    let placed = |branch: BranchId, why: &str| {
        let derived =
            format!("its record does not say on which branch it was taken: it is on {branch}, {why}");
        Ok(Placed { branch, derived: Some(derived) })
    };
    if timeline == 1 {
        return placed(branch_id(1, &[]), "as a first timeline has no other");
    }
    let candidates: Vec<&BranchFacts> = branches
        .iter()
        .filter(|branch| branch.identity == record.identity && branch.timeline == timeline)
        .collect();
    if let [only] = candidates[..] {
        return placed(only.id.clone(), &format!("the only one of timeline {timeline}"));
    }
    let holding: Vec<&BranchFacts> =
        candidates.iter().copied().filter(|branch| holds(branch, record)).collect();
    if let [only] = holding[..] {
        return placed(only.id.clone(), "the only one whose log holds it from start to stop");
    }
    let count = candidates.len();
    Err(format!(
        "its record does not say on which of the {count} stored branches of timeline {timeline} it was taken, and nothing else \
         tells it"
    ))
}

/// Whether the log of a branch holds everything from the start to the stop of a backup.
fn holds(branch: &BranchFacts, record: &BackupRecord) -> bool {
    let mut end = LogOffset(record.start);
    for piece in &branch.pieces {
        if piece.span.from <= end {
            end = end.max(piece.span.to);
        }
    }
    end >= LogOffset(record.stop)
}

#[cfg(test)]
pub(super) mod tests {
    use everpoint_core::{Digest, PieceFacts, Span, Verdict};

    use super::*;

    fn branch(timeline: u32, history: &[u8], span: (u64, u64)) -> BranchFacts {
        let span = Span { from: LogOffset(span.0), to: LogOffset(span.1) };
        let digest = Digest {
            system: 1,
            timeline,
            log_format: 0,
            span,
            content_hash: [0; 32],
            previous_hash: None,
            verdict: Verdict::Intact,
            first_record: None,
            last_record: None,
            first_previous: None,
            head_unknown: false,
            covered_until: None,
            records: 0,
            events: Vec::new(),
        };
        let pieces = vec![PieceFacts::from(&digest)];
        let id = branch_id(timeline, history);
        BranchFacts {
            identity: 1,
            id,
            timeline,
            segment_size: 1 << 20,
            parent: None,
            pieces,
            covered: None,
            gaps: Vec::new(),
            expired: None,
        }
    }

    /// A record as it is stored.
    pub(in crate::facts) fn record(timeline: u32, branch: &str) -> BackupRecord {
        let text = format!(
            r#"{{"label":"x","cluster":"db","engine":"postgresql","kind":"full","identity":1,"system_identifier":"1",
            "server_version":150000,"server_version_text":"15","timeline":{timeline},"branch":"{branch}","started_at":0,
            "stopped_at":0,"start":100,"stop":200,"page_size":8192,"segment_size":1048576,"method":"files",
            "from_standby":false,"size_bytes":0,"stored_bytes":0,"file_count":0,"pages_total":0,"pages_changed":0,
            "everpoint_version":"0.1.0","duration_micros":0,"encrypted":false,"codec":"raw"}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_record_without_a_branch_is_on_the_one_that_it_can_only_be_on() {
        let (one, other) = (branch(2, b"a", (0, 150)), branch(2, b"b", (50, 250)));
        let stored = [branch(1, b"", (0, 90)), one.clone(), other.clone()];
        let found = branch_of(&record(1, ""), &stored).unwrap();
        assert_eq!(found.branch, branch_id(1, &[]));
        assert!(found.derived.unwrap().contains("does not say"));
        assert_eq!(
            branch_of(&record(2, ""), &stored).unwrap().branch,
            other.id,
            "the one that holds its log"
        );
        let alike = [one.clone(), branch(2, b"b", (300, 400))];
        let why = branch_of(&record(2, ""), &alike).err().unwrap();
        assert!(why.contains("2 stored branches of timeline 2"), "{why}");
        assert_eq!(branch_of(&record(2, ""), &alike[..1]).unwrap().branch, one.id);
        assert!(branch_of(&record(2, ""), &[]).is_err());
        let named = branch_of(&record(2, other.id.as_str()), &stored).unwrap();
        assert_eq!((named.branch, named.derived), (other.id, None));
    }
}
