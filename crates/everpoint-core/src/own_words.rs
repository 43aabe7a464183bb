//! What a command of the configuration says, without the command's own words: a secret may stand among them, or in place of
//! the command.

/// So many characters are a piece of a secret.
const PIECE: usize = 4;
/// Stands where a word of the command was.
const MASK: &str = "***";

/// A text without each word that holds a piece of the command: four of its characters in a row.
#[must_use]
pub fn hide_own(text: &str, command: &[&str]) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut told = vec![false; letters.len()];
    let own: Vec<Vec<char>> = command.iter().map(|word| word.chars().collect()).collect();
    for (at, piece) in letters.windows(PIECE).enumerate() {
        let blank = piece.iter().all(|c| c.is_whitespace());
        if !blank && own.iter().any(|word| word.windows(PIECE).any(|known| known == piece)) {
            told.iter_mut().skip(at).take(PIECE).for_each(|told| *told = true);
        }
    }
    let (mut hidden, mut word, mut masked) = (String::with_capacity(text.len()), String::new(), false);
    for (c, told) in letters.into_iter().zip(told) {
        if c.is_whitespace() {
            hidden.push_str(if masked { MASK } else { &word });
            hidden.push(c);
            word.clear();
            masked = false;
        } else {
            masked |= told;
            word.push(c);
        }
    }
    hidden.push_str(if masked { MASK } else { &word });
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_is_shown_without_the_words_that_it_was_given() {
        let command = ["curl", "-H", "X-Key: Zq7w Kx9v", "https://host/T0001/{name}"];
        for (said, wanted) in [
            ("(22) The requested URL returned error: 507", "(22) The requested URL returned error: 507"),
            ("bad key Zq7w Kx9v!", "bad key *** ***"),
            ("(https://host/T0001/a): no such place", "*** no such place"),
            ("key 9v!", "key 9v!"),
            ("no room\nleft ", "no room\nleft "),
        ] {
            assert_eq!(hide_own(said, &command), wanted);
        }
        assert_eq!(hide_own("x: hunter2: not found", &["hunter2"]), "x: *** not found");
        assert_eq!(hide_own("", &["hunter2"]), "");
        assert_eq!(hide_own("abc", &["abc"]), "abc", "too short to be a piece");
    }
}
