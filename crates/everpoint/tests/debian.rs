//! A cluster whose configuration lies outside of its data directory, as Debian's packages make it: what a backup takes
//! along, what a restore says, and that what it says works when it is typed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;

#[test]
fn placeholder() {
    assert!(fs::exists("/").unwrap());
}
