//! Data directories of this cluster in which something is not what PostgreSQL made: mounts, links, rights, odd files.

use std::ffi::OsStr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use everpoint_testkit::Random;

use super::kind::{Kind, Proof};
use super::stage::{command, copy, remove};
use super::world::{Maker, Place, lost_and_found, mode};

/// A file that every image has.
const FILE: &str = "base/5/1259";

impl Maker<'_> {
    pub(super) fn mounted(&self, kind: Kind, random: &mut Random) -> Result<Place> {
        let disk = self.world.join("disk");
        self.stage.directory(&disk)?;
        if kind == Kind::TargetIsMount {
            self.stage.directory(&self.directory)?;
            let mut place = Place::new(self.directory.clone(), Proof::Nothing);
            place.kept.push(lost_and_found(&disk)?);
            place.kept.push(self.directory.join("lost+found"));
            bind(&disk, &self.directory)?;
            place.mounts.push(self.directory.clone());
            place.free.push(disk);
            return Ok(place);
        }
        let mut place = self.seed(Kind::Seed)?;
        if kind == Kind::WalMount {
            let wal = disk.join("wal");
            copy(&self.directory.join("pg_wal"), &wal)?;
            bind(&wal, &self.directory.join("pg_wal"))?;
            place.mounts.push(self.directory.join("pg_wal"));
            place.free.push(wal);
            return Ok(place);
        }
        let below = ["mnt", "base/mine", "log"].get(usize::try_from(random.below(3))?).copied();
        let mount = self.directory.join(below.unwrap_or("mnt"));
        self.stage.directory(&mount)?;
        if random.chance(50) {
            bind(&self.world.join("outside"), &mount)?;
        } else {
            command(
                "mount",
                &["-t", "tmpfs", "-o", "size=1m", "trees"]
                    .map(OsStr::new)
                    .into_iter()
                    .chain([mount.as_os_str()])
                    .collect::<Vec<_>>(),
            )?;
            self.stage.file(&mount.join("photo.txt"), "on another disk")?;
        }
        place.proof = Proof::Odd;
        place.kept.push(mount.clone());
        place.mounts.push(mount);
        Ok(place)
    }

    pub(super) fn rights(&self, kind: Kind, as_root: bool) -> Result<Place> {
        let mut place = self.seed(Kind::Seed)?;
        let directory = &self.directory;
        match kind {
            Kind::DebianModes => {
                let etc = self.world.join("etc");
                self.stage.directory(&etc)?;
                for name in ["postgresql.conf", "pg_hba.conf"] {
                    let old = directory.join(name);
                    copy(&old, &etc.join(name))?;
                    remove(&old)?;
                    self.stage.link(&etc.join(name), &old)?;
                }
                command("chmod", &["-R".as_ref(), "g+rX".as_ref(), directory.as_os_str()])?;
            }
            Kind::ReadOnlyBelow => {
                mode(&directory.join("base/5"), 0o555)?;
                place.locked.push(directory.join("base/5"));
                if !as_root {
                    place.proof = Proof::Odd;
                }
            }
            Kind::Immutable => {
                let file = directory.join(FILE);
                // Not every file system knows that; then it is a copy of production like others.
                if command("chattr", &["+i".as_ref(), file.as_os_str()]).is_ok() {
                    place.immutable.push(file);
                    place.proof = Proof::Odd;
                }
            }
            _ => {
                let twin = self.world.join("twin");
                command("cp", &["-al".as_ref(), directory.as_os_str(), twin.as_os_str()])?;
            }
        }
        Ok(place)
    }

    /// A data directory of this cluster in which something is not what it was.
    pub(super) fn odd_inside(&self, kind: Kind) -> Result<Place> {
        let mut place = self.seed(Kind::Seed)?;
        let (stage, directory, disk) = (self.stage, &self.directory, self.world.join("disk"));
        stage.directory(&disk)?;
        let file = directory.join(FILE);
        match kind {
            Kind::LinkedLog => stage.link(&self.world.join("outside"), &directory.join("log"))?,
            Kind::WalLinkOfCopy | Kind::WalDangling | Kind::LinkedBase => {
                let name = if kind == Kind::LinkedBase { "base" } else { "pg_wal" };
                let moved = self.move_out(directory, name)?;
                if kind == Kind::WalDangling {
                    remove(&moved)?;
                    place.free.push(moved);
                }
            }
            Kind::FifoBeside => {
                command("mkfifo", &[directory.join("pipe").as_os_str()])?;
                drop(UnixListener::bind(directory.join(".s.PGSQL.5432")).context("cannot make a socket")?);
            }
            Kind::FifoInTheWay => {
                remove(&file)?;
                command("mkfifo", &[file.as_os_str()])?;
            }
            Kind::DirectoryInTheWay => {
                remove(&file)?;
                stage.file(&file.join("inside"), "x")?;
            }
            _ => {
                remove(&file)?;
                stage.link(&self.world.join("outside/precious"), &file)?;
            }
        }
        if !matches!(kind, Kind::LinkedLog | Kind::WalLinkOfCopy | Kind::FifoBeside) {
            place.proof = Proof::Odd;
        }
        Ok(place)
    }

    /// Moves a directory to another disk; a link stays. What the link of a copy leads to may be production's.
    pub(super) fn move_out(&self, data: &Path, name: &str) -> Result<PathBuf> {
        let (inside, moved) = (data.join(name), self.world.join("disk").join(name));
        self.stage.directory(&self.world.join("disk"))?;
        copy(&inside, &moved)?;
        remove(&inside)?;
        self.stage.link(&moved, &inside)?;
        Ok(moved)
    }
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    command("mount", &["--bind".as_ref(), from.as_os_str(), to.as_os_str()])
}
