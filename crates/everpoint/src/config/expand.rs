//! Environment variables in texts of the configuration.

/// A variable is named only if its name looks like one: `${` may stand in a password.
fn unset(name: &str) -> String {
    let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let begins = name.starts_with(|c: char| c.is_ascii_uppercase());
    // Passwords of capitals and digits are not rare, with an underscore they are.
    if begins && name.contains('_') && name.chars().all(upper) {
        return format!("the environment variable {name} is not set");
    }
    "it names an environment variable that is not set; a plain `${` is written `$${`".to_owned()
}

/// Puts environment variables in place of `${NAME}`.
pub(crate) fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = rest.find("${") {
        let (before, tail) = rest.split_at(found);
        let inner = tail.get(2..).unwrap_or_default();
        if let Some(literal) = before.strip_suffix('$') {
            out.push_str(literal);
            out.push_str("${");
            rest = inner;
            continue;
        }
        out.push_str(before);
        let Some((name, after)) = inner.split_once('}') else {
            return Err("`${` without its `}`".to_owned());
        };
        match variable(name) {
            Some(value) => out.push_str(&value),
            None => return Err(unset(name)),
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced() {
        let variable = |name: &str| (name == "PW").then(|| "s3".to_owned());
        assert_eq!(expand("a${PW}b${PW}", &variable).as_deref(), Ok("as3bs3"));
        assert_eq!(expand("a$${PW}b", &variable).as_deref(), Ok("a${PW}b"));
        assert_eq!(expand("no$thing", &variable).as_deref(), Ok("no$thing"));
        assert!(expand("${NO_SUCH}", &variable).unwrap_err().contains("NO_SUCH"));
        assert!(!expand("pa${ssword}", &variable).unwrap_err().contains("ssword"));
        assert!(expand("${PW", &variable).is_err());
    }
}
