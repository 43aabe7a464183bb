//! `[api]`: where the HTTP API listens, and who may use it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::mistake::Mistake;
use super::secret::SecretSource;
use super::section::Section;

/// Where the API listens unless the file says otherwise.
pub(crate) const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8432);

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// Looking.
    Read,
    /// Looking, and doing.
    Operate,
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenConfig {
    /// Its name: what the log says instead of the token.
    pub(crate) name: String,
    pub(crate) scope: Scope,
    pub(crate) source: SecretSource,
}

/// Certificate and key of the server, PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsConfig {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// `[api]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiConfig {
    /// `None`: no server.
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) tls: Option<TlsConfig>,
    pub(crate) tokens: Vec<TokenConfig>,
    /// Serve beyond this machine without TLS or tokens, and let those operate who have no token.
    pub(crate) insecure: bool,
    /// The file says where to listen.
    pub(crate) explicit: bool,
    /// Restores that are asked for go below this directory; `None`: none are done.
    pub(crate) restore_dir: Option<PathBuf>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listen: Some(DEFAULT_LISTEN),
            tls: None,
            tokens: Vec::new(),
            insecure: false,
            explicit: false,
            restore_dir: None,
        }
    }
}

impl ApiConfig {
    pub(super) fn read(section: &mut Section<'_>, base: &Path) -> Self {
        let listen = section.text("listen");
        let explicit = listen.is_some();
        let listen = match listen {
            None => Some(DEFAULT_LISTEN),
            Some(text) if text.value == "off" => None,
            Some(text) => {
                let parsed = text.value.parse().ok();
                if parsed.is_none() {
                    let mistake = Mistake::new(text.at, "`listen` is no address with a port");
                    section
                        .mistake(mistake.hint("write it like \"127.0.0.1:8432\", \"[::]:8432\" or \"off\""));
                }
                parsed
            }
        };
        let (cert, key) = (section.path("tls_cert", base), section.path("tls_key", base));
        let tls = match (cert, key) {
            (Some(cert), Some(key)) => Some(TlsConfig { cert, key }),
            (None, None) => None,
            _ => {
                let at = section.at();
                section.mistake(Mistake::new(at, "`tls_cert` and `tls_key` belong together: one is missing"));
                None
            }
        };
        let insecure = section.flag("insecure").unwrap_or_default();
        let restore_dir = section.path("restore_dir", base);
        let mut tokens = Vec::new();
        let mut mistakes = Vec::new();
        for mut table in section.tables("tokens", "api") {
            tokens.extend(TokenConfig::read(&mut table, base));
            mistakes.extend(table.finish());
        }
        mistakes.into_iter().for_each(|mistake| section.mistake(mistake));
        Self { listen, tls, tokens, insecure, explicit, restore_dir }
    }
}

impl TokenConfig {
    fn read(section: &mut Section<'_>, base: &Path) -> Option<Self> {
        let name = section.text("name");
        let scope = section.choice("scope", &[("read", Scope::Read), ("operate", Scope::Operate)]);
        let source = SecretSource::of(section, ["file", "env", "command"], base);
        let at = section.at();
        if source.is_none() {
            let mistake = Mistake::new(at.clone(), "it does not say where the token comes from");
            section.mistake(mistake.hint("add one of: file = \"…\", env = \"…\", command = \"…\""));
        }
        if name.is_none() {
            let mistake = Mistake::new(at.clone(), "the token has no valid `name`");
            section.mistake(mistake.hint("the log says the name where the token was used"));
        }
        if scope.is_none() {
            let mistake = Mistake::new(at, "the token has no valid `scope`");
            section.mistake(mistake.hint("\"read\" for looking, \"operate\" for doing"));
        }
        Some(Self { name: name?.value, scope: scope?, source: source? })
    }
}
