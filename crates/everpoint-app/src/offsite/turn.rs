//! Whether a package that a schedule wants goes out now.

use everpoint_core::budget::{PackageTurn, package_turn};
use everpoint_core::{BudgetPolicy, Micros};
use everpoint_repo::{OffsiteCall, OffsiteLedger};

use super::Clock;
use crate::AppError;

/// Looks into the ledger what is done about a package that is wanted since `wanted`; nobody is called.
///
/// # Errors
/// If the ledger can't be read.
pub fn turn(
    ledger: &OffsiteLedger,
    policy: &BudgetPolicy,
    wanted: Micros,
    clock: &dyn Clock,
) -> Result<PackageTurn, AppError> {
    let calls = ledger.calls()?;
    let entries: Vec<_> = calls.iter().filter_map(OffsiteCall::entry).collect();
    let sent = |call: &OffsiteCall| call.sending.as_ref().map(|sending| Micros(sending.clock.wall));
    let arrived: Vec<Micros> = calls.iter().filter(|call| call.arrived()).filter_map(sent).collect();
    Ok(package_turn(&entries, policy, &arrived, wanted, &clock.read()))
}
