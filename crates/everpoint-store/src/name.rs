//! What may be the name of an object.

use crate::{StoreError, StoreErrorKind};

/// Longest name in bytes, and longest part between slashes: what every kind of store can take.
const MAX_NAME: usize = 900;
const MAX_PART: usize = 200;

/// Whether `part` may stand between the slashes of a name.
pub(crate) fn is_part(part: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._=+-".contains(&byte);
    !part.is_empty() && part.len() <= MAX_PART && part != "." && part != ".." && part.bytes().all(allowed)
}

/// Checks an object name: parts of `[A-Za-z0-9._=+-]`, at most 200 bytes each, never `.` or `..`, with single slashes
/// between; at most 900 bytes in all.
///
/// # Errors
/// `BadName` if it can't be one.
pub fn check_name(operation: &'static str, name: &str) -> Result<(), StoreError> {
    if name.len() <= MAX_NAME && name.split('/').all(is_part) {
        return Ok(());
    }
    Err(bad(operation, name))
}

/// Checks a prefix: empty, or a name followed by a slash.
pub(crate) fn check_prefix(operation: &'static str, prefix: &str) -> Result<(), StoreError> {
    match prefix.strip_suffix('/') {
        None if prefix.is_empty() => Ok(()),
        Some(name) => check_name(operation, name),
        None => Err(bad(operation, prefix)),
    }
}

fn bad(operation: &'static str, name: &str) -> StoreError {
    let shown: String = name.chars().take(MAX_PART).flat_map(char::escape_debug).collect();
    StoreError::new(operation, format!("\"{shown}\""), StoreErrorKind::BadName)
        .cause("it can't be the name of an object: only letters, digits and . _ = + - between single slashes")
}
