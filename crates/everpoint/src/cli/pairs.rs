//! Arguments that are more than a word.

use everpoint_core::{BranchChoice, BranchId};

pub(super) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it like ticket=4711".to_owned()),
    }
}

pub(super) fn parse_map(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if new.starts_with('/') && (old.starts_with('/') || is_oid(old)) => {
            Ok((old.to_owned(), new.to_owned()))
        }
        _ => {
            Err("write it like /old/directory=/new/directory, both absolute; or oid=/new/directory"
                .to_owned())
        }
    }
}

fn is_oid(text: &str) -> bool {
    text.parse::<u32>().is_ok()
}

/// A timeline number, or the name of a branch.
pub(super) fn parse_branch(text: &str) -> Result<BranchChoice, String> {
    BranchChoice::parse(text)
        .ok_or_else(|| "a timeline number, or the name of a branch as everpoint list shows it".to_owned())
}

/// The name of a branch.
pub(super) fn parse_branch_name(text: &str) -> Result<BranchId, String> {
    BranchId::parse(text).ok_or_else(|| "the name of a branch as everpoint list shows it".to_owned())
}
