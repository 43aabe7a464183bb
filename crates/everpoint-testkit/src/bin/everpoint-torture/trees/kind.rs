//! What a directory may be that somebody names at 3 a.m.

/// What proves that a directory may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Nothing of anybody lies there.
    Nothing,
    /// It is a data directory of this cluster.
    Own,
    /// A restore from this repository was killed there.
    Unfinished,
    /// Nothing does.
    Foreign,
    /// It is no directory at all, or this user can't write there.
    Impossible,
    /// It may be refused or done; both have to be done well.
    Odd,
}

/// A kind of directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Absent,
    Empty,
    LostAndFound,
    EmptyOfRoot,
    Thesis,
    Home,
    ParentOfData,
    HomeOfProduction,
    WholeWorld,
    Seed,
    SeedWithOwnSpaces,
    Production,
    ProductionLost,
    StalePid,
    OtherCluster,
    OtherMajor,
    Interrupted,
    InterruptedOver,
    OldMarker,
    LeftoverOfOtherCluster,
    LeftoverOfOtherRepository,
    LinkToEmpty,
    LinkToThesis,
    InsideProduction,
    InsideSpace,
    Repository,
    HoldsRepository,
    DataHoldsRepository,
    DataHoldsKey,
    PlainFile,
    DebianModes,
    ReadOnlyBelow,
    Immutable,
    MountBelow,
    WalMount,
    TargetIsMount,
    HardLinks,
    LinkedFile,
    LinkedBase,
    LinkedLog,
    WalLink,
    WalLinkOfCopy,
    WalDangling,
    FifoBeside,
    FifoInTheWay,
    DirectoryInTheWay,
    Live,
    LiveWithoutPid,
}

/// All kinds. Every third is legitimate.
const KINDS: [Kind; 48] = {
    use Kind::*;
    [
        Absent,
        Thesis,
        OtherCluster,
        Seed,
        ParentOfData,
        LeftoverOfOtherCluster,
        Production,
        Repository,
        MountBelow,
        HardLinks,
        OtherMajor,
        LinkedFile,
        Interrupted,
        OldMarker,
        DataHoldsRepository,
        WalLink,
        Home,
        Immutable,
        ProductionLost,
        WalMount,
        Live,
        LostAndFound,
        WholeWorld,
        WalDangling,
        SeedWithOwnSpaces,
        LinkToThesis,
        TargetIsMount,
        DebianModes,
        HomeOfProduction,
        LeftoverOfOtherRepository,
        InterruptedOver,
        LinkedBase,
        EmptyOfRoot,
        Empty,
        PlainFile,
        ReadOnlyBelow,
        LinkedLog,
        InsideProduction,
        DirectoryInTheWay,
        StalePid,
        FifoInTheWay,
        LiveWithoutPid,
        FifoBeside,
        HoldsRepository,
        LinkToEmpty,
        WalLinkOfCopy,
        DataHoldsKey,
        InsideSpace,
    ]
};

impl Kind {
    /// The kind of a case: the kinds take turns.
    pub(crate) fn of(case: u64) -> Self {
        let length = u64::try_from(KINDS.len()).unwrap_or(1);
        let index = usize::try_from(case % length).unwrap_or(0);
        KINDS.get(index).copied().unwrap_or(Self::Absent)
    }

    /// Whether the world of this case has to be one that must be restored, its command line included.
    pub(crate) const fn is_legitimate(case: u64) -> bool {
        case.is_multiple_of(3)
    }

    /// How many there are.
    pub(crate) const fn count() -> usize {
        KINDS.len()
    }

    /// Whether only root, in mounts of its own, can make it.
    pub(crate) const fn needs_mounts(self) -> bool {
        matches!(self, Self::MountBelow | Self::WalMount | Self::TargetIsMount)
    }

    /// Whether only root can make it.
    pub(crate) const fn needs_root(self) -> bool {
        self.needs_mounts() || matches!(self, Self::EmptyOfRoot | Self::Immutable)
    }
}
