//! What of a configuration matters to the capture of a cluster, and of which files it speaks.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::alerts::{SecretText, SinkKind};
use super::secret::SecretSource;
use super::{ClusterConfig, Config, KeySource, PasswordSource, RepositoryConfig, Retention, Source};

/// What a file is like from outside: it differs when the file was written, replaced, or given to somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileStamp {
    path: PathBuf,
    /// Device, inode, size, and when it was changed; `None`: it is not there, or can't be seen.
    state: Option<[i128; 4]>,
}

impl FileStamp {
    /// Looks at a file.
    pub(crate) fn of(path: &Path) -> Self {
        let state = std::fs::metadata(path).ok().map(|data| {
            let changed = i128::from(data.ctime()) * 1_000_000_000 + i128::from(data.ctime_nsec());
            [i128::from(data.dev()), i128::from(data.ino()), i128::from(data.size()), changed]
        });
        Self { path: path.to_owned(), state }
    }
}

/// A text that differs when the cluster has to be captured otherwise: another address, repository, key, password or slot.
/// It holds no secret, and where the table stands in the file makes no difference.
pub(crate) fn print_of(config: &Config, cluster: &ClusterConfig) -> String {
    let address = match &cluster.source {
        Source::Postgres(postgres) => postgres.url.as_str(),
        Source::MongoDb => "",
    };
    let plain =
        ClusterConfig { at: 0..0, repository: None, retention: Retention::default(), ..cluster.clone() };
    let repository = config.repository_of(cluster).ok();
    let place = repository.map(|known| RepositoryConfig { retention: Retention::default(), ..known.clone() });
    let files: Vec<FileStamp> =
        repository.and_then(key_file).into_iter().chain(password_file(cluster)).map(FileStamp::of).collect();
    let whole = format!(
        "{plain:?}\n{address}\n{place:?}\n{:?}\n{:?}\n{files:?}",
        config.limits, config.serve.max_retained
    );
    blake3::hash(whole.as_bytes()).to_hex().to_string()
}

/// The file itself and all that it names to read secrets from: when one of them changes, it is read again.
pub(crate) fn files_of(config: &Config) -> Vec<FileStamp> {
    let keys = config.repositories.values().filter_map(key_file);
    let passwords = config.clusters.values().filter_map(password_file);
    let outside = outside_files(config);
    let all = std::iter::once(config.path.as_path()).chain(keys).chain(passwords).chain(outside);
    all.map(FileStamp::of).collect()
}

/// As [`files_of`], of the API and of alerts only.
pub(crate) fn outside_of(config: &Config) -> Vec<FileStamp> {
    outside_files(config).into_iter().map(FileStamp::of).collect()
}

fn outside_files(config: &Config) -> Vec<&Path> {
    let tokens = config.api.tokens.iter().map(|token| &token.source);
    let sinks = config.alerts.sinks.iter().flat_map(|sink| match &sink.kind {
        SinkKind::Webhook { url, token } => vec![of_text(url), token.as_ref()],
        SinkKind::Slack { url } => vec![of_text(url)],
        SinkKind::Smtp(smtp) => vec![smtp.password.as_ref()],
        SinkKind::Log | SinkKind::Otel => Vec::new(),
    });
    let sources = tokens.chain(sinks.flatten());
    sources
        .filter_map(|source| match source {
            SecretSource::File(path) => Some(path.as_path()),
            SecretSource::Variable(_) | SecretSource::Command(_) => None,
        })
        .collect()
}

const fn of_text(text: &SecretText) -> Option<&SecretSource> {
    match text {
        SecretText::From(source) => Some(source),
        SecretText::Given(_) => None,
    }
}

fn key_file(repository: &RepositoryConfig) -> Option<&Path> {
    match &repository.key {
        KeySource::File(path) => Some(path),
        KeySource::Command(_) | KeySource::Environment => None,
    }
}

fn password_file(cluster: &ClusterConfig) -> Option<&Path> {
    match &cluster.source {
        Source::Postgres(postgres) => match postgres.password.as_ref()? {
            PasswordSource::File(path) => Some(path),
            PasswordSource::Command(_) => None,
        },
        Source::MongoDb => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "[repository.r]\nurl = \"/r\"\nkey_file = \"KEY\"\n\
                        [cluster.a]\npostgres = \"postgres://u:secret@h/d\"\n";

    fn printed(directory: &Path, text: &str) -> String {
        let path = directory.join("everpoint.toml");
        let text = text.replace("KEY", &directory.join("key").display().to_string());
        std::fs::write(&path, text).unwrap();
        let config = Config::load(&path).unwrap();
        print_of(&config, config.cluster("a").unwrap())
    }

    #[test]
    fn what_matters_to_a_capture_differs_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let print = |text: &str| printed(home.path(), text);
        std::fs::write(home.path().join("key"), "one").unwrap();
        let before = print(BASE);
        assert_eq!(print(&format!("# moved down\n\n{BASE}")), before);
        assert_eq!(print(&format!("{BASE}[cluster.b]\npostgres = \"postgres://h/e\"\n")), before);
        assert_eq!(print(&format!("{BASE}[schedule]\nbackup = \"0 5 * * *\"\n")), before);
        assert_eq!(print(&format!("{BASE}[retention]\nwindow_days = 3\n")), before);
        assert!(!before.contains("secret"));
        for changed in [
            BASE.replace("secret", "other"),
            BASE.replace("@h", "@elsewhere"),
            BASE.replace("\"/r\"", "\"/s\""),
            format!("{BASE}slot = \"mine\"\n"),
            format!("{BASE}[serve]\nmax_retained = \"3GB\"\n"),
        ] {
            assert_ne!(print(&changed), before, "{changed}");
        }
        let fresh = home.path().join("fresh");
        std::fs::write(&fresh, "two").unwrap();
        std::fs::rename(&fresh, home.path().join("key")).unwrap();
        assert_ne!(print(BASE), before, "a new key of the same length");
    }

    #[test]
    fn a_file_that_is_replaced_rewritten_or_gone_differs() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        assert_eq!(FileStamp::of(&path), FileStamp::of(&path));
        let none = FileStamp::of(&path);
        std::fs::write(&path, "one").unwrap();
        let one = FileStamp::of(&path);
        assert_ne!(none, one);
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(&path, "two").unwrap();
        assert_ne!(FileStamp::of(&path), one);
    }
}
