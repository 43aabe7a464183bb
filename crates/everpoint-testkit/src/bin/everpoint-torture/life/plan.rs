//! What a sequence does: its seed alone decides.

use clap::ValueEnum;
use everpoint_testkit::Random;

/// What captures production's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// `everpoint capture`
    Capture,
    /// `everpoint serve`
    Serve,
    /// `archive_command`
    Archive,
    /// `everpoint capture` and `archive_command`
    Both,
}

impl Mode {
    /// Whether production has an archive_command.
    pub(super) fn archives(self) -> bool {
        matches!(self, Self::Archive | Self::Both)
    }

    /// What is run beside production, if anything is.
    pub(super) fn arguments(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Capture | Self::Both => Some(&["capture", super::world::CLUSTER]),
            Self::Serve => Some(&["serve"]),
            Self::Archive => None,
        }
    }
}

/// One step. Where it is not possible as it stands, because a restore took away what it needs, it does the nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Step {
    Backup,
    InPlaceLatest,
    InPlaceMoment,
    InPlaceBeforeFork,
    InPlaceBeforeTablespace,
    InPlaceForward,
    InPlaceTwice,
    Copy,
    CopyRefreshed,
    SeededCopy,
    Failover,
    FailoverAfterCrash,
    NewStandby,
    Adopt,
    TablespaceCreated,
    TablespaceFilled,
    TablespaceDropped,
    Upgrade,
    SwitchLog,
    Checkpoint,
    Crash,
}

/// How often each is drawn.
const WEIGHTS: [(Step, u64); 21] = [
    (Step::Backup, 8),
    (Step::InPlaceLatest, 6),
    (Step::InPlaceMoment, 12),
    (Step::InPlaceBeforeFork, 6),
    (Step::InPlaceBeforeTablespace, 6),
    (Step::InPlaceForward, 7),
    (Step::InPlaceTwice, 7),
    (Step::Copy, 8),
    (Step::CopyRefreshed, 8),
    (Step::SeededCopy, 7),
    (Step::Failover, 7),
    (Step::FailoverAfterCrash, 4),
    (Step::NewStandby, 6),
    (Step::Adopt, 5),
    (Step::TablespaceCreated, 10),
    (Step::TablespaceFilled, 5),
    (Step::TablespaceDropped, 5),
    (Step::Upgrade, 4),
    (Step::SwitchLog, 2),
    (Step::Checkpoint, 2),
    (Step::Crash, 4),
];

/// A sequence.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) version: u32,
    /// What an upgrade leads to.
    pub(super) upgrade: u32,
    pub(super) mode: Mode,
    pub(super) steps: Vec<Step>,
}

impl Plan {
    /// What a seed stands for, on one of these versions.
    pub(super) fn new(seed: u64, versions: &[u32]) -> Self {
        let mut random = Random::new(seed);
        let place = usize::try_from(random.below(versions.len() as u64)).unwrap_or(0);
        let version = versions.get(place).copied().unwrap_or(15);
        let mode = match random.below(8) {
            0..3 => Mode::Capture,
            3..5 => Mode::Serve,
            5..7 => Mode::Archive,
            _ => Mode::Both,
        };
        let count = random.between(4, 8);
        let mut steps = Vec::new();
        while i64::try_from(steps.len()).is_ok_and(|len| len < count) {
            let step = draw(&mut random);
            let upgrades = step == Step::Upgrade && (![14, 15].contains(&version) || steps.contains(&step));
            if !upgrades {
                steps.push(step);
            }
        }
        Self { version, upgrade: version + 2, mode, steps }
    }
}

fn draw(random: &mut Random) -> Step {
    let mut left = random.below(WEIGHTS.iter().map(|(_, weight)| weight).sum());
    for (step, weight) in WEIGHTS {
        if left < weight {
            return step;
        }
        left -= weight;
    }
    Step::Backup
}
