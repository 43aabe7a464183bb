//! Makes the directory of a world, and says what it is.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use everpoint_testkit::{PgCluster, Random, Scratch};

use super::kind::{Kind, Proof};
use super::stage::{MARKER, OLD_MARKER, SPACES, Stage, command, copy, remove};

/// A directory to restore into, and what belongs to it elsewhere.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) directory: PathBuf,
    pub(crate) proof: Proof,
    /// What else may change when it is restored into: where its pg_wal lies, what it is a link to.
    pub(crate) free: Vec<PathBuf>,
    /// What may not change, though it lies inside.
    pub(crate) kept: Vec<PathBuf>,
    /// Where its own links lead to tablespaces: number of the tablespace and directory.
    pub(crate) links: Vec<(usize, PathBuf)>,
    /// It is the directory that the configuration names.
    pub(crate) production: bool,
    /// Configuration of its own.
    pub(crate) config: Option<PathBuf>,
    /// Undone before the world is removed.
    pub(super) mounts: Vec<PathBuf>,
    pub(super) immutable: Vec<PathBuf>,
    pub(super) locked: Vec<PathBuf>,
    /// A server that runs on it.
    server: Option<PgCluster>,
}

impl Place {
    pub(super) fn new(directory: PathBuf, proof: Proof) -> Self {
        Self {
            directory,
            proof,
            free: Vec::new(),
            kept: Vec::new(),
            links: Vec::new(),
            production: false,
            config: None,
            mounts: Vec::new(),
            immutable: Vec::new(),
            locked: Vec::new(),
            server: None,
        }
    }

    /// Makes a directory of this kind.
    pub(crate) fn make(stage: &Stage, kind: Kind, random: &mut Random, as_root: bool) -> Result<Self> {
        let world = stage.world();
        stage.directory(&world)?;
        stage.file(&world.join("outside/letters/photo.txt"), "nobody has this a second time")?;
        stage.file(&world.join("outside/precious"), "neither this")?;
        let directory = world.join("data");
        let maker = Maker { stage, world, directory };
        match kind {
            Kind::Absent | Kind::Interrupted => Ok(Self::new(maker.directory, Proof::Nothing)),
            Kind::Empty | Kind::LostAndFound | Kind::EmptyOfRoot => maker.empty(kind, as_root),
            Kind::Seed | Kind::InterruptedOver | Kind::SeedWithOwnSpaces | Kind::StalePid => maker.seed(kind),
            Kind::Live | Kind::LiveWithoutPid => maker.live(kind),
            Kind::Production | Kind::ProductionLost | Kind::WalLink => maker.production(kind, random),
            Kind::OtherCluster
            | Kind::OtherMajor
            | Kind::OldMarker
            | Kind::LeftoverOfOtherCluster
            | Kind::LeftoverOfOtherRepository => maker.other(kind),
            Kind::Thesis
            | Kind::Home
            | Kind::ParentOfData
            | Kind::HomeOfProduction
            | Kind::WholeWorld
            | Kind::InsideProduction
            | Kind::InsideSpace
            | Kind::PlainFile => maker.users(kind),
            Kind::LinkToEmpty | Kind::LinkToThesis => maker.linked_directory(kind),
            Kind::Repository | Kind::HoldsRepository | Kind::DataHoldsRepository | Kind::DataHoldsKey => {
                maker.repository(kind)
            }
            Kind::MountBelow | Kind::WalMount | Kind::TargetIsMount => maker.mounted(kind, random),
            Kind::DebianModes | Kind::ReadOnlyBelow | Kind::Immutable | Kind::HardLinks => {
                maker.rights(kind, as_root)
            }
            _ => maker.odd_inside(kind),
        }
    }

    /// Takes back what would keep the world from being removed.
    pub(crate) fn unmake(&mut self) {
        self.server = None;
        // What a restore has removed is not there any more; what stays makes the removal of the world fail.
        for file in &self.immutable {
            let _ = command("chattr", &["-i".as_ref(), file.as_os_str()]);
        }
        for directory in &self.locked {
            let _ = mode(directory, 0o700);
        }
        for mount in &self.mounts {
            let _ = command("umount", &["-l".as_ref(), mount.as_os_str()]);
        }
    }
}

pub(super) struct Maker<'a> {
    pub(super) stage: &'a Stage,
    pub(super) world: PathBuf,
    pub(super) directory: PathBuf,
}

impl Maker<'_> {
    fn empty(&self, kind: Kind, as_root: bool) -> Result<Place> {
        self.stage.directory(&self.directory)?;
        let mut place = Place::new(self.directory.clone(), Proof::Nothing);
        if kind == Kind::LostAndFound {
            place.kept.push(lost_and_found(&self.directory)?);
        }
        if kind == Kind::EmptyOfRoot {
            own_by_root(&self.directory)?;
            if !as_root {
                place.proof = Proof::Impossible;
            }
        }
        Ok(place)
    }

    /// A stopped copy of production as `cp -a` makes it: its links lead to production's own tablespaces.
    pub(super) fn seed(&self, kind: Kind) -> Result<Place> {
        self.stage.copy("production", &self.directory)?;
        let mut place = Place::new(self.directory.clone(), Proof::Own);
        for (number, name) in SPACES.iter().enumerate() {
            let mut leads = self.stage.space(name);
            if matches!(kind, Kind::SeedWithOwnSpaces | Kind::Live | Kind::LiveWithoutPid) {
                leads = self.world.join("spaces").join(name);
                self.stage.directory(&self.world.join("spaces"))?;
                self.stage.copy(name, &leads)?;
                let oid = self.stage.oids.get(number).context("no such tablespace")?;
                let link = self.directory.join("pg_tblspc").join(oid);
                remove(&link)?;
                self.stage.link(&leads, &link)?;
            }
            place.links.push((number, leads));
        }
        if kind == Kind::StalePid {
            // The number of a process that lives, and has nothing to do with it.
            let words = format!("{}\n{}\n1700000000\n1\n", std::process::id(), self.directory.display());
            self.stage.file(&self.directory.join("postmaster.pid"), &words)?;
        }
        Ok(place)
    }

    /// A server runs on it; somebody may have removed its postmaster.pid.
    fn live(&self, kind: Kind) -> Result<Place> {
        let mut place = self.seed(kind)?;
        let home = Scratch::new("trees-live")?;
        let install = self.stage.install().clone();
        let mut server = PgCluster::on_directory(install, home, self.directory.clone())?;
        server.start()?;
        if kind == Kind::LiveWithoutPid {
            remove(&self.directory.join("postmaster.pid"))?;
        }
        place.server = Some(server);
        place.proof = Proof::Foreign;
        Ok(place)
    }

    fn production(&self, kind: Kind, random: &mut Random) -> Result<Place> {
        let directory = self.stage.production().to_owned();
        if kind != Kind::ProductionLost {
            let mut place = Place::new(directory.clone(), Proof::Own);
            if kind == Kind::WalLink {
                place.free.push(self.move_out(&directory, "pg_wal")?);
                place.kept.push(directory.join("pg_wal"));
            }
            let spaces = SPACES.iter().enumerate();
            place.links = spaces.map(|(number, name)| (number, self.stage.space(name))).collect();
            place.production = true;
            return Ok(place);
        }
        remove(&directory)?;
        let mut place = if random.chance(75) {
            Place::new(directory, Proof::Nothing)
        } else {
            // To somewhere else: at the tablespaces' own paths, or refused.
            Place::new(self.directory.clone(), Proof::Odd)
        };
        for name in SPACES {
            let space = self.stage.space(name);
            remove(&space)?;
            match random.below(4) {
                0 => {}
                1 => self.stage.directory(&space)?,
                2 => {
                    self.stage.directory(&space)?;
                    place.kept.push(lost_and_found(&space)?);
                }
                _ => {
                    self.stage.file(&space.join("PG_14_202107181/5/1259"), "a table of a living server")?;
                    place.kept.push(space.join("PG_14_202107181"));
                }
            }
        }
        Ok(place)
    }

    fn other(&self, kind: Kind) -> Result<Place> {
        let (stage, directory) = (self.stage, &self.directory);
        match kind {
            Kind::OtherCluster => {
                stage.copy("other", directory)?;
                stage.copy("other-space", &self.world.join("their-space"))?;
                for link in fs::read_dir(directory.join("pg_tblspc")).context("cannot list links")? {
                    let link = link?.path();
                    remove(&link)?;
                    stage.link(&self.world.join("their-space"), &link)?;
                }
            }
            Kind::OtherMajor => stage.copy("older", directory)?,
            Kind::LeftoverOfOtherCluster => stage.copy("leftover-of-other-cluster", directory)?,
            Kind::LeftoverOfOtherRepository => stage.copy("leftover-of-other-repository", directory)?,
            _ => {
                stage.file(&directory.join(MARKER), OLD_MARKER)?;
                stage.file(&directory.join("base/5/1259"), "somebody's")?;
            }
        }
        Ok(Place::new(directory.clone(), Proof::Foreign))
    }

    fn users(&self, kind: Kind) -> Result<Place> {
        let (stage, directory) = (self.stage, &self.directory);
        let foreign = |directory: &Path| Ok(Place::new(directory.to_owned(), Proof::Foreign));
        match kind {
            Kind::Home => {
                stage.file(&directory.join(".bashrc"), "alias ll='ls -l'\n")?;
                stage.file(&directory.join(".ssh/id_ed25519"), "secret")?;
                stage.file(&directory.join("Documents/a/b/c.txt"), "c")?;
                stage.link(&self.world.join("outside"), &directory.join("Pictures"))?;
                foreign(directory)
            }
            Kind::ParentOfData => {
                stage.directory(directory)?;
                stage.copy("production", &directory.join("main"))?;
                foreign(directory)
            }
            Kind::HomeOfProduction => foreign(stage.source.home().path()),
            Kind::WholeWorld => foreign(&self.world),
            Kind::InsideProduction => foreign(&stage.production().join("new")),
            Kind::InsideSpace => foreign(&stage.space("alpha").join("new")),
            Kind::PlainFile => {
                stage.file(directory, "no directory")?;
                Ok(Place::new(directory.clone(), Proof::Impossible))
            }
            _ => {
                stage.file(&directory.join("thesis.txt"), "three years of work")?;
                foreign(directory)
            }
        }
    }

    fn linked_directory(&self, kind: Kind) -> Result<Place> {
        let real = self.world.join("disk/data");
        self.stage.directory(&real)?;
        self.stage.link(&real, &self.directory)?;
        let mut place = Place::new(self.directory.clone(), Proof::Odd);
        // The name stays a link.
        place.kept.push(self.directory.clone());
        if kind == Kind::LinkToThesis {
            self.stage.file(&real.join("thesis.txt"), "three years of work")?;
            place.proof = Proof::Foreign;
        }
        place.free.push(real);
        Ok(place)
    }

    /// The repository, or what opens it, lies where it is restored to.
    fn repository(&self, kind: Kind) -> Result<Place> {
        let (stage, directory) = (self.stage, &self.directory);
        let mut place = match kind {
            Kind::DataHoldsRepository | Kind::DataHoldsKey => self.seed(Kind::Seed)?,
            _ => Place::new(directory.clone(), Proof::Foreign),
        };
        let (base, repository) = match kind {
            Kind::DataHoldsRepository => (self.world.join("etc"), directory.join("backups")),
            Kind::DataHoldsKey => (directory.join("everpoint"), self.world.join("backups")),
            Kind::Repository => (self.world.join("etc"), directory.clone()),
            _ => (directory.clone(), directory.join("repository")),
        };
        stage.directory(&base)?;
        stage.copy("repository", &repository)?;
        let home = stage.everpoint.home().path();
        copy(&home.join("key"), &base.join("key"))?;
        let text = fs::read_to_string(home.join("everpoint.toml")).context("cannot read a configuration")?;
        let text = text
            .replace(&format!("{}/repository", home.display()), &repository.display().to_string())
            .replace(&format!("{}/key", home.display()), &base.join("key").display().to_string());
        let config = base.join("everpoint.toml");
        stage.file(&config, &text)?;
        place.config = Some(config);
        if kind == Kind::DataHoldsRepository {
            place.proof = Proof::Foreign;
        }
        if kind == Kind::DataHoldsKey {
            place.proof = Proof::Odd;
            place.kept.push(base);
        }
        Ok(place)
    }
}

/// What a new file system has; it is root's where root makes it.
pub(crate) fn lost_and_found(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("lost+found");
    fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
    mode(&path, 0o700)?;
    Ok(path)
}

fn own_by_root(path: &Path) -> Result<()> {
    std::os::unix::fs::chown(path, Some(0), Some(0)).with_context(|| format!("cannot own {}", path.display()))
}

pub(super) fn mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}
