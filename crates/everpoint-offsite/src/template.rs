//! Places for the name of a file in addresses and arguments.

/// Replaces `{name}` as it stands.
pub(crate) fn plain(template: &str, name: &str) -> String {
    template.replace("{name}", name)
}

/// Replaces `{name}` so that it is one part of a path, whatever it holds.
pub(crate) fn in_url(template: &str, name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    template.replace("{name}", &escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_not_leave_its_place() {
        assert_eq!(in_url("http://a/{name}?x=1", "b c/../d?e"), "http://a/b%20c%2F..%2Fd%3Fe?x=1");
        assert_eq!(plain("put {name}", "x"), "put x");
    }
}
