//! Work that panics is work that failed: what it held is given back, and whoever waits for it is told.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use everpoint_core::FailureClass;

use crate::AppError;

/// Does it; a panic becomes an error of code `internal`.
///
/// # Errors
/// As `work`, and if it panics.
pub fn caught<T>(
    operation: &str,
    object: &str,
    work: impl FnOnce() -> Result<T, AppError>,
) -> Result<T, AppError> {
    // Whatever the work shares with others is behind locks, which pass on what was written whole.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(died(operation, object, panic.as_ref())))
}

/// The error of a thread that panicked.
#[must_use]
pub fn died(operation: &str, object: &str, panic: &(dyn Any + Send)) -> AppError {
    let said = panic.downcast_ref::<&str>().copied();
    let said =
        said.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no word of why");
    let message = format!("a mistake in Everpoint ended it: {said}");
    AppError::new("internal", FailureClass::Failed, operation, object, message)
        .hint("it is begun anew by itself where that is of use; please report this message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure_that_says_what_and_on_what() {
        assert_eq!(caught("count", "one", || Ok(1)).unwrap(), 1);
        let error = caught::<()>("count", "sheep", || panic!("asleep after {}", 7)).unwrap_err();
        assert_eq!(error.code, "internal");
        let said = "cannot count sheep: a mistake in Everpoint ended it: asleep after 7";
        assert_eq!(error.to_string(), said);
        let error = caught::<()>("count", "sheep", || std::panic::panic_any(7)).unwrap_err();
        assert!(error.to_string().ends_with("no word of why"), "{error}");
    }
}
