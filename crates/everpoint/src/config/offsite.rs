//! `[offsite.NAME]`: a service that takes a file a day, and how many calls it allows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use everpoint_core::words;
use everpoint_core::{BudgetPeriod, BudgetPolicy};
use everpoint_offsite::{Counts, HttpMethod};
use jiff::tz::TimeZone;

use super::Variables;
use super::expand::expand;
use super::mistake::{Mistake, plain_or_name, word};
use super::secret::{Secret, SecretSource};
use super::section::{At, Section, TextOrTable};

/// Time for a whole upload or download, unless the file says otherwise.
const TIMEOUT: u64 = 6 * 3600;
/// Time in which a byte of it must move, unless the file says otherwise.
const IDLE: u64 = 300;

/// One provider.
#[derive(Debug, Clone)]
pub(crate) struct OffsiteConfig {
    /// Its name in the file, and in the ledger.
    pub(crate) name: String,
    pub(crate) place: OffsitePlace,
    pub(crate) budget: BudgetPolicy,
    pub(crate) counts: Counts,
    /// Most bytes of one package.
    pub(crate) limit: Option<u64>,
    /// Age public keys; none: the repository's own key.
    pub(crate) recipients: Vec<String>,
    /// Clusters, the most important first; those that are not named follow.
    pub(crate) priority: Vec<At<String>>,
    /// The repository whose clusters are packed, and which holds the ledger.
    pub(crate) repository: Option<At<String>>,
    /// Whether packages are sent there.
    pub(crate) enabled: bool,
    /// Time for a whole upload or download.
    pub(crate) timeout: Duration,
    /// Time in which a byte of it must move.
    pub(crate) idle: Duration,
}

impl OffsitePlace {
    /// Whether it can be asked what it has.
    pub(crate) fn lists(&self) -> bool {
        match self {
            Self::Filesystem { .. } | Self::S3(_) => true,
            Self::Http(place) => place.list_url.is_some(),
            Self::Command(place) => place.list.is_some(),
        }
    }
}

/// Where it is.
#[derive(Debug, Clone)]
pub(crate) enum OffsitePlace {
    /// Made if missing, if a directory above it is there.
    Filesystem {
        path: PathBuf,
        below: Option<PathBuf>,
        keep: Option<usize>,
    },
    Http(HttpPlace),
    S3(S3Place),
    Command(CommandPlace),
}

/// A web service.
#[derive(Debug, Clone)]
pub(crate) struct HttpPlace {
    pub(crate) url: Secret,
    pub(crate) download_url: Option<Secret>,
    pub(crate) list_url: Option<Secret>,
    pub(crate) health_url: Option<Secret>,
    pub(crate) method: HttpMethod,
    pub(crate) headers: Vec<(String, HeaderSource)>,
}

/// Where the value of a header comes from. It is looked for when a request is made: commands that make none, such as
/// `archive_command`, run in environments that don't have it.
#[derive(Debug, Clone)]
pub(crate) enum HeaderSource {
    /// A text; `${NAME}` stands for an environment variable.
    Text(Secret),
    From(SecretSource),
}

/// A bucket.
#[derive(Debug, Clone)]
pub(crate) struct S3Place {
    pub(crate) endpoint: String,
    pub(crate) region: String,
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    pub(crate) path_style: bool,
    pub(crate) access_key: SecretSource,
    pub(crate) secret_key: SecretSource,
    pub(crate) session_token: Option<SecretSource>,
}

/// Programs and their arguments.
#[derive(Debug, Clone)]
pub(crate) struct CommandPlace {
    pub(crate) upload: Vec<String>,
    pub(crate) download: Option<Vec<String>>,
    pub(crate) list: Option<Vec<String>>,
    pub(crate) health: Option<Vec<String>>,
}

#[derive(Clone, Copy)]
enum Kind {
    Filesystem,
    Http,
    S3,
    Command,
}

impl OffsiteConfig {
    pub(super) fn read(
        name: &str,
        section: &mut Section<'_>,
        base: &Path,
        variables: Variables<'_>,
    ) -> Option<Self> {
        let kinds = [
            ("filesystem", Kind::Filesystem),
            ("http", Kind::Http),
            ("s3", Kind::S3),
            ("command", Kind::Command),
        ];
        let budget = budget(section);
        let (counts, counted) = counts(section);
        let limit = section.bytes("limit");
        let recipients = recipients(section);
        let priority = section.texts("priority");
        let repository = section.text("repository");
        let enabled = section.flag("enabled").unwrap_or(true);
        let timeout = Duration::from_secs(section.seconds("timeout").unwrap_or(TIMEOUT).max(1));
        let idle = Duration::from_secs(section.seconds("idle_timeout").unwrap_or(IDLE).max(1));
        let at = section.at();
        let Some(kind) = section.choice("type", &kinds) else {
            let all = kinds.map(|(word, _)| word).join(", ");
            let mistake = Mistake::new(at, format!("[offsite.{name}] has no valid `type`"));
            section.mistake(mistake.hint(format!("one of: {all}")));
            return None;
        };
        if let (Kind::Filesystem, Some(at)) = (kind, counted) {
            let mistake = Mistake::new(at, "a directory counts nothing but uploads");
            section.mistake(mistake.hint("remove `counts`"));
        }
        let place = match kind {
            Kind::Filesystem => filesystem(section, base),
            Kind::Http => http(section, base, variables).map(OffsitePlace::Http),
            Kind::S3 => s3(section, base, variables).map(OffsitePlace::S3),
            Kind::Command => command(section).map(OffsitePlace::Command),
        }?;
        let name = name.to_owned();
        Some(Self {
            name,
            place,
            budget,
            counts,
            limit,
            recipients,
            priority,
            repository,
            enabled,
            timeout,
            idle,
        })
    }

    /// A directory, made below one that is there, that keeps so many packages; all else as it is by itself.
    pub(super) fn filesystem(name: &str, path: PathBuf, below: PathBuf, keep: usize) -> Self {
        Self {
            name: name.to_owned(),
            place: OffsitePlace::Filesystem { path, below: Some(below), keep: Some(keep) },
            budget: BudgetPolicy { calls: 1, period: BudgetPeriod::CalendarDay(TimeZone::UTC) },
            counts: Counts::default(),
            limit: None,
            recipients: Vec::new(),
            priority: Vec::new(),
            repository: None,
            enabled: true,
            timeout: Duration::from_secs(TIMEOUT),
            idle: Duration::from_secs(IDLE),
        }
    }

    /// What the file says of clusters and repositories that it does not have.
    pub(super) fn check_references<'a>(
        &self,
        repositories: impl Iterator<Item = &'a str> + Clone,
        clusters: impl Iterator<Item = &'a str> + Clone,
    ) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        let mut check = |wanted: &At<String>, what: &str, known: Vec<&str>| {
            if known.contains(&wanted.value.as_str()) {
                return;
            }
            let mistake = Mistake::new(
                wanted.at.clone(),
                format!("there is no [{what}.{}]", plain_or_name(&wanted.value)),
            );
            let plural = if what == "cluster" { "clusters" } else { "repositories" };
            mistakes.push(mistake.hint(words::known(&wanted.value, plural, known)));
        };
        if let Some(wanted) = &self.repository {
            check(wanted, "repository", repositories.clone().collect());
        }
        for wanted in &self.priority {
            check(wanted, "cluster", clusters.clone().collect());
        }
        mistakes
    }
}

fn budget(section: &mut Section<'_>) -> BudgetPolicy {
    let calls = section.number("calls", 1..=1000).and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
    let rolling = section.choice("period", &[("day", false), ("24h", true)]).unwrap_or(false);
    let zone = section.text("zone");
    if let (true, Some(zone)) = (rolling, &zone) {
        let mistake = Mistake::new(zone.at.clone(), "any 24 hours have no `zone`");
        section.mistake(mistake.hint("remove it, or set period = \"day\""));
    }
    let found = zone.as_ref().map(|zone| (zone, crate::zone::named(&zone.value)));
    if let Some((zone, None)) = &found {
        let mistake = Mistake::new(zone.at.clone(), format!("there is no time zone \"{}\"", zone.value));
        section
            .mistake(mistake.hint("write it like \"Europe/Berlin\" or \"UTC\": the provider's, not yours"));
    }
    let zone = found.and_then(|(_, zone)| zone).unwrap_or(TimeZone::UTC);
    let period = if rolling { BudgetPeriod::Rolling24h } else { BudgetPeriod::CalendarDay(zone) };
    BudgetPolicy { calls, period }
}

/// What counts besides uploads, and where the file says the first of it.
fn counts(section: &mut Section<'_>) -> (Counts, Option<std::ops::Range<usize>>) {
    let (mut counts, mut first) = (Counts::default(), None);
    for At { value, at } in section.texts("counts") {
        first.get_or_insert_with(|| at.clone());
        match value.as_str() {
            "download" => counts.download = true,
            "list" => counts.list = true,
            "health" => counts.health = true,
            "upload" => {}
            _ => {
                let mistake = Mistake::new(at, format!("{} is no kind of request", word(&value)));
                section.mistake(mistake.hint("one of: download, list, health; uploads always count"));
            }
        }
    }
    (counts, first)
}

fn recipients(section: &mut Section<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for At { value, at } in section.texts("recipients") {
        if let Err(why) = value.parse::<age::x25519::Recipient>() {
            let mistake = Mistake::new(at, format!("it is no age recipient: {why}"));
            section
                .mistake(mistake.hint("it begins with age1; make a pair with: age-keygen -o identity.txt"));
        }
        found.push(value);
    }
    found
}

fn missing(section: &mut Section<'_>, key: &str, example: &str) {
    let at = section.at();
    let mistake = Mistake::new(at, format!("the provider has no valid `{key}`"));
    section.mistake(mistake.hint(format!("add: {key} = {example}")));
}

fn filesystem(section: &mut Section<'_>, base: &Path) -> Option<OffsitePlace> {
    let keep = section.number("keep", 1..=100_000).and_then(|n| usize::try_from(n).ok());
    let Some(path) = section.path("path", base) else {
        missing(section, "path", "\"/mnt/offsite\"");
        return None;
    };
    Some(OffsitePlace::Filesystem { path, below: None, keep })
}

fn http(section: &mut Section<'_>, base: &Path, variables: Variables<'_>) -> Option<HttpPlace> {
    let method = section.choice("method", &[("PUT", HttpMethod::Put), ("POST", HttpMethod::Post)]);
    let mut url = |key| section.expanded(key, variables).map(|text| Secret::new(text.value));
    let (own, download_url, list_url, health_url) =
        (url("url"), url("download_url"), url("list_url"), url("health_url"));
    let headers = headers(section, base);
    let Some(url) = own else {
        missing(section, "url", "\"https://backup.example.net/upload/{name}\"");
        return None;
    };
    let method = method.unwrap_or_default();
    Some(HttpPlace { url, download_url, list_url, health_url, method, headers })
}

fn headers(section: &mut Section<'_>, base: &Path) -> Vec<(String, HeaderSource)> {
    let mut found = Vec::new();
    for (name, value) in section.entries("headers") {
        match value {
            TextOrTable::Text(text) => {
                // Only its form is looked at here.
                if let Err(why) = expand(&text.value, &|_| Some(String::new())) {
                    section.mistake(Mistake::new(text.at, why));
                }
                found.push((name, HeaderSource::Text(Secret::new(text.value))));
            }
            TextOrTable::Table(mut table) => {
                match SecretSource::of(&mut table, ["file", "env", "command"], base) {
                    Some(source) => found.push((name, HeaderSource::From(source))),
                    None => {
                        let mistake =
                            Mistake::new(table.at(), format!("the header {} has no value", word(&name)));
                        section.mistake(
                            mistake
                                .hint("write a text, or one of { file = … }, { env = … }, { command = … }"),
                        );
                    }
                }
                table.finish().into_iter().for_each(|mistake| section.mistake(mistake));
            }
        }
    }
    found
}

fn s3(section: &mut Section<'_>, base: &Path, variables: Variables<'_>) -> Option<S3Place> {
    let mut text = |key| section.expanded(key, variables).map(|text| text.value);
    let (endpoint, region, bucket, prefix) =
        (text("endpoint"), text("region"), text("bucket"), text("prefix"));
    let path_style = section.flag("path_style").unwrap_or(endpoint.is_some());
    let mut source = |keys| SecretSource::of(section, keys, base);
    let access_key = source(["access_key_file", "access_key_env", "access_key_command"]);
    let secret_key = source(["secret_key_file", "secret_key_env", "secret_key_command"]);
    let session_token = source(["session_token_file", "session_token_env", "session_token_command"]);
    let variable = |name: &str| SecretSource::Variable(name.to_owned());
    let from_environment = || {
        variables("AWS_SESSION_TOKEN")
            .filter(|token| !token.is_empty())
            .map(|_| variable("AWS_SESSION_TOKEN"))
    };
    let Some(bucket) = bucket else {
        missing(section, "bucket", "\"my-backups\"");
        return None;
    };
    let region = region.unwrap_or_else(|| "us-east-1".to_owned());
    Some(S3Place {
        endpoint: endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com")),
        region,
        bucket,
        prefix: prefix.unwrap_or_default(),
        path_style,
        session_token: session_token.or_else(|| access_key.is_none().then(from_environment).flatten()),
        access_key: access_key.unwrap_or_else(|| variable("AWS_ACCESS_KEY_ID")),
        secret_key: secret_key.unwrap_or_else(|| variable("AWS_SECRET_ACCESS_KEY")),
    })
}

fn command(section: &mut Section<'_>) -> Option<CommandPlace> {
    let mut words = |key| section.texts(key).into_iter().map(|word| word.value).collect::<Vec<_>>();
    let (upload, others) = (words("upload"), ["download", "list", "health"].map(&mut words));
    if upload.is_empty() {
        missing(section, "upload", "[\"/usr/local/bin/send\", \"{name}\"], fed on standard input");
        return None;
    }
    let [download, list, health] = others.map(|argv| Some(argv).filter(|argv| !argv.is_empty()));
    Some(CommandPlace { upload, download, list, health })
}
