//! What a provider says, without what is secret in it and without what a terminal would obey.

use crate::ProviderError;

/// Stands where a secret was.
const MASK: &str = "***";
/// Shorter texts are no secrets, and would mask half of what is said.
const SHORTEST: usize = 4;
/// Longer parts of a path are no words.
const PLAIN: usize = 12;

/// The secrets that a provider was given, and may say again when it fails.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// The value of a header: as a whole, what follows its first word (`Bearer`, `Basic`), and each value of a cookie.
    pub(crate) fn header(&mut self, value: &str) {
        self.add(value);
        value.split_once(' ').into_iter().for_each(|(_, rest)| self.add(rest));
        value.split([';', ',']).filter_map(|pair| pair.split_once('=')).for_each(|(_, word)| self.add(word));
    }

    /// What of an address may be secret: user and password, parts of its path that are no plain words, and the values of its
    /// query.
    pub(crate) fn address(&mut self, url: &str) {
        let (_, query) = url.split_once('?').unwrap_or((url, ""));
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        if let Some((user, _)) = rest.rsplit_once('@') {
            self.add(user);
            user.split([':', '@', '/', '?', '#']).skip(1).for_each(|password| self.add(password));
            user.split_once(':').into_iter().for_each(|(_, password)| self.add(password));
        }
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        let plain = |part: &&str| part.len() <= PLAIN && part.bytes().all(|byte| byte.is_ascii_lowercase());
        path.split('/').skip(1).filter(|part| !plain(part)).for_each(|part| self.add(part));
        query
            .split(['&', '#'])
            .filter_map(|pair| pair.split_once('='))
            .for_each(|(_, value)| self.add(value));
    }

    /// A secret as it is.
    pub(crate) fn add(&mut self, secret: &str) {
        let secret = secret.trim();
        if secret.len() >= SHORTEST && secret != "{name}" && !self.0.iter().any(|known| known == secret) {
            self.0.push(secret.to_owned());
            // The longest first: one may be a part of another.
            self.0.sort_by_key(|known| std::cmp::Reverse(known.len()));
        }
    }

    /// A text without them, nor the part of one where the text was cut.
    pub(crate) fn hide(&self, text: &str) -> String {
        let mut hidden = text.to_owned();
        for secret in &self.0 {
            hidden = hidden.replace(secret.as_str(), MASK);
        }
        for secret in &self.0 {
            let cuts = || secret.char_indices().map(|(at, _)| at).filter(|at| *at >= SHORTEST);
            let begun = cuts().rev().find_map(|at| hidden.strip_suffix(secret.get(..at)?));
            if let Some(rest) = begun {
                hidden = format!("{rest}{MASK}");
            }
            let tails = || secret.char_indices().map(|(at, _)| at).skip(1);
            let ended = tails().filter_map(|at| secret.get(at..)).filter(|tail| tail.len() >= SHORTEST);
            if let Some(rest) = ended.into_iter().find_map(|tail| hidden.strip_prefix(tail)) {
                hidden = format!("{MASK}{rest}");
            }
        }
        without_credentials(&hidden)
    }

    /// An error whose cause does not tell them.
    pub(crate) fn hide_in(&self, mut error: ProviderError) -> ProviderError {
        error.cause = error.cause.map(|cause| self.hide(&cause.to_string()).into());
        error
    }
}

/// A text without the words that follow `Bearer` and `Basic`: user and password of an address go out in another form.
fn without_credentials(text: &str) -> String {
    let (mut hidden, mut follows) = (String::with_capacity(text.len()), false);
    for word in text.split_inclusive(' ') {
        let plain = word.trim_end_matches(' ');
        if follows && plain.len() >= SHORTEST && !plain.starts_with("realm") {
            hidden.push_str(MASK);
            hidden.push_str(word.get(plain.len()..).unwrap_or_default());
        } else {
            hidden.push_str(word);
        }
        let lower = plain.to_ascii_lowercase();
        follows = ["bearer", "basic"].iter().any(|scheme| lower.ends_with(scheme));
    }
    hidden
}

/// A text without what a terminal would obey: control characters, and those that turn or hide what stands there.
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter(|c| !is_formatting(*c)).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Marks of direction, invisible characters, separators of lines.
fn is_formatting(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_headers_and_addresses_are_masked() {
        let mut secrets = Secrets::default();
        secrets.header("Bearer SECRETTOKEN");
        secrets.header("session=COOKIEVALUE; theme=dark");
        secrets.address("https://user:passw0rd@host/upload/T0BAC/{name}?sig=SIGNATURE&n={name}");
        let said = secrets.hide(
            "no upload/T0BAC/x: bad Bearer SECRETTOKEN, Bearer thing not: SECRETTOKEN, COOKIEVALUE, passw0rd@, SIGNATURE, {name}",
        );
        for secret in ["SECRET", "COOKIE", "passw0rd", "SIGNATURE", "T0BAC"] {
            assert!(!said.contains(secret), "{said}");
        }
        assert!(
            said.contains("no upload/***/x: bad ***, Bearer *** not: ***") && said.contains("{name}"),
            "{said}"
        );
    }

    #[test]
    fn credentials_are_masked_in_the_form_in_which_they_go_out() {
        let secrets = Secrets::default();
        assert_eq!(secrets.hide("bad authorization: Basic dTp1cmxwYXNz !"), "bad authorization: Basic *** !");
        assert_eq!(secrets.hide("needs Basic realm=x"), "needs Basic realm=x");
    }

    #[test]
    fn a_secret_is_masked_although_the_text_is_cut_within_it() {
        let mut secrets = Secrets::default();
        secrets.add("SECRETTOKEN");
        assert_eq!(secrets.hide("bad token SECRETTO"), "bad token ***");
        assert_eq!(secrets.hide("ETTOKEN was bad"), "*** was bad");
        assert_eq!(secrets.hide("fine"), "fine");
    }

    #[test]
    fn a_terminal_is_told_nothing() {
        assert_eq!(clean("a\u{202e}b\u{1b}[31m\u{200b}c\u{2066}"), "ab [31mc");
    }
}
