//! From the address of a store to the store.

use std::path::Path;
use std::sync::Arc;

use crate::{LocalStore, Store, StoreError, StoreErrorKind};

/// Opens the store at `url`: an absolute path, or `file:///path`.
///
/// # Errors
/// `Usage` for an address of another kind, `NotFound` if nothing is there.
pub fn open_url(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(LocalStore::open(Path::new(&path(url)?))?))
}

/// As [`open_url`], and makes the directory (with its parents) if it is missing.
///
/// # Errors
/// `Usage` for an address of another kind, else if the directory can't be made.
pub fn create_url(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(LocalStore::create(Path::new(&path(url)?))?))
}

fn path(url: &str) -> Result<String, StoreError> {
    if url.starts_with('/') {
        return Ok(url.to_owned());
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(usage(url, "it is neither an absolute path nor an address like file:///path"));
    };
    match scheme {
        "file" => {
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            if !path.starts_with('/') {
                return Err(usage(url, "a file address holds an absolute path: file:///path"));
            }
            decode(path).ok_or_else(|| usage(url, "a % is not followed by two hexadecimal digits"))
        }
        "s3" | "gs" | "az" | "sftp" => {
            Err(usage(url, "this version stores into directories only (/path or file:///path)"))
        }
        _ => Err(usage(url, "its scheme is not known; use /path or file:///path")),
    }
}

/// `%20` and the like become the bytes that they stand for.
fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let hex = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = rest.get(2..)?;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn usage(url: &str, why: &'static str) -> StoreError {
    StoreError::new("open the store at", shown_url(url), StoreErrorKind::Usage).cause(why)
}

/// An address as it may be shown: of one that is no path, scheme, host and path only where nothing in it can be a part of a
/// password, whatever characters that has; else the scheme alone.
#[must_use]
pub fn shown_url(url: &str) -> String {
    if url.starts_with(['/', '.']) {
        return url.to_owned();
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return if url.contains(['@', ':']) { "***".to_owned() } else { url.to_owned() };
    };
    let plain = |text: &str, more: &str| {
        text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c) || more.contains(c))
    };
    if !(scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()) && scheme.len() <= 5) {
        return "***".to_owned();
    }
    if scheme == "file" && rest.starts_with('/') && !rest.contains('@') {
        return url.to_owned();
    }
    match rest.split_once('@') {
        None if plain(rest, "") => url.to_owned(),
        // A user, or a token in its place; a slash before the sign would be one of a password.
        Some((user, place)) if plain(user, "") && !user.contains('/') && plain(place, "") => {
            format!("{scheme}://***@{place}")
        }
        _ => format!("{scheme}://***"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_file_addresses_are_understood() {
        assert_eq!(path("/var/lib/x").unwrap(), "/var/lib/x");
        assert_eq!(path("file:///var/a%20b").unwrap(), "/var/a b");
        assert_eq!(path("file://localhost/x").unwrap(), "/x");
    }

    #[test]
    fn other_addresses_are_refused_without_their_secrets() {
        for url in [
            "s3://bucket/p",
            "sftp://user:geheim@host/p",
            "relative/path",
            "file://x",
            "file:///%zz",
            "x://y",
        ] {
            let error = path(url).unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Usage, "{url}");
            assert!(!format!("{error:?}").contains("geheim"));
        }
    }

    #[test]
    fn no_part_of_a_password_is_shown_whatever_characters_it_has() {
        for secret in
            ["hunter2", "hun@ter2", "hun/ter2", "hun?ter2", "hun#ter2", "hun%ter2", "hun:ter2", "hun ter2"]
        {
            for url in [
                format!("sftp://user:{secret}@host/path"),
                format!("s3://{secret}@bucket/path"),
                format!("s3://AKIA:{secret}/bucket"),
                format!("sftp://user:{secret}"),
                format!("s3://bucket/path?secret={secret}"),
                format!("user:{secret}@host/path"),
                format!("file://user:{secret}@host/path"),
                format!("{secret}://x"),
            ] {
                let shown = shown_url(&url);
                assert!(!shown.contains("hun") && !shown.contains("ter2"), "{url}: {shown}");
            }
        }
        assert_eq!(shown_url("s3://bucket/a/b"), "s3://bucket/a/b");
        assert_eq!(shown_url("sftp://me@host/a"), "sftp://***@host/a");
        assert_eq!(shown_url("/a@b:c"), "/a@b:c");
        assert_eq!(shown_url("file:///a b"), "file:///a b");
    }

    #[test]
    fn the_directory_is_made_only_on_request() {
        let scratch = tempfile::tempdir().unwrap();
        let place = scratch.path().join("a/b");
        let url = place.to_str().unwrap();
        assert_eq!(open_url(url).err().unwrap().kind, StoreErrorKind::NotFound);
        assert!(!place.exists());
        create_url(url).unwrap().put_new("x", b"1").unwrap();
        assert_eq!(open_url(&format!("file://{url}")).unwrap().get("x").unwrap(), b"1");
    }
}
