//! Words of commands that a person pastes into a shell.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// A word as a shell reads it back.
#[must_use]
pub fn word(word: &str) -> String {
    let plain =
        !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+:=@%,".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// A path as a shell reads it back.
#[must_use]
pub fn path(path: &Path) -> String {
    if let Some(path) = path.to_str() {
        return word(path);
    }
    // Bytes that are no UTF-8 would not survive a terminal.
    let octal = |byte: &u8| match byte {
        b'/' | b'.' | b'_' | b'-' => char::from(*byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(*byte).to_string(),
        byte => format!("\\{byte:03o}"),
    };
    let octal: String = path.as_os_str().as_bytes().iter().map(octal).collect();
    format!("\"$(printf '{octal}')\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_they_need_it() {
        assert_eq!(word("/srv/a-b_c.d"), "/srv/a-b_c.d");
        assert_eq!(word("/srv/it's here"), "'/srv/it'\\''s here'");
        assert_eq!(word(""), "''");
        let odd = Path::new(std::ffi::OsStr::from_bytes(b"/a b/caf\xe9"));
        assert_eq!(path(odd), "\"$(printf '/a\\040b/caf\\351')\"");
    }
}
