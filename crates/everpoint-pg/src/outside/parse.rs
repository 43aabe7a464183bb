//! Reads the server's configuration files as the server does, as far as they name other files. They are bytes: a comment
//! in Latin-1 must not hide the rest of its file.

/// A line of `postgresql.conf`: the name in lower case and its value.
pub(super) fn setting(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let line = line.trim_ascii();
    let end = line.iter().position(|c| !(c.is_ascii_alphanumeric() || b"_.$".contains(c)))?;
    let (name, rest) = line.split_at_checked(end)?;
    if name.is_empty() {
        return None;
    }
    let rest = rest.trim_ascii_start();
    let rest = rest.strip_prefix(b"=").unwrap_or(rest).trim_ascii_start();
    let value = match rest.first()? {
        b'\'' => quoted(rest.get(1..)?),
        b'"' => rest.get(1..)?.split(|c| *c == b'"').next()?.to_vec(),
        _ => rest.split(|c| c.is_ascii_whitespace() || *c == b'#').next()?.to_vec(),
    };
    Some((String::from_utf8_lossy(name).to_ascii_lowercase(), value))
}

/// A value up to its closing quote: a quote in it is doubled or has a backslash before it.
fn quoted(text: &[u8]) -> Vec<u8> {
    let mut value = Vec::new();
    let mut rest = text.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b'\'' if rest.peek() == Some(&b'\'') => value.extend(rest.next()),
            b'\'' => break,
            b'\\' => value.extend(rest.next()),
            _ => value.push(byte),
        }
    }
    value
}

/// A file that a line of `pg_hba.conf` or `pg_ident.conf` names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// Lines as if they stood here; whether it must be there.
    Lines(Vec<u8>, bool),
    /// A directory of such files.
    Directory(Vec<u8>),
    /// Names, one or more a line: `@file`.
    Names(Vec<u8>),
}

/// The files that a file of access rules names. A backslash at the end of a line joins it with the next.
pub(super) fn access(text: &[u8]) -> Vec<Named> {
    let mut named = Vec::new();
    let mut line: Vec<u8> = Vec::new();
    for part in text.split(|c| *c == b'\n') {
        let part = part.strip_suffix(b"\r").unwrap_or(part);
        if let Some(part) = part.strip_suffix(b"\\") {
            line.extend_from_slice(part);
            continue;
        }
        line.extend_from_slice(part);
        let words = words(&std::mem::take(&mut line));
        match words.as_slice() {
            [(word, _), (file, _)] if word == b"include" => named.push(Named::Lines(file.clone(), true)),
            [(word, _), (file, _)] if word == b"include_if_exists" => {
                named.push(Named::Lines(file.clone(), false));
            }
            [(word, _), (file, _)] if word == b"include_dir" => named.push(Named::Directory(file.clone())),
            words => named.extend(words.iter().filter(|(_, quoted)| !quoted).filter_map(|(word, _)| {
                let file = word.strip_prefix(b"@").filter(|file| !file.is_empty())?;
                Some(Named::Names(file.to_vec()))
            })),
        }
    }
    named
}

/// Words of a line, and whether each began with a quote; a comma separates them too.
fn words(line: &[u8]) -> Vec<(Vec<u8>, bool)> {
    let (mut words, mut word, mut quoted, mut inside) = (Vec::new(), None::<Vec<u8>>, false, false);
    for byte in line.iter().copied() {
        match byte {
            b'"' => {
                quoted |= word.is_none();
                inside = !inside;
                word.get_or_insert_default();
            }
            b'#' if !inside => break,
            c if !inside && (c.is_ascii_whitespace() || c == b',') => {
                words.extend(word.take().map(|word| (word, std::mem::take(&mut quoted))));
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word.map(|word| (word, quoted)));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_read_as_the_server_reads_it() {
        let read = |line: &str| {
            setting(line.as_bytes()).map(|(name, value)| (name, String::from_utf8(value).unwrap()))
        };
        let is = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
        assert_eq!(read("include 'a b.conf' # x"), is("include", "a b.conf"));
        assert_eq!(read("  INCLUDE_DIR= conf.d#x"), is("include_dir", "conf.d"));
        assert_eq!(read("a='it''s\\'here'"), is("a", "it's'here"));
        assert_eq!(read("include \"x\""), is("include", "x"));
        assert_eq!(read("# include 'x'"), None);
        assert_eq!(read("port"), None);
        assert_eq!(setting(b"# \xe4\xf6"), None);
    }

    #[test]
    fn access_rules_name_files() {
        let text =
            b"include \"more.conf\"\ninclude_if_exists b\ninclude_dir c\nlocal @dbs,x @users peer # @no\n\
                     host \\\nall @joined 0.0.0.0/0 md5\nlocal \"@quoted\" all peer\n# \xfc @no\n";
        let names = |name: &[u8]| Named::Names(name.to_vec());
        assert_eq!(
            access(text),
            [
                Named::Lines(b"more.conf".to_vec(), true),
                Named::Lines(b"b".to_vec(), false),
                Named::Directory(b"c".to_vec()),
                names(b"dbs"),
                names(b"users"),
                names(b"joined"),
            ]
        );
    }
}
