//! The address that `protect` is given: the password in it, and the name that follows from it.

use everpoint_app::AppError;
use everpoint_pg::client::Config;

use crate::config::secret::Secret;
use crate::config::valid_name;

/// An address, its password apart.
#[derive(Debug, Clone)]
pub(super) struct Address {
    /// Without the password.
    pub(super) text: String,
    pub(super) password: Option<Secret>,
    /// `user@host:port/database`: the same for all spellings.
    pub(super) identity: String,
    database: String,
    hosts: Vec<String>,
}

impl Address {
    /// # Errors
    /// Class `Usage`: it is no address of a PostgreSQL server.
    pub(super) fn parse(text: &str) -> Result<Self, AppError> {
        let config =
            Config::parse(text).map_err(|error| AppError::from(error.at("understand", "the address")))?;
        let (without, had) = without_password(text);
        Ok(Self {
            text: without,
            password: config.password.as_ref().filter(|_| had).map(|password| Secret::new(password.reveal())),
            identity: config.to_string(),
            database: config.database.clone(),
            hosts: config.hosts.iter().map(|host| host.name.clone()).collect(),
        })
    }

    /// A name for the cluster: its database, unless that has one of the names that every server has; then its host.
    pub(super) fn cluster_name(&self) -> String {
        const EVERYWHERE: [&str; 3] = ["postgres", "template1", ""];
        let host = self.hosts.first().map(String::as_str).unwrap_or_default();
        let local = host.starts_with('/') || host == "localhost" || host.parse::<std::net::IpAddr>().is_ok();
        let from = match (EVERYWHERE.contains(&self.database.as_str()), local) {
            (false, _) => self.database.as_str(),
            (true, false) => host.split('.').next().unwrap_or_default(),
            (true, true) => "main",
        };
        let lower = from.to_ascii_lowercase();
        let plain: String = lower
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
            .take(50)
            .collect();
        let plain = plain.trim_start_matches(['-', '_']);
        if valid_name(plain) { plain.to_owned() } else { "main".to_owned() }
    }
}

/// Takes the password out of either spelling; tells whether there was one.
fn without_password(text: &str) -> (String, bool) {
    if text.contains("://") { url_without_password(text) } else { pairs_without_password(text) }
}

fn url_without_password(url: &str) -> (String, bool) {
    let (before, query) = url.split_once('?').map_or((url, None), |(before, query)| (before, Some(query)));
    let (scheme, rest) = before.split_once("://").unwrap_or(("postgres", before));
    let stop = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(stop);
    let mut had = false;
    let authority = match authority.rsplit_once('@').map(|(user, host)| (user.split_once(':'), host)) {
        Some((Some((user, _)), host)) => {
            had = true;
            format!("{user}@{host}")
        }
        _ => authority.to_owned(),
    };
    let kept: Vec<&str> = query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| {
            let secret = pair.split_once('=').is_some_and(|(name, _)| plain_name(name) == "password");
            had |= secret;
            !pair.is_empty() && !secret
        })
        .collect();
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    (format!("{scheme}://{authority}{path}{query}"), had)
}

/// The name of a parameter without its percent codes.
fn plain_name(name: &str) -> String {
    let mut plain = String::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        let code = after.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok());
        plain.extend(code.map(char::from));
        rest = after.get(2..).unwrap_or_default();
    }
    plain + rest
}

fn pairs_without_password(pairs: &str) -> (String, bool) {
    let (mut kept, mut had) = (Vec::new(), false);
    let mut rest = pairs.trim_start();
    while !rest.is_empty() {
        let end = pair_end(rest);
        let (pair, after) = rest.split_at(end);
        if pair.split('=').next().is_some_and(|name| name.trim() == "password") {
            had = true;
        } else {
            kept.push(pair.trim_end());
        }
        rest = after.trim_start();
    }
    (kept.join(" "), had)
}

/// Where a `name = value` ends: the value may stand in quotes, and a backslash takes the next character as it is.
fn pair_end(text: &str) -> usize {
    let value_at = match text.find('=') {
        Some(equals) => {
            let after = text.get(equals + 1..).unwrap_or_default();
            equals + 1 + (after.len() - after.trim_start().len())
        }
        None => return text.len(),
    };
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices().skip_while(|(at, _)| *at < value_at) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_taken_out_of_every_spelling() {
        for (given, wanted) in [
            (
                "postgres://me:s3cret@db1:5433/shop?sslmode=require",
                "postgres://me@db1:5433/shop?sslmode=require",
            ),
            (
                "postgres://me@db1/shop?password=s3cret&sslmode=require",
                "postgres://me@db1/shop?sslmode=require",
            ),
            ("postgres://me@db1/shop?password=s3cret", "postgres://me@db1/shop"),
            ("postgres://me@db1/shop?pass%77ord=s3cret", "postgres://me@db1/shop"),
            ("postgres://me:s3:cr@et@db1/shop", "postgres://me@db1/shop"),
            ("host=db1 password=s3cret user=me", "host=db1 user=me"),
            (r"host=db1 password = 's3cret \' x' user=me", "host=db1 user=me"),
        ] {
            assert_eq!(without_password(given), (wanted.to_owned(), true), "{given}");
        }
        let plain = "postgres://me@db1/shop";
        assert_eq!(without_password(plain), (plain.to_owned(), false));
        let address = Address::parse("postgres://me:p%40ss@db1/shop").unwrap();
        assert_eq!(address.password.unwrap().expose(), "p@ss");
        assert_eq!(address.text, "postgres://me@db1/shop");
    }

    #[test]
    fn names_follow_from_addresses() {
        for (address, name) in [
            ("postgres://me@db1/shop", "shop"),
            ("postgres://me@db1.example.com/postgres", "db1"),
            ("postgres://me@127.0.0.1:6400/postgres", "main"),
            ("postgres://me@localhost/Order_DB", "order_db"),
            ("host=/tmp user=me dbname=postgres", "main"),
        ] {
            assert_eq!(Address::parse(address).unwrap().cluster_name(), name, "{address}");
        }
    }
}
