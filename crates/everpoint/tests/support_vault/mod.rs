//! A repository whose objects are damaged and mended again, for scenarios that look what a restore makes of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support_scenarios::{CLUSTER, World};
use everpoint_testkit::{PgCluster, PgInstall, Ran, StopMode, parse_lsn, text};
use serde_json::Value;

/// The mark of a directory that is not a whole database.
pub(crate) const MARKER: &str = "everpoint.restore-incomplete";
/// Exit codes.
pub(crate) const SHORTFALL: i32 = 3;
pub(crate) const DAMAGED: i32 = 4;

/// A repository with two full backups, each with packs of its own, and log behind them; its server is gone.
pub(crate) struct Vault {
    pub(crate) world: World,
    pub(crate) repository: PathBuf,
    pub(crate) old: String,
    pub(crate) new: String,
    /// Packs that only one of them uses.
    pub(crate) old_packs: Vec<PathBuf>,
    pub(crate) new_packs: Vec<PathBuf>,
    /// What a good restore of each brings back.
    pub(crate) images: BTreeMap<String, Tree>,
}

/// Files below `base` and `global`, by path.
pub(crate) type Tree = BTreeMap<PathBuf, Vec<u8>>;

/// How a restore ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// With the files of this backup.
    Good { backup: String, said: String },
    /// With this exit code and error.
    Refused { code: i32, error: Value, said: String },
}

/// How an object is damaged.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Harm {
    /// One bit, at so many thousandths of its length.
    Flip(usize),
    /// Only the first half is left.
    Cut,
    /// Nothing is left in it.
    Empty,
    /// It is gone.
    Lost,
}

impl Vault {
    pub(crate) fn new(encrypted: bool) -> Option<Self> {
        PgInstall::find_or_skip(15).unwrap()?;
        let source =
            PgCluster::builder().major(15).wal_segsize_mb(1).setting("autovacuum", "off").start().unwrap();
        let world = World::new(source);
        if !encrypted {
            without_encryption(&world);
        }
        let mut vault = Self {
            repository: world.everpoint.home().path().join("repository"),
            world,
            old: String::new(),
            new: String::new(),
            old_packs: Vec::new(),
            new_packs: Vec::new(),
            images: BTreeMap::new(),
        };
        vault.fill();
        Some(vault)
    }

    fn fill(&mut self) {
        // From here on the server keeps what is not stored yet.
        self.world.everpoint.run(&["capture", CLUSTER, "--once"]).unwrap();
        self.sql("CREATE TABLE t AS SELECT 'one'::text AS word");
        self.old = self.world.backup(&["--full"]);
        let packs = self.files("packs");
        self.sql("INSERT INTO t VALUES ('two')");
        self.sql("SELECT pg_switch_wal()");
        self.sql("INSERT INTO t SELECT md5(n::text) FROM generate_series(1, 2000) n");
        self.new = self.world.backup(&["--full"]);
        self.sql("INSERT INTO t VALUES ('three')");
        self.world.everpoint.run(&["restore-point", CLUSTER, "three"]).unwrap();
        for word in ["four", "five"] {
            self.sql("SELECT pg_switch_wal()");
            self.sql(&format!("INSERT INTO t VALUES ('{word}')"));
        }
        let capturing = self.world.everpoint.spawn(&["capture", CLUSTER]).unwrap();
        let end = format!("covered/{:016x}", self.world.source.flushed().unwrap());
        self.world.wait_for("all is known to be stored", || !self.files(&end).is_empty());
        assert!(capturing.stop().unwrap().status.success());
        self.world.source.stop(StopMode::Fast).unwrap();
        self.new_packs = self.files("packs").into_iter().filter(|pack| !packs.contains(pack)).collect();
        self.old_packs = packs;
        assert!(!self.old_packs.is_empty() && !self.new_packs.is_empty());
        for label in [self.old.clone(), self.new.clone()] {
            let place = self.world.place();
            let target = format!("backup:{label}");
            let report =
                self.world.everpoint.json(&["restore", CLUSTER, place.to_str().unwrap(), "--to", &target]);
            assert_eq!(text(&report.unwrap(), "/backup").unwrap(), label);
            self.images.insert(label, image(&place));
        }
    }

    fn sql(&self, sql: &str) {
        self.world.source.psql(sql).unwrap();
    }

    /// Objects of the cluster whose path has this part, sorted.
    pub(crate) fn files(&self, part: &str) -> Vec<PathBuf> {
        let mut found = Tree::new();
        let base = self.repository.join("clusters").join(CLUSTER);
        read_tree(&base, &mut found);
        let has = |path: &Path| path.strip_prefix(&base).unwrap().to_string_lossy().contains(part);
        found.into_keys().filter(|path| has(path)).collect()
    }

    /// The whole segments, oldest first.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let named =
            |path: &PathBuf| path.extension().is_none() && path.file_name().is_some_and(|n| n.len() == 24);
        self.files("log/").into_iter().filter(named).collect()
    }

    /// The segment in which a backup begins.
    pub(crate) fn segment_of_start(&self, label: &str) -> PathBuf {
        let list = self.list("segment of start").unwrap();
        let backups = list["clusters"][0]["backups"].as_array().unwrap();
        let backup = backups.iter().find(|backup| backup["label"] == label).unwrap();
        let start = parse_lsn(backup["start_lsn"].as_str().unwrap()).unwrap();
        let name = format!("{:08X}{:08X}{:08X}", 1, start >> 32, (start & 0xFFFF_FFFF) >> 20);
        let mut segments = self.segments().into_iter();
        segments.find(|path| path.ends_with(&name)).unwrap()
    }

    pub(crate) fn of_backup(&self, label: &str, part: &str) -> PathBuf {
        self.repository.join(format!("clusters/{CLUSTER}/backups/{label}/{part}"))
    }

    /// Damages an object, looks, and mends it again.
    pub(crate) fn harmed(&self, object: &Path, harm: Harm, look: impl FnOnce(&Self)) {
        let good = fs::read(object).unwrap();
        apply(object, harm);
        look(self);
        fs::write(object, good).unwrap();
    }

    pub(crate) fn try_restore(&self, target: &str) -> (Ran, PathBuf) {
        let place = self.world.place();
        let arguments = ["--json", "restore", CLUSTER, place.to_str().unwrap(), "--to", target];
        (self.world.everpoint.try_run(&arguments).unwrap(), place)
    }

    /// Restores, and checks what must be so however it ends.
    pub(crate) fn restore(&self, target: &str, what: &str) -> Outcome {
        let (ran, place) = self.try_restore(target);
        let shown = ran.told(&[what, target]);
        let report: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("no JSON: {shown}"));
        let code = ran.status.code().unwrap_or_else(|| panic!("{shown}"));
        if code == 0 {
            let backup = text(&report, "/backup").unwrap().to_owned();
            assert!(image(&place) == self.images[&backup], "not what was backed up: {shown}");
            assert!(!place.join(MARKER).exists(), "{shown}");
            fs::remove_dir_all(&place).unwrap();
            return Outcome::Good { backup, said: ran.err };
        }
        let done = place.join("global/pg_control").exists() && !place.join(MARKER).exists();
        assert!(!done, "the directory looks done: {shown}");
        match code {
            SHORTFALL => assert!(!place.exists(), "nothing may be written: {shown}"),
            DAMAGED => {}
            _ => panic!("neither a shortfall nor damage: {shown}"),
        }
        if place.exists() {
            fs::remove_dir_all(&place).unwrap();
        }
        Outcome::Refused { code, error: report["error"].clone(), said: ran.err }
    }

    /// Lists; damage may be told in the list or by its exit code, but not otherwise.
    pub(crate) fn list(&self, what: &str) -> Option<Value> {
        let ran = self.world.everpoint.try_run(&["--json", "list", CLUSTER]).unwrap();
        match ran.status.code() {
            Some(0) => Some(serde_json::from_str(&ran.out).unwrap()),
            Some(DAMAGED) => None,
            _ => panic!("{}", ran.told(&[what, "list"])),
        }
    }
}

impl Outcome {
    pub(crate) fn code(&self) -> i32 {
        match self {
            Self::Good { .. } => 0,
            Self::Refused { code, .. } => *code,
        }
    }

    /// It must have been refused with this code, by a message that holds the word.
    pub(crate) fn refused(&self, wanted: i32, word: &str, what: &str) {
        let Self::Refused { code, error, .. } = self else {
            panic!("{what}: not refused: {self:?}");
        };
        assert_eq!(*code, wanted, "{what}: {self:?}");
        assert!(error.to_string().contains(word), "{what}: no {word:?} in {self:?}");
    }

    /// It must have brought back this backup, and said of the other one that something is wrong.
    pub(crate) fn fell_back(&self, to: &str, from: &str, what: &str) {
        match self {
            Self::Good { backup, said } => {
                assert_eq!(backup, to, "{what}: {self:?}");
                assert!(
                    said.contains("warning") && said.contains(from),
                    "{what}: no warning of {from}: {self:?}"
                );
            }
            Self::Refused { said, .. } => panic!("{what}: refused: {self:?} {said}"),
        }
    }
}

/// Takes the key out of the configuration.
pub(crate) fn forget_key(world: &World) {
    let config = world.everpoint.home().path().join("everpoint.toml");
    let text = fs::read_to_string(&config).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("key_file"));
    fs::write(&config, lines.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

/// Makes the repository anew without a key.
fn without_encryption(world: &World) {
    let home = world.everpoint.home().path();
    fs::remove_dir_all(home.join("repository")).unwrap();
    fs::remove_file(home.join("key")).unwrap();
    forget_key(world);
    world.everpoint.run(&["init"]).unwrap();
}

fn apply(object: &Path, harm: Harm) {
    let mut bytes = fs::read(object).unwrap();
    let length = bytes.len();
    match harm {
        Harm::Flip(thousandths) => bytes[(length - 1) * thousandths / 999] ^= 0x10,
        Harm::Cut => bytes.truncate(length / 2),
        Harm::Empty => bytes.clear(),
        Harm::Lost => return fs::remove_file(object).unwrap(),
    }
    fs::write(object, bytes).unwrap();
}

pub(crate) fn swap(a: &Path, b: &Path) {
    let (x, y) = (fs::read(a).unwrap(), fs::read(b).unwrap());
    fs::write(a, y).unwrap();
    fs::write(b, x).unwrap();
}

pub(crate) fn image(place: &Path) -> Tree {
    let mut found = Tree::new();
    for part in ["base", "global", "pg_xact"] {
        read_tree(&place.join(part), &mut found);
    }
    assert!(found.keys().any(|path| path.ends_with("global/pg_control")));
    let relative = |path: PathBuf| path.strip_prefix(place).unwrap().to_owned();
    found.into_iter().map(|(path, bytes)| (relative(path), bytes)).collect()
}

fn read_tree(directory: &Path, found: &mut Tree) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_tree(&path, found);
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
}
