//! A role that may only replicate is let in for nothing else, and each attempt is a line in the server's log, as if something had
//! failed: one is enough for a while.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Config, PgError, Purpose, ServerError};

/// SQLSTATE: pg_hba.conf has no line for it, or the role does not exist.
const NOT_ALLOWED: &str = "28000";

/// So long the answer holds. Who adds a line to pg_hba.conf may have to wait for it in a process that goes on.
const HOLDS: Duration = Duration::from_secs(600);

/// Refusals of this process.
static REFUSED: Mutex<Vec<Refusal>> = Mutex::new(Vec::new());

struct Refusal {
    who: String,
    at: Instant,
    error: ServerError,
}

/// What the server looks at before it asks for a password.
fn who(config: &Config) -> String {
    format!("{config} {:?} {:?} {}", config.ssl_mode, config.client_certificate, config.ssl_direct)
}

/// The answer that a server gave to the same question not long ago.
pub(super) fn known(config: &Config, purpose: Purpose) -> Option<PgError> {
    if purpose != Purpose::Sql {
        return None;
    }
    let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    refused.retain(|refusal| refusal.at.elapsed() < HOLDS);
    let who = who(config);
    refused.iter().find(|refusal| refusal.who == who).map(|found| PgError::Server(found.error.clone()))
}

/// Remembers it, if it is one that will be repeated.
pub(super) fn note(config: &Config, purpose: Purpose, error: &PgError) {
    if let (Purpose::Sql, PgError::Server(said)) = (purpose, error)
        && said.code == NOT_ALLOWED
    {
        let refusal = Refusal { who: who(config), at: Instant::now(), error: said.clone() };
        REFUSED.lock().unwrap_or_else(PoisonError::into_inner).push(refusal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Environment;

    #[test]
    fn a_refusal_is_remembered_for_the_same_question_only() {
        let config = |text: &str| Config::parse_in(text, &Environment::with([])).unwrap();
        let ours = config("host=nowhere.invalid user=a dbname=d");
        let said = ServerError { code: NOT_ALLOWED.to_owned(), ..ServerError::default() };
        note(&ours, Purpose::Replication, &PgError::Server(said.clone()));
        assert!(known(&ours, Purpose::Sql).is_none());
        note(&ours, Purpose::Sql, &PgError::Server(said));
        assert!(known(&ours, Purpose::Sql).is_some() && known(&ours, Purpose::Replication).is_none());
        let encrypted = config("host=nowhere.invalid user=a dbname=d sslmode=require");
        assert!(known(&encrypted, Purpose::Sql).is_none());
        let wrong = PgError::Server(ServerError { code: "28P01".to_owned(), ..ServerError::default() });
        note(&encrypted, Purpose::Sql, &wrong);
        assert!(known(&encrypted, Purpose::Sql).is_none(), "a password can be corrected");
    }
}
