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
    /// The line can't be understood, so that no part of it is known to be no secret: it is not shown.
    unread: bool,
}

impl Mistake {
    pub(crate) fn new(at: Range<usize>, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: None, unread: false }
    }

    /// Of a file that is no TOML.
    pub(crate) fn unread(at: Range<usize>, message: &str) -> Self {
        Self { unread: true, ..Self::new(at, without_quotations(message)) }
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
        let shown = shown_line(place.text);
        // What is hidden has no width.
        let seen = shown.chars().count();
        let before = (place.column - 1).min(seen.saturating_sub(1));
        let marks = format!("{}{}", " ".repeat(before), "^".repeat(width.min(seen - before).max(1)));
        // Writing into a String can't fail.
        let _ = write!(out, "line {}, column {}: {}", place.line, place.column, mistake.message);
        if let Some(hint) = &mistake.hint {
            let _ = write!(out, "; {hint}");
        }
        if mistake.unread {
            continue;
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

/// A line of the file without what may be a secret: headers of tables, names, and values of which none can be one.
fn shown_line(line: &str) -> String {
    let Some((name, value)) = line.split_once('=') else {
        return if is_header(line) { line.to_owned() } else { "…".to_owned() };
    };
    if !is_plain(name.trim().trim_matches('"')) {
        return "…".to_owned();
    }
    if HARMLESS.contains(&name.trim()) && is_harmless(value.trim()) {
        return line.to_owned();
    }
    format!("{name}= …")
}

/// Keys whose values are numbers, sizes, spans of time or words that the documentation lists.
const HARMLESS: [&str; 32] = [
    "workers",
    "read_rate",
    "fetch_ahead",
    "push_ahead",
    "standby_lag",
    "checkpoint",
    "compression",
    "type",
    "tls",
    "least",
    "method",
    "period",
    "calls",
    "limit",
    "keep",
    "timeout",
    "idle_timeout",
    "lag",
    "lag_bytes",
    "backup_age",
    "free_space_percent",
    "failures_in_a_row",
    "repeat_after",
    "every",
    "max_retained",
    "window_days",
    "daily",
    "weekly",
    "monthly",
    "yearly",
    "grace",
    "within",
];

fn is_header(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('[')
        && line.ends_with(']')
        && line.len() <= 100
        && is_plain(line.trim_matches(['[', ']']).replace('"', "").as_str())
}

fn is_harmless(value: &str) -> bool {
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    value.len() <= 24 && inner.chars().all(|c| c.is_ascii_alphanumeric() || " .:+-".contains(c))
}

/// Whether a word can be a name in a configuration.
fn is_plain(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !word.is_empty() && word.len() <= 63 && word.chars().all(plain)
}

/// A word of the file or of the command line as a message may repeat it: as it is where it can be a name. Anything else may
/// be an address with a password, at a wrong place.
pub(crate) fn word(text: &str) -> String {
    if is_plain(text) { format!("`{text}`") } else { "what stands there".to_owned() }
}

/// The name of a table, or NAME for what can be none.
pub(crate) fn plain_or_name(name: &str) -> &str {
    if is_plain(name) { name } else { "NAME" }
}

/// What a parser says, without what it quotes of the file.
fn without_quotations(message: &str) -> String {
    let parts: Vec<&str> = message.split('`').collect();
    let kept = parts.iter().enumerate().map(|(at, part)| {
        // Every second part stands between two quotation marks.
        let short = part.chars().count() <= 3 && !part.chars().any(char::is_alphanumeric);
        if at % 2 == 0 || short { *part } else { "…" }
    });
    kept.collect::<Vec<_>>().join("`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_shows_its_line_without_secrets() {
        let at = |source: &str, from: usize| render(source, &[Mistake::new(from..from + 2, "wrong")]);
        let shown = at("[a]\nx = \"postgres://me:s3cret@h/db\"\n", 8);
        assert!(shown.contains("line 2, column 5: wrong") && shown.contains("  2 | x = …\n"), "{shown}");
        for secret in
            ["s3cret", "s3/cr@et", "s3 cret", "s3'cret", "s3\\\"cret", "s3=cret", "s3#cret", "ßs3cret"]
        {
            for line in [
                format!("postgres = \"postgres://me:{secret}@h/db\""),
                format!("postgres = \"host=h password={secret}\""),
                format!("headers = {{ Authorization = \"Bearer {secret}\" }}"),
                format!("{secret}= 1"),
                format!("keep = \"{secret}//\""),
                secret.to_owned(),
                format!("[{secret}/]"),
            ] {
                for unread in [false, true] {
                    let mistake = Mistake { unread, ..Mistake::new(1..2, "wrong") };
                    let shown = render(&line, &[mistake]);
                    let plain = line == format!("{secret}= 1") && secret == "s3cret";
                    let told = shown.contains("cret") || shown.contains("cr@");
                    assert!(!told || plain && !unread, "{line}: {shown}");
                }
            }
        }
        assert!(at("keep = \"5 parsecs\"", 7).contains("keep = \"5 parsecs\""));
        assert_eq!(without_quotations("expected `=`, found `hunter2`"), "expected `=`, found `…`");
        assert_eq!(word("postgres://u:p@h"), "what stands there");
    }

    #[test]
    fn marks_stand_under_the_word() {
        let shown = render("a = 1\nßuri = 2", &[Mistake::new(8..11, "unknown")]);
        assert_eq!(shown, "line 2, column 2: unknown\n  2 | …\n    | ^", "ß stands in no name");
        let shown = render("a = 1\n uri = 2", &[Mistake::new(7..10, "unknown")]);
        assert_eq!(shown, "line 2, column 2: unknown\n  2 |  uri = …\n    |  ^^^");
    }
}
