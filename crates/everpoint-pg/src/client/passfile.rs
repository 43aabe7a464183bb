//! `~/.pgpass`: passwords by host, port, database and user.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::secret::Secret;

/// What a password is wanted for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Host name as given; `localhost` for the default socket directory.
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// Database; `replication` for a replication connection.
    pub database: &'a str,
    /// User.
    pub user: &'a str,
}

/// The password of the first line that fits. A file that others may read is not used (as libpq does), a warning says so.
pub(super) fn find(path: &Path, wanted: Wanted<'_>) -> Option<Secret> {
    let facts = match fs::metadata(path) {
        Ok(facts) => facts,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "password file can't be read");
            }
            return None;
        }
    };
    if !facts.is_file() {
        tracing::warn!(path = %path.display(), "password file is not a plain file and is not used");
        return None;
    }
    if facts.permissions().mode() & 0o077 != 0 {
        tracing::warn!(
            path = %path.display(),
            "password file can be read by others and is not used; chmod 600 makes it usable"
        );
        return None;
    }
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "password file can't be read");
            return None;
        }
    };
    lookup(&text, wanted)
}

fn lookup(text: &str, wanted: Wanted<'_>) -> Option<Secret> {
    let port = wanted.port.to_string();
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let [host, its_port, database, user, password] = fields.as_slice() else {
            return None;
        };
        let fits = |field: &Field, value: &str| field.any || field.text == value;
        let all = fits(host, wanted.host)
            && fits(its_port, &port)
            && fits(database, wanted.database)
            && fits(user, wanted.user);
        all.then(|| Secret::new(password.text.clone()))
    })
}

#[derive(Default)]
struct Field {
    text: String,
    any: bool,
}

/// Five fields between colons; a backslash takes the next character as it is. The password reaches to the next colon that
/// is not escaped, or to the end.
fn fields(line: &str) -> Vec<Field> {
    let mut fields = vec![Field::default()];
    let mut plain_star = true;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        let Some(field) = fields.last_mut() else { break };
        match c {
            ':' => {
                field.any = plain_star && field.text == "*";
                fields.push(Field::default());
                plain_star = true;
            }
            '\\' => {
                plain_star = false;
                field.text.extend(rest.next());
            }
            c => field.text.push(c),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted<'_> = Wanted { host: "db1", port: 5432, database: "replication", user: "backup" };

    #[test]
    fn the_first_line_that_fits_counts() {
        let text = "# comment\ndb2:*:*:*:no\ndb1:5433:*:backup:no\n*:*:replication:backup:a\\:b\\\\c\n*:*:*:*:late\n";
        assert_eq!(lookup(text, WANTED).unwrap().reveal(), "a:b\\c");
        assert!(lookup("db1:5432:shop:backup:x", WANTED).is_none());
        assert!(lookup("\\*:5432:*:backup:x", WANTED).is_none(), "an escaped star is a name");
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pass");
        fs::write(&path, "*:*:*:*:x\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(find(&path, WANTED).is_none());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(find(&path, WANTED).unwrap().reveal(), "x");
    }
}
