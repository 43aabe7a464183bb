//! Who may do what: bearer tokens, compared in constant time; and where one may listen without them.

use std::net::SocketAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use everpoint_app::AppError;
use everpoint_core::FailureClass;

use crate::config::api::{ApiConfig, Scope};

use super::answer::Refusal;

/// A token that can be guessed is none.
const SHORTEST: usize = 16;

struct Token {
    name: String,
    scope: Scope,
    /// Only its hash is kept: equal lengths, and nothing to print by mistake.
    hash: [u8; 32],
}

/// Decides about requests.
pub(crate) struct Access {
    tokens: Vec<Token>,
    insecure: bool,
}

impl Access {
    /// Reads the tokens.
    ///
    /// # Errors
    /// Class `Usage`: one can't be read, is too short, or stands there twice.
    pub(crate) fn new(config: &ApiConfig, warn: &mut dyn FnMut(String)) -> Result<Self, AppError> {
        let mut tokens: Vec<Token> = Vec::new();
        for token in &config.tokens {
            let secret = token.source.read(&format!("the API token {}", token.name), warn)?;
            let refuse = |message: String| {
                AppError::new("api.token", FailureClass::Usage, "use the API token", &token.name, message)
            };
            if secret.expose().len() < SHORTEST {
                let hint = "make one with: openssl rand -hex 32";
                return Err(refuse(format!("it has less than {SHORTEST} characters")).hint(hint));
            }
            let hash = hash(secret.expose());
            if let Some(other) = tokens.iter().find(|other| other.hash == hash) {
                return Err(refuse(format!("{} is the same token", other.name)));
            }
            tokens.push(Token { name: token.name.clone(), scope: token.scope, hash });
        }
        Ok(Self { tokens, insecure: config.insecure })
    }

    /// Tokens are asked for.
    pub(crate) fn is_guarded(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Lets a request with this `Authorization` header in, or not. Returns who it is.
    ///
    /// # Errors
    /// 401 without a valid token; 403 where it is valid but does not allow this.
    pub(crate) fn check(&self, header: Option<&str>, needed: Scope) -> Result<&str, Refusal> {
        if self.tokens.is_empty() {
            return self.unguarded(needed);
        }
        let presented = header.and_then(bearer).map(hash);
        let mut known = None;
        for token in &self.tokens {
            // No early end: how long it takes must not tell which token was nearly right.
            if presented.is_some_and(|hash| verify_slices_are_equal(&hash, &token.hash).is_ok()) {
                known = Some(token);
            }
        }
        let Some(token) = known else {
            let message = if header.is_some() { "the token is not valid" } else { "a token is needed" };
            let error =
                AppError::new("api.unauthorized", FailureClass::Usage, "answer", "the request", message);
            return Err(Refusal::new(401, error.hint("send the header: Authorization: Bearer TOKEN")));
        };
        if token.scope < needed {
            let message = format!("the token {} may only read", token.name);
            let error = AppError::new("api.forbidden", FailureClass::Usage, "answer", "the request", message);
            return Err(Refusal::new(403, error.hint("use a token with scope = \"operate\"")));
        }
        Ok(&token.name)
    }

    /// Without tokens everybody on this machine may look, but not do.
    fn unguarded(&self, needed: Scope) -> Result<&str, Refusal> {
        if needed == Scope::Read || self.insecure {
            return Ok("anybody");
        }
        let message = "no token is configured, so the API only reads";
        let hint = "add to everpoint.toml: [api] tokens = [{ name = \"admin\", scope = \"operate\", file = \"/etc/everpoint/admin.token\" }]; or insecure = true";
        let error = AppError::new("api.forbidden", FailureClass::Usage, "answer", "the request", message);
        Err(Refusal::new(403, error.hint(hint)))
    }
}

fn hash(text: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    out
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether the configuration may listen at `address`.
///
/// # Errors
/// Class `Usage`: beyond this machine it takes tokens and TLS, or the explicit word that none are wanted.
pub(crate) fn may_listen(config: &ApiConfig, address: SocketAddr) -> Result<(), AppError> {
    if address.ip().is_loopback() || config.insecure {
        return Ok(());
    }
    let missing = match (config.tokens.is_empty(), config.tls.is_none()) {
        (false, false) => return Ok(()),
        (true, true) => "tokens and TLS",
        (true, false) => "tokens",
        (false, true) => "TLS",
    };
    let message = format!("it can be reached from other machines, and the configuration has no {missing}");
    Err(AppError::new("api.listen", FailureClass::Usage, "listen on", address.to_string(), message).hint(
        "add tokens, tls_cert and tls_key to [api]; or listen on 127.0.0.1; or say insecure = true if something in \
         front of it guards it",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::api::{TlsConfig, TokenConfig};
    use crate::config::secret::SecretSource;

    fn config() -> (tempfile::TempDir, ApiConfig) {
        let directory = tempfile::tempdir().unwrap();
        let token = |name: &str, scope| {
            let path = directory.path().join(name);
            std::fs::write(&path, format!("{name}-0123456789abcdef\n")).unwrap();
            TokenConfig { name: name.to_owned(), scope, source: SecretSource::File(path) }
        };
        let tokens = vec![token("reader", Scope::Read), token("admin", Scope::Operate)];
        (directory, ApiConfig { tokens, ..ApiConfig::default() })
    }

    fn status(access: &Access, header: Option<&str>, needed: Scope) -> u16 {
        access.check(header, needed).map_or_else(|refusal| refusal.status, |_| 200)
    }

    #[test]
    fn tokens_decide() {
        let (_kept, config) = config();
        let access = Access::new(&config, &mut |_| ()).unwrap();
        let (reader, admin) = (Some("Bearer reader-0123456789abcdef"), Some("bearer admin-0123456789abcdef"));
        assert_eq!(status(&access, None, Scope::Read), 401);
        assert_eq!(status(&access, Some("Bearer nonsense"), Scope::Read), 401);
        assert_eq!(status(&access, Some("Basic reader-0123456789abcdef"), Scope::Read), 401);
        assert_eq!(status(&access, Some("Bearer "), Scope::Read), 401);
        assert_eq!(status(&access, reader, Scope::Read), 200);
        assert_eq!(status(&access, reader, Scope::Operate), 403);
        assert_eq!(status(&access, admin, Scope::Operate), 200);
        assert_eq!(status(&access, admin, Scope::Read), 200);
    }

    #[test]
    fn without_tokens_one_may_only_look() {
        let access = Access::new(&ApiConfig::default(), &mut |_| ()).unwrap();
        assert_eq!(status(&access, None, Scope::Read), 200);
        assert_eq!(status(&access, None, Scope::Operate), 403);
        let open = Access::new(&ApiConfig { insecure: true, ..ApiConfig::default() }, &mut |_| ()).unwrap();
        assert_eq!(status(&open, None, Scope::Operate), 200);
    }

    #[test]
    fn weak_tokens_are_refused_without_being_shown() {
        let (kept, mut config) = config();
        std::fs::write(kept.path().join("reader"), "short-one").unwrap();
        let error = Access::new(&config, &mut |_| ()).err().unwrap();
        assert_eq!(error.code, "api.token");
        assert!(!format!("{error:?}").contains("short-one"));
        config.tokens[0].source = config.tokens[1].source.clone();
        assert_eq!(Access::new(&config, &mut |_| ()).err().unwrap().code, "api.token");
    }

    #[test]
    fn beyond_this_machine_it_takes_tokens_and_tls() {
        let (_kept, config) = config();
        let everywhere: SocketAddr = "0.0.0.0:8432".parse().unwrap();
        let local: SocketAddr = "[::1]:8432".parse().unwrap();
        let tls = Some(TlsConfig { cert: "c".into(), key: "k".into() });
        assert!(may_listen(&ApiConfig::default(), local).is_ok());
        assert!(
            may_listen(&ApiConfig::default(), everywhere).unwrap_err().message.contains("tokens and TLS")
        );
        assert!(may_listen(&config, everywhere).unwrap_err().message.contains("no TLS"));
        let only_tls = ApiConfig { tls: tls.clone(), ..ApiConfig::default() };
        assert!(may_listen(&only_tls, everywhere).unwrap_err().message.contains("no tokens"));
        assert!(may_listen(&ApiConfig { tls, ..config }, everywhere).is_ok());
        let open = ApiConfig { insecure: true, ..ApiConfig::default() };
        assert!(may_listen(&open, everywhere).is_ok());
    }
}
