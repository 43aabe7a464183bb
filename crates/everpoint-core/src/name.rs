//! Names of files, databases and restore points are bytes. In memory and in JSON they are text in which every byte that is
//! no UTF-8 is escaped, so that nothing is lost and everything can be shown.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// How an escaped byte begins; two hexadecimal digits in lower case follow.
const MARK: &str = "\\x";
/// The backslash itself, where what follows would make an escape of it.
const BACKSLASH: &str = "\\x5c";

/// Bytes as text: UTF-8 as it is, each other byte as `\x` and two digits. A backslash that would read as the beginning of
/// such an escape is escaped, too, so that [`unescape`] gives the same bytes back.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(at) = rest.find('\\') {
            let (before, found) = rest.split_at(at);
            text.push_str(before);
            text.push_str(if escaped(found).is_some() { BACKSLASH } else { "\\" });
            rest = found.get(1..).unwrap_or_default();
        }
        text.push_str(rest);
        for byte in chunk.invalid() {
            text.push_str(&format!("{MARK}{byte:02x}"));
        }
    }
    text
}

/// The bytes that [`escape`] made the text of. Other text stands for itself.
#[must_use]
pub fn unescape(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(MARK) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, found) = rest.split_at(at);
        bytes.extend_from_slice(before.as_bytes());
        let (byte, length) = escaped(found).map_or((b'\\', 1), |byte| (byte, BACKSLASH.len()));
        bytes.push(byte);
        rest = found.get(length..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    Cow::Owned(bytes)
}

/// The byte of which an escape stands at the beginning. What is never escaped is none: no text can stand for a `/`.
fn escaped(text: &str) -> Option<u8> {
    let digits = text.strip_prefix(MARK)?.get(..2)?;
    let lower = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let byte = u8::from_str_radix(digits, 16).ok().filter(|_| lower)?;
    (byte >= 0x80 || byte == b'\\').then_some(byte)
}

/// A path as text.
#[must_use]
pub fn of_path(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

/// The path of which [`of_path`] made the text.
#[must_use]
pub fn to_path(text: &str) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&unescape(text)))
}

/// The order of two escaped names by their bytes.
#[must_use]
pub fn compare(one: &str, other: &str) -> Ordering {
    unescape(one).cmp(&unescape(other))
}

/// Whether `wanted`, as somebody types it, means this name: its bytes, the way it is shown, or, for a name that is no UTF-8,
/// what it is in Latin-1.
#[must_use]
pub fn means(name: &str, wanted: &str) -> bool {
    if name == wanted {
        return true;
    }
    let bytes = unescape(name);
    bytes.as_ref() == wanted.as_bytes()
        || bytes == unescape(wanted)
        || (std::str::from_utf8(&bytes).is_err() && bytes.iter().copied().map(char::from).eq(wanted.chars()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_that_are_no_utf8_are_shown_and_come_back() {
        let cases: [(&[u8], &str); 8] = [
            (b"plain", "plain"),
            ("caf\u{e9}".as_bytes(), "caf\u{e9}"),
            (b"caf\xe9", "caf\\xe9"),
            (b"a\\b", "a\\b"),
            (b"a\\xe9", "a\\x5cxe9"),
            (b"a\\x5c", "a\\x5cx5c"),
            (b"\\x41\\xE9", "\\x41\\xE9"),
            (b"\\\xff/\xfe", "\\\\xff/\\xfe"),
        ];
        for (bytes, text) in cases {
            assert_eq!(escape(bytes), text);
            assert_eq!(unescape(text).as_ref(), bytes, "{text}");
        }
        assert_eq!(
            unescape("\\x2f\\x00\\x2e").as_ref(),
            b"\\x2f\\x00\\x2e",
            "no separator comes of an escape"
        );
    }

    #[test]
    fn names_are_ordered_by_their_bytes() {
        assert_eq!(compare("a\\xff", "az"), Ordering::Greater);
        assert_eq!(compare("a", "a"), Ordering::Equal);
    }

    #[test]
    fn a_name_is_meant_by_what_is_shown_and_by_what_it_was_in_latin_1() {
        let name = escape(b"caf\xe9");
        for wanted in ["caf\\xe9", "caf\u{e9}"] {
            assert!(means(&name, wanted), "{wanted}");
        }
        assert!(!means(&name, "cafe") && !means("caf\u{c3}\u{a9}", "caf\u{e9}"));
        assert!(means(&escape(b"a\\xe9"), "a\\xe9"), "a name with a backslash of its own");
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in prop::collection::vec(prop_oneof![Just(b'\\'), Just(b'x'), Just(b'5'), Just(b'c'), any::<u8>()], 0..40)) {
            let text = escape(&bytes);
            prop_assert_eq!(unescape(&text).into_owned(), bytes);
        }
    }
}
