//! `[cluster.NAME]`.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Variables;
use super::mistake::{Mistake, plain_or_name, word};
use super::retention::Retention;
use super::section::{At, Section};

/// One protected cluster.
#[derive(Debug, Clone)]
pub(crate) struct ClusterConfig {
    /// Its name in the file and in the repository.
    pub(crate) name: String,
    /// Where its table stands in the file.
    pub(crate) at: Range<usize>,
    /// What it is.
    pub(crate) source: Source,
    /// Name of the repository that holds it; none: the only one.
    pub(crate) repository: Option<At<String>>,
    /// Name of its replication slot.
    pub(crate) slot: String,
    /// Threads for bulk work.
    pub(crate) workers: Option<usize>,
    /// How its backups are compressed.
    pub(crate) compression: Compression,
    /// How a backup asks for its checkpoint.
    pub(crate) checkpoint: Checkpoint,
    /// What is kept of it.
    pub(crate) retention: Retention,
}

/// What kind of database it is.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// PostgreSQL.
    Postgres(PostgresConfig),
    /// MongoDB, which this version can't protect yet.
    MongoDb,
}

/// How a PostgreSQL cluster is reached.
#[derive(Clone)]
pub(crate) struct PostgresConfig {
    /// `postgres://` URL or `key=value` words. May hold a password: never shown as it is.
    pub(crate) url: String,
    /// Its data directory, if it can be read here.
    pub(crate) data_dir: Option<PathBuf>,
    /// Where the password comes from, if not from the URL, a password file of libpq or the environment.
    pub(crate) password: Option<PasswordSource>,
    /// Directory of the server's programs, for `restore --start`.
    pub(crate) pg_bin: Option<PathBuf>,
}

/// Where a password comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PasswordSource {
    /// First line of a file.
    File(PathBuf),
    /// First line of what a shell command prints.
    Command(String),
}

/// How frames are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Compression {
    /// What measurements found to be best.
    #[default]
    Auto,
    /// lz4.
    Lz4,
    /// zstd of this level.
    Zstd(i32),
    /// Not at all.
    None,
}

/// How a backup asks for its checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Checkpoint {
    /// At once: a short burst of writes on the server.
    #[default]
    Fast,
    /// Spread as the server's settings say: gentle, and may take minutes.
    Spread,
}

impl std::fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("url", &"…")
            .field("data_dir", &self.data_dir)
            .field("password", &self.password)
            .field("pg_bin", &self.pg_bin)
            .finish()
    }
}

impl ClusterConfig {
    pub(super) fn read(
        name: &str,
        section: &mut Section<'_>,
        base: &Path,
        variables: Variables<'_>,
    ) -> Option<Self> {
        let source = read_source(name, section, base, variables);
        let cluster = Self {
            name: name.to_owned(),
            at: section.at(),
            source: source?,
            repository: section.text("repository"),
            slot: read_slot(section).unwrap_or_else(|| slot_for(name)),
            workers: section.number("workers", 1..=256).and_then(|n| usize::try_from(n).ok()),
            compression: read_compression(section).unwrap_or_default(),
            checkpoint: section
                .choice("checkpoint", &[("fast", Checkpoint::Fast), ("spread", Checkpoint::Spread)])
                .unwrap_or_default(),
            retention: Retention::read(section),
        };
        Some(cluster)
    }
}

/// The slot of a cluster whose table names none.
pub(crate) fn slot_for(cluster: &str) -> String {
    let plain: String = cluster.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let mut slot = format!("everpoint_{plain}");
    // PostgreSQL's names have at most 63 bytes.
    slot.truncate(63);
    slot
}

fn read_source(
    name: &str,
    section: &mut Section<'_>,
    base: &Path,
    variables: Variables<'_>,
) -> Option<Source> {
    let postgres = section.expanded("postgres", variables);
    let mongodb = section.expanded("mongodb", variables);
    let data_dir = section.path("data_dir", base);
    let file = section.path("password_file", base);
    let command = section.text("password_command");
    let pg_bin = section.path("pg_bin", base);
    let password = match (file, command) {
        (Some(_), Some(command)) => {
            let message = "`password_command` and `password_file` can't both be given";
            section.mistake(Mistake::new(command.at, message).hint("keep one of them"));
            None
        }
        (Some(file), None) => Some(PasswordSource::File(file)),
        (None, Some(command)) => Some(PasswordSource::Command(command.value)),
        (None, None) => None,
    };
    match (postgres, mongodb) {
        (Some(url), None) if looks_like_postgres(&url.value) => {
            Some(Source::Postgres(PostgresConfig { url: url.value, data_dir, password, pg_bin }))
        }
        (Some(url), None) => {
            let hint = "write it like \"postgres://user@host:5432/postgres\" or \"host=… user=… dbname=…\"";
            section.mistake(
                Mistake::new(url.at, "`postgres` is not the address of a PostgreSQL server").hint(hint),
            );
            None
        }
        (None, Some(_)) => Some(Source::MongoDb),
        (Some(_), Some(mongodb)) => {
            section.mistake(Mistake::new(mongodb.at, "`mongodb` and `postgres` can't both be given"));
            None
        }
        (None, None) => {
            let at = section.at();
            section.mistake(
                Mistake::new(at, format!("[cluster.{}] has no address", plain_or_name(name)))
                    .hint("add: postgres = \"postgres://user@host:5432/postgres\""),
            );
            None
        }
    }
}

fn looks_like_postgres(url: &str) -> bool {
    url.starts_with("postgres://")
        || url.starts_with("postgresql://")
        || (!url.contains("://") && url.contains('='))
}

fn read_slot(section: &mut Section<'_>) -> Option<String> {
    let At { value, at } = section.text("slot")?;
    let fits =
        value.len() <= 63 && value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !fits {
        let mistake = Mistake::new(at, format!("{} can't be the name of a slot", word(&value)));
        section.mistake(mistake.hint("slot names have up to 63 of a-z 0-9 _"));
        return None;
    }
    Some(value)
}

fn read_compression(section: &mut Section<'_>) -> Option<Compression> {
    let At { value, at } = section.text("compression")?;
    let parsed = match value.as_str() {
        "auto" => Some(Compression::Auto),
        "lz4" => Some(Compression::Lz4),
        "none" => Some(Compression::None),
        "zstd" => Some(Compression::Zstd(3)),
        other => other
            .strip_prefix("zstd:")
            .and_then(|level| level.parse::<i32>().ok())
            .filter(|level| (1..=19).contains(level))
            .map(Compression::Zstd),
    };
    if parsed.is_none() {
        section.mistake(
            Mistake::new(at, format!("{} is not a compression", word(&value)))
                .hint("one of: auto, zstd, zstd:1 … zstd:19, lz4, none"),
        );
    }
    parsed
}
