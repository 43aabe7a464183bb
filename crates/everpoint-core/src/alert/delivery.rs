//! How packages stand, from the newest call and the newest run.

use super::{BudgetState, UploadHealth};
use crate::position::Micros;

/// The newest call of a provider that sent a package, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastCall {
    /// When that was known.
    pub at: Micros,
    /// Why it did not arrive; `None`: it did.
    pub failed: Option<String>,
}

/// The newest run of the package's job that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRun {
    /// When.
    pub at: Micros,
    /// Why it failed; `None`: it did not.
    pub failed: Option<String>,
    /// It failed because no call was left.
    pub refused: bool,
}

/// How deliveries to a provider stand: the newest of both tells. `None`: nothing was tried yet.
#[must_use]
pub fn delivery(call: Option<&LastCall>, run: Option<&LastRun>) -> Option<UploadHealth> {
    // That no call was left is no failed delivery: `budget_state` tells it.
    let run = run.filter(|run| !run.refused);
    let failed = match (call, run) {
        (Some(call), Some(run)) if run.at >= call.at => &run.failed,
        (Some(call), _) => &call.failed,
        (None, Some(run)) => &run.failed,
        (None, None) => return None,
    };
    Some(failed.clone().map_or(UploadHealth::Arrived, UploadHealth::Failed))
}

/// How the budget of a provider stands. `overdue`: since when its package should have been on its way, in words.
#[must_use]
pub fn budget_state(call: Option<&LastCall>, run: Option<&LastRun>, overdue: Option<String>) -> BudgetState {
    let newer = |run: &LastRun| call.is_none_or(|call| call.failed.is_some() || run.at > call.at);
    if let Some(run) = run.filter(|run| run.refused && newer(run)) {
        return BudgetState::Refused(run.failed.clone().unwrap_or_default());
    }
    overdue.map_or(BudgetState::Fine, BudgetState::Unspent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(at: i64, failed: Option<&str>) -> LastCall {
        LastCall { at: Micros(at), failed: failed.map(str::to_owned) }
    }

    fn run(at: i64, failed: Option<&str>, refused: bool) -> LastRun {
        LastRun { at: Micros(at), failed: failed.map(str::to_owned), refused }
    }

    #[test]
    fn the_newest_of_call_and_run_tells() {
        let failed = |why: &str| Some(UploadHealth::Failed(why.to_owned()));
        assert_eq!(delivery(None, None), None);
        assert_eq!(delivery(Some(&call(5, None)), None), Some(UploadHealth::Arrived));
        assert_eq!(delivery(Some(&call(5, Some("500"))), Some(&run(6, Some("500"), false))), failed("500"));
        assert_eq!(delivery(None, Some(&run(6, Some("no disk"), false))), failed("no disk"));
        let by_hand = delivery(Some(&call(9, None)), Some(&run(6, Some("500"), false)));
        assert_eq!(by_hand, Some(UploadHealth::Arrived), "sent by hand since");
        assert_eq!(
            delivery(Some(&call(5, None)), Some(&run(6, Some("spent"), true))),
            Some(UploadHealth::Arrived)
        );
    }

    #[test]
    fn a_refusal_and_a_day_without_a_call() {
        let refused = BudgetState::Refused("spent".to_owned());
        assert_eq!(budget_state(Some(&call(5, None)), Some(&run(6, Some("spent"), true)), None), refused);
        assert_eq!(
            budget_state(Some(&call(7, None)), Some(&run(6, Some("spent"), true)), None),
            BudgetState::Fine
        );
        let late = Some("due at 03:00".to_owned());
        assert_eq!(budget_state(None, None, late), BudgetState::Unspent("due at 03:00".to_owned()));
        assert_eq!(budget_state(None, None, None), BudgetState::Fine);
    }
}
