//! Mistakes in a configuration file: where, what, and what was probably meant.

use std::fmt::Write as _;
use std::ops::Range;

/// One mistake, at bytes `at` of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Byte range in the file.
    pub(crate) at: Range<usize>,
    /// What is wrong.
    pub(crate) message: String,
    /// What was probably meant, or what to write.
    pub(crate) hint: Option<String>,
}

impl Mistake {
    pub(crate) fn new(at: Range<usize>, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// All mistakes, the first one first, with line, column and the line itself where there is one.
pub(crate) fn render(source: &str, mistakes: &[Mistake]) -> String {
    let mut sorted: Vec<&Mistake> = mistakes.iter().collect();
    sorted.sort_by_key(|mistake| mistake.at.start);
    let mut out = String::new();
    for mistake in sorted {
        if !out.is_empty() {
            out.push('\n');
        }
        if mistake.at == (0..0) {
            // Not of a place in the file: of a variable, or of what the file lacks.
            out.push_str(&mistake.message);
            if let Some(hint) = &mistake.hint {
                let _ = write!(out, "; {hint}");
            }
            continue;
        }
        let place = Place::of(source, mistake.at.start);
        let width = mistake.at.end.saturating_sub(mistake.at.start).max(1);
        let gutter = place.line.to_string();
        let blank = " ".repeat(gutter.len());
        let shown = hide_secrets(place.text);
        // Where something was hidden the marks below would point at the wrong characters.
        let marks = if shown == place.text {
            let room = place.text.chars().count().saturating_sub(place.column - 1).max(1);
            format!("{}{}", " ".repeat(place.column - 1), "^".repeat(width.min(room)))
        } else {
            "^".to_owned()
        };
        // Writing into a String can't fail.
        let _ = write!(out, "line {}, column {}: {}", place.line, place.column, mistake.message);
        if let Some(hint) = &mistake.hint {
            let _ = write!(out, "; {hint}");
        }
        let _ = write!(out, "\n  {gutter} | {shown}\n  {blank} | {marks}");
    }
    out
}

struct Place<'a> {
    /// From 1.
    line: usize,
    /// From 1, in characters.
    column: usize,
    text: &'a str,
}

impl<'a> Place<'a> {
    fn of(source: &'a str, at: usize) -> Self {
        let mut at = at.min(source.len());
        while !source.is_char_boundary(at) {
            at -= 1;
        }
        let (before, after) = source.split_at(at);
        let begin = before.rfind('\n').map_or(0, |newline| newline + 1);
        let end = at + after.find('\n').unwrap_or(after.len());
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(begin..).map_or(0, |head| head.chars().count()) + 1,
            text: source.get(begin..end).unwrap_or_default().trim_end(),
        }
    }
}

/// Replaces the password of a URL, and the value of `password=`, by stars.
pub(crate) fn hide_secrets(text: &str) -> String {
    hide_assigned(&hide_in_url(text))
}

fn hide_in_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let stop = rest.find(['/', '"', '\'', '?', ' ']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(stop);
    let Some((user, host)) = authority.rsplit_once('@') else {
        return text.to_owned();
    };
    match user.split_once(':') {
        Some((name, _)) => format!("{scheme}://{name}:***@{host}{tail}"),
        None => text.to_owned(),
    }
}

fn hide_assigned(text: &str) -> String {
    const WORD: &str = "password=";
    let Some(found) = text.find(WORD) else {
        return text.to_owned();
    };
    let (head, value) = text.split_at(found + WORD.len());
    let stop = value.find(['&', ' ', '"']).unwrap_or(value.len());
    format!("{head}***{}", value.get(stop..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_shows_its_line_without_secrets() {
        let source = "[a]\nx = \"postgres://me:s3cret@h/db\"\n";
        let shown = render(source, &[Mistake::new(8..10, "wrong")]);
        assert!(shown.contains("line 2, column 5: wrong"), "{shown}");
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("postgres://me:***@h/db"), "{shown}");
        assert_eq!(hide_secrets("host=a password=b user=c"), "host=a password=*** user=c");
        assert_eq!(hide_secrets("postgres://u@h/d?password=b&x=y"), "postgres://u@h/d?password=***&x=y");
        assert_eq!(hide_secrets("postgres://u:p@ss@h/d"), "postgres://u:***@h/d");
    }

    #[test]
    fn marks_stand_under_the_word() {
        let shown = render("a = 1\nßuri = 2", &[Mistake::new(8..11, "unknown")]);
        assert_eq!(shown, "line 2, column 2: unknown\n  2 | ßuri = 2\n    |  ^^^");
    }
}
