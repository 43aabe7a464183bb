//! Where tablespaces are sent: places of all kinds, and mappings right and wrong.

use std::path::{Path, PathBuf};

use anyhow::Result;
use everpoint_testkit::Random;

use super::stage::{SPACES, Stage};
use super::world::lost_and_found;

/// The mappings of a command line, and the places that they name.
#[derive(Debug)]
pub(crate) struct Spaces {
    pub(crate) arguments: Vec<String>,
    pub(crate) words: String,
    /// Each place is nobody's, and each mapping makes sense.
    pub(crate) right: bool,
    /// Places of which this version's directory may change.
    pub(crate) places: Vec<PathBuf>,
    /// What may not change in them.
    pub(crate) kept: Vec<PathBuf>,
    /// Numbers of the tablespaces that have one.
    pub(crate) numbers: Vec<usize>,
}

/// A way to be wrong.
#[derive(Debug, Clone, Copy)]
enum Mistake {
    Misspelt,
    TwoToOne,
    Relative,
    InsideTarget,
    InsideOther,
    OntoFull,
    OntoFile,
    OntoOther,
    OntoProduction,
}

const MISTAKES: [Mistake; 9] = [
    Mistake::Misspelt,
    Mistake::TwoToOne,
    Mistake::Relative,
    Mistake::InsideTarget,
    Mistake::InsideOther,
    Mistake::OntoFull,
    Mistake::OntoFile,
    Mistake::OntoOther,
    Mistake::OntoProduction,
];

impl Spaces {
    pub(crate) fn none() -> Self {
        Self {
            arguments: Vec::new(),
            words: "no --map".to_owned(),
            right: true,
            places: Vec::new(),
            kept: Vec::new(),
            numbers: Vec::new(),
        }
    }

    /// Makes places and mappings for a target at which the third tablespace is there, or is not.
    pub(crate) fn make(
        stage: &Stage,
        random: &mut Random,
        directory: &Path,
        gamma: bool,
        legitimate: bool,
    ) -> Result<Self> {
        match random.below(if legitimate { 82 } else { 100 }) {
            0..55 => Ok(Self::none()),
            55..82 => Self::right(stage, random, gamma),
            _ => {
                let mistake = MISTAKES.get(usize::try_from(random.below(9))?).copied();
                Self::wrong(stage, mistake.unwrap_or(Mistake::Misspelt), directory)
            }
        }
    }

    fn right(stage: &Stage, random: &mut Random, gamma: bool) -> Result<Self> {
        let mut spaces = Self { words: String::new(), ..Self::none() };
        let first = usize::from(random.chance(30));
        let last = if gamma && random.chance(60) { 3 } else { 2 };
        for (number, name) in SPACES.iter().enumerate().take(last).skip(first) {
            let place = stage.world().join("fast").join(name);
            let kind = random.below(4);
            let words = match kind {
                0 => "absent",
                1 => "empty",
                2 => "lost+found",
                _ => "other versions",
            };
            stage.directory(&stage.world().join("fast"))?;
            if kind > 0 {
                stage.directory(&place)?;
            }
            if kind == 2 {
                spaces.kept.push(lost_and_found(&place)?);
            }
            if kind == 3 {
                for version in ["PG_14_202107181", "PG_16_202307071"] {
                    stage.file(&place.join(version).join("5/1259"), "a table of a living server")?;
                    spaces.kept.push(place.join(version));
                }
            }
            let old = stage.space(name).display().to_string();
            let oid = stage.oids.get(number).filter(|_| random.chance(30));
            spaces.map(oid.unwrap_or(&old), &place.display().to_string());
            spaces.words.push_str(&format!("{name} to a place ({words}); "));
            spaces.places.push(place);
            spaces.numbers.push(number);
        }
        Ok(spaces)
    }

    fn wrong(stage: &Stage, mistake: Mistake, directory: &Path) -> Result<Self> {
        let fast = stage.world().join("fast");
        stage.directory(&fast)?;
        let [alpha, beta, _] = SPACES.map(|name| stage.space(name).display().to_string());
        let place = |name: &str| fast.join(name).display().to_string();
        let mut spaces = Self { words: format!("{mistake:?}"), right: false, ..Self::none() };
        match mistake {
            Mistake::Misspelt => {
                spaces.map(&alpha, &place("alpha"));
                spaces.map(&format!("{beta}x"), &place("beta"));
            }
            Mistake::TwoToOne => {
                spaces.map(&alpha, &place("both"));
                spaces.map(&beta, &place("both"));
            }
            Mistake::Relative => spaces.map(&alpha, "fast/alpha"),
            Mistake::InsideTarget => spaces.map(&alpha, &directory.join("fast").display().to_string()),
            Mistake::InsideOther => {
                spaces.map(&alpha, &place("alpha"));
                spaces.map(&beta, &place("alpha/beta"));
            }
            Mistake::OntoFull => {
                stage.file(&fast.join("alpha/thesis.txt"), "three years of work")?;
                spaces.map(&alpha, &place("alpha"));
            }
            Mistake::OntoFile => {
                stage.file(&fast.join("alpha"), "no directory")?;
                spaces.map(&alpha, &place("alpha"));
            }
            Mistake::OntoOther => {
                stage.copy("other-space", &fast.join("alpha"))?;
                spaces.map(&alpha, &place("alpha"));
            }
            Mistake::OntoProduction => {
                // The place of beta, while alpha is sent there.
                spaces.map(&alpha, &beta);
            }
        }
        Ok(spaces)
    }

    fn map(&mut self, old: &str, new: &str) {
        self.arguments.extend(["--map".to_owned(), format!("{old}={new}")]);
    }
}
