//! Classes of failure, which become exit codes at the edge.

/// What kind of failure it is, for the caller's next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// It failed: exit code 1.
    Failed,
    /// Wrong usage or configuration: exit code 2.
    Usage,
    /// The target can't be reached; nothing was written: exit code 3.
    Shortfall,
    /// Damaged or wrong data, or a wrong key: exit code 4.
    Damaged,
    /// The call budget is spent: exit code 5.
    BudgetSpent,
    /// Already running, or locked: exit code 6.
    Locked,
}

impl FailureClass {
    /// The exit code of the process.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Shortfall => 3,
            Self::Damaged => 4,
            Self::BudgetSpent => 5,
            Self::Locked => 6,
        }
    }
}
