//! `[alerts]` and `[[alerts.sink]]`: what is told, when, and to whom.

use std::path::{Path, PathBuf};

use everpoint_core::alert::{AlertKind, Severity, Thresholds};

use super::Variables;
use super::mistake::{Mistake, word};
use super::secret::{Secret, SecretSource};
use super::section::{At, Section};
use everpoint_core::words::known;

/// How long until a condition that holds on is told again.
const REPEAT_SECONDS: u64 = 24 * 3600;

/// `[alerts]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AlertsConfig {
    pub(crate) thresholds: Thresholds,
    /// `None`: a condition is told once.
    pub(crate) repeat_seconds: Option<u64>,
    /// Seconds between two looks.
    pub(crate) every_seconds: u64,
    /// Successes that are told.
    pub(crate) successes: Vec<AlertKind>,
    pub(crate) sinks: Vec<SinkConfig>,
}

/// A text that is a secret: given in the file (`${NAME}` for an environment variable), or by a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretText {
    Given(Secret),
    From(SecretSource),
}

/// How mail is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SmtpConfig {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) security: MailSecurity,
    /// Certificate of the authority that the server's certificate comes from, if the system does not know it: PEM.
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<SecretSource>,
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
}

/// How the connection to a mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MailSecurity {
    /// Begins in clear, must become TLS.
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// None: for a relay on this machine.
    None,
}

/// Where messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SinkKind {
    Log,
    Webhook { url: SecretText, token: Option<SecretSource> },
    Slack { url: SecretText },
    Smtp(SmtpConfig),
    Otel,
}

/// One `[[alerts.sink]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SinkConfig {
    /// What it is called in the log and in metrics.
    pub(crate) name: String,
    pub(crate) kind: SinkKind,
    /// Only these kinds; empty: all.
    pub(crate) only: Vec<AlertKind>,
    pub(crate) least: Severity,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self {
            thresholds: Thresholds::default(),
            repeat_seconds: Some(REPEAT_SECONDS),
            every_seconds: 10,
            successes: Vec::new(),
            sinks: vec![SinkConfig::log()],
        }
    }
}

impl SinkConfig {
    /// Where nothing is said, alerts go to the log.
    fn log() -> Self {
        Self { name: "log".to_owned(), kind: SinkKind::Log, only: Vec::new(), least: Severity::Info }
    }
}

impl AlertsConfig {
    pub(super) fn read(section: &mut Section<'_>, base: &Path, variables: Variables<'_>) -> Self {
        let default = Self::default();
        let thresholds = thresholds(section);
        let repeat_seconds = match section.seconds("repeat_after") {
            None => default.repeat_seconds,
            Some(0) => None,
            Some(seconds) => Some(seconds),
        };
        let every_seconds = section.seconds("every").map_or(default.every_seconds, |every| every.max(1));
        let successes = kinds(section, "successes");
        let mut sinks: Vec<SinkConfig> = Vec::new();
        let mut mistakes = Vec::new();
        for mut table in section.tables("sink", "alerts") {
            if let Some(sink) = read_sink(&mut table, base, variables) {
                if sinks.iter().any(|other| other.name == sink.name) {
                    let mistake =
                        Mistake::new(table.at(), format!("there are two sinks named \"{}\"", sink.name));
                    mistakes.push(mistake.hint("give each a `name` of its own"));
                }
                sinks.push(sink);
            }
            mistakes.extend(table.finish());
        }
        mistakes.into_iter().for_each(|mistake| section.mistake(mistake));
        if !sinks.iter().any(|sink| sink.kind == SinkKind::Log) {
            sinks.insert(0, SinkConfig::log());
        }
        Self { thresholds, repeat_seconds, every_seconds, successes, sinks }
    }
}

fn thresholds(section: &mut Section<'_>) -> Thresholds {
    let default = Thresholds::default();
    let small = |number: Option<u64>, default: u32| number.and_then(|n| n.try_into().ok()).unwrap_or(default);
    Thresholds {
        lag_seconds: section.seconds("lag").unwrap_or(default.lag_seconds),
        lag_bytes: section.bytes("lag_bytes").unwrap_or(default.lag_bytes),
        free_percent: section
            .number("free_space_percent", 0..=99)
            .and_then(|n| n.try_into().ok())
            .unwrap_or(default.free_percent),
        failures_in_a_row: small(section.number("failures_in_a_row", 1..=1000), default.failures_in_a_row),
        backup_age_seconds: section.seconds("backup_age").unwrap_or(default.backup_age_seconds),
    }
}

fn kinds(section: &mut Section<'_>, key: &'static str) -> Vec<AlertKind> {
    let mut found = Vec::new();
    for At { value, at } in section.texts(key) {
        if let Some(kind) = AlertKind::from_word(&value) {
            found.push(kind);
            continue;
        }
        let words = AlertKind::ALL.map(AlertKind::word);
        let mistake = Mistake::new(at, format!("{} is no kind of alert", word(&value)));
        section.mistake(mistake.hint(known(&value, "kinds", words)));
    }
    found
}

#[derive(Clone, Copy)]
enum Word {
    Log,
    Webhook,
    Slack,
    Smtp,
    Otel,
}

fn read_sink(section: &mut Section<'_>, base: &Path, variables: Variables<'_>) -> Option<SinkConfig> {
    let words = [
        ("log", Word::Log),
        ("webhook", Word::Webhook),
        ("slack", Word::Slack),
        ("smtp", Word::Smtp),
        ("otel", Word::Otel),
    ];
    let name = section.text("name").map(|text| text.value);
    let only = kinds(section, "only");
    let severities =
        [Severity::Info, Severity::Warning, Severity::Critical].map(|severity| (severity.word(), severity));
    let least = section.choice("least", &severities).unwrap_or(Severity::Info);
    let at = section.at();
    let Some(word) = section.choice("type", &words) else {
        let all = words.map(|(word, _)| word).join(", ");
        section.mistake(Mistake::new(at, "the sink has no valid `type`").hint(format!("one of: {all}")));
        return None;
    };
    let (kind, default_name) = match word {
        Word::Log => (SinkKind::Log, "log"),
        Word::Otel => (SinkKind::Otel, "otel"),
        Word::Slack => (SinkKind::Slack { url: url(section, base, variables)? }, "slack"),
        Word::Webhook => {
            let token = SecretSource::of(section, ["token_file", "token_env", "token_command"], base);
            (SinkKind::Webhook { url: url(section, base, variables)?, token }, "webhook")
        }
        Word::Smtp => (SinkKind::Smtp(smtp(section, base)?), "smtp"),
    };
    Some(SinkConfig { name: name.unwrap_or_else(|| default_name.to_owned()), kind, only, least })
}

/// The address of a webhook is a secret: who knows it can write there.
fn url(section: &mut Section<'_>, base: &Path, variables: Variables<'_>) -> Option<SecretText> {
    let given = section.expanded("url", variables);
    let source = SecretSource::of(section, ["url_file", "url_env", "url_command"], base);
    match (given, source) {
        (Some(url), None) if is_url(&url.value) => Some(SecretText::Given(Secret::new(url.value))),
        (Some(url), None) => {
            section.mistake(Mistake::new(url.at, "`url` must begin with https:// or http://"));
            None
        }
        (None, Some(source)) => Some(SecretText::From(source)),
        (given, _) => {
            let at = given.map_or_else(|| section.at(), |url| url.at);
            let mistake = Mistake::new(at, "the sink needs one address");
            section.mistake(mistake.hint("one of: url, url_file, url_env, url_command"));
            None
        }
    }
}

/// Whether something can be sent there.
pub(crate) fn is_url(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

fn smtp(section: &mut Section<'_>, base: &Path) -> Option<SmtpConfig> {
    let securities =
        [("starttls", MailSecurity::StartTls), ("tls", MailSecurity::Tls), ("none", MailSecurity::None)];
    let host = section.text("host");
    let security = section.choice("tls", &securities).unwrap_or(MailSecurity::StartTls);
    let port = section.number("port", 1..=65535).and_then(|port| port.try_into().ok());
    let ca_file = section.path("ca_file", base);
    let user = section.text("user").map(|text| text.value);
    let password = SecretSource::of(section, ["password_file", "password_env", "password_command"], base);
    let from = section.text("from");
    let to = section.texts("to");
    let at = section.at();
    let mut need = |there: bool, what: &str| {
        if !there {
            section.mistake(Mistake::new(at.clone(), format!("the mail sink has no valid `{what}`")));
        }
    };
    need(host.is_some(), "host");
    need(from.is_some(), "from");
    need(!to.is_empty(), "to");
    need(user.is_some() == password.is_some(), "user together with a password");
    let addresses: Vec<&At<String>> = from.iter().chain(&to).collect();
    for address in addresses {
        if address.value.parse::<lettre::message::Mailbox>().is_err() {
            let mistake = Mistake::new(address.at.clone(), "it is no mail address");
            section.mistake(mistake.hint("write it like \"Everpoint <backup@example.com>\""));
        }
    }
    let default_port = match security {
        MailSecurity::StartTls => 587,
        MailSecurity::Tls => 465,
        MailSecurity::None => 25,
    };
    Some(SmtpConfig {
        host: host?.value,
        port: port.unwrap_or(default_port),
        security,
        ca_file,
        user,
        password,
        from: from?.value,
        to: to.into_iter().map(|to| to.value).collect(),
    })
}
