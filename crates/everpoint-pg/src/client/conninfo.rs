//! The two spellings of connection parameters: `key=value ...` and `postgres://...`.
//! Rules: PostgreSQL documentation, "Connection Strings".

use std::collections::BTreeMap;

use super::PgError;

/// Parameters by libpq's names.
pub(super) type Parameters = BTreeMap<String, String>;

/// Reads either spelling.
///
/// # Errors
/// If it is neither; the text is not repeated in the error, it may hold a password.
pub(super) fn parse(text: &str) -> Result<Parameters, PgError> {
    let text = text.trim();
    match text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
        Some(rest) => parse_url(rest),
        None => parse_pairs(text),
    }
}

fn parse_url(rest: &str) -> Result<Parameters, PgError> {
    let mut parameters = Parameters::new();
    refuse_ambiguous(rest)?;
    let (before_query, query) = rest.split_once('?').map_or((rest, None), |(a, b)| (a, Some(b)));
    let (authority, database) =
        before_query.split_once('/').map_or((before_query, None), |(a, b)| (a, Some(b)));
    let (credentials, hosts) = authority.rsplit_once('@').map_or((None, authority), |(a, b)| (Some(a), b));
    if let Some(credentials) = credentials {
        let (user, password) = credentials.split_once(':').map_or((credentials, None), |(a, b)| (a, Some(b)));
        put(&mut parameters, "user", percent_decoded(user)?);
        if let Some(password) = password {
            put(&mut parameters, "password", percent_decoded(password)?);
        }
    }
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = host_and_port(host)?;
        names.push(percent_decoded(name)?);
        ports.push(port.to_owned());
    }
    put(&mut parameters, "host", names.join(","));
    if ports.iter().any(|port| !port.is_empty()) {
        put(&mut parameters, "port", ports.join(","));
    }
    if let Some(database) = database {
        put(&mut parameters, "dbname", percent_decoded(database)?);
    }
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| PgError::parameter("a URL parameter lacks its `=`"))?;
        let (name, value) = (percent_decoded(name)?, percent_decoded(value)?);
        if name == "ssl" && value == "true" {
            put(&mut parameters, "sslmode", "require".to_owned());
        } else {
            parameters.insert(name, value);
        }
    }
    Ok(parameters)
}

/// A password that holds a character with a meaning in URLs, written as it is, would be taken apart: its pieces for a host, a
/// port or a database, which are shown and written down.
fn refuse_ambiguous(rest: &str) -> Result<(), PgError> {
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let path = rest.get(authority.len()..).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    // `user=name@server` in the query is usual; where there is a user before the host, it is a piece of a password.
    let query_of_password = !authority.contains('@') && authority.contains(':') && rest.contains('@');
    if path.contains('@') || query_of_password && path.is_empty() {
        return Err(PgError::Parameter {
            message: "an `@` in the URL stands where none can be: user, password or database hold a character that \
                      has a meaning in URLs"
                .to_owned(),
            hint: Some(
                "write such characters as percent codes: @ as %40, : as %3A, / as %2F, ? as %3F, # as %23, % as %25, \
                 a space as %20; or give the password by PGPASSWORD, ~/.pgpass or password_file"
                    .to_owned(),
            ),
        });
    }
    Ok(())
}

fn put(parameters: &mut Parameters, name: &str, value: String) {
    if !value.is_empty() {
        parameters.insert(name.to_owned(), value);
    }
}

fn host_and_port(host: &str) -> Result<(&str, &str), PgError> {
    if let Some(rest) = host.strip_prefix('[') {
        let (address, after) = rest
            .split_once(']')
            .ok_or_else(|| PgError::parameter("an IPv6 address in the URL lacks its closing bracket"))?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((address, port)),
            None if after.is_empty() => Ok((address, "")),
            None => {
                Err(PgError::parameter("something other than a port follows the IPv6 address in the URL"))
            }
        };
    }
    Ok(host.split_once(':').unwrap_or((host, "")))
}

fn percent_decoded(text: &str) -> Result<String, PgError> {
    let broken = || PgError::parameter("a percent code in the URL is broken (a `%` itself is written %25)");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next().ok_or_else(broken)?, rest.next().ok_or_else(broken)?];
        let code = std::str::from_utf8(&digits).map_err(|_| broken())?;
        let value = u8::from_str_radix(code, 16).map_err(|_| broken())?;
        if value == 0 {
            return Err(broken());
        }
        bytes.push(value);
    }
    String::from_utf8(bytes).map_err(|_| broken())
}

fn parse_pairs(text: &str) -> Result<Parameters, PgError> {
    let mut parameters = Parameters::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        if rest.peek().is_none() {
            return Ok(parameters);
        }
        let mut name = String::new();
        while let Some(c) = rest.next_if(|c| *c != '=' && !c.is_whitespace()) {
            name.push(c);
        }
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        if name.is_empty() || rest.next() != Some('=') {
            return Err(PgError::Parameter {
                message: "connection parameters are neither `postgres://...` nor `name=value ...`".to_owned(),
                hint: Some("e.g. postgres://backup@db1:5432/postgres?sslmode=verify-full".to_owned()),
            });
        }
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        let value = value(&mut rest)
            .ok_or_else(|| PgError::parameter("a quoted value in the connection parameters lacks its end"))?;
        parameters.insert(name, value);
    }
}

/// One value: up to white space, or quoted; a backslash takes the next character as it is.
fn value(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let quoted = rest.next_if_eq(&'\'').is_some();
    let mut value = String::new();
    loop {
        match rest.peek().copied() {
            None => return (!quoted).then_some(value),
            Some('\'') if quoted => {
                rest.next();
                return Some(value);
            }
            Some(c) if !quoted && c.is_whitespace() => return Some(value),
            Some('\\') => {
                rest.next();
                value.push(rest.next()?);
            }
            Some(c) => {
                rest.next();
                value.push(c);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().into_iter().collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        assert_eq!(
            read("postgres://me:p%40ss@db1:6000,[::1]:6001/shop?sslmode=require&connect_timeout=3"),
            pairs(&[
                ("connect_timeout", "3"),
                ("dbname", "shop"),
                ("host", "db1,::1"),
                ("password", "p@ss"),
                ("port", "6000,6001"),
                ("sslmode", "require"),
                ("user", "me"),
            ])
        );
        assert_eq!(
            read("postgresql://%2Fvar%2Frun/x?user=u"),
            pairs(&[("dbname", "x"), ("host", "/var/run"), ("user", "u")])
        );
        assert_eq!(read("postgres://"), pairs(&[]));
        assert_eq!(read("postgres:///db?host=/tmp"), pairs(&[("dbname", "db"), ("host", "/tmp")]));
    }

    #[test]
    fn pairs_may_be_quoted_and_escaped() {
        assert_eq!(
            read(r"host = db1 password='it\'s a \\ secret' user=a\ b dbname=''"),
            pairs(&[("dbname", ""), ("host", "db1"), ("password", r"it's a \ secret"), ("user", "a b")])
        );
    }

    #[test]
    fn what_is_broken_is_refused_without_showing_it() {
        for bad in [
            "postgres://u:s3cret%zz@h/",
            "password='s3cret",
            "s3cret",
            "postgres://u@[::1/x",
            "postgres://u:p/s3cret@h/d",
            "postgres://u:12/s3cret@h/d",
            "postgres://u:12?s3cret@h/d",
            "postgres://u:p@ss/s3cret@h/d",
            "postgres://u:12?a=s3cret@h/d",
            "password='x s3cret='y",
        ] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
        let azure = read("postgres://h:5432/d?user=me@server");
        assert!(azure.contains(&("user".to_owned(), "me@server".to_owned())));
    }
}
