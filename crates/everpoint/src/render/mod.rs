//! How results, errors and progress are shown: text for people, one JSON object for programs.

pub(crate) mod error;
pub(crate) mod number;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod time;

use std::io::{self, Write as _};

use serde::Serialize;

/// What a command leaves: both ways to show it, and its exit code.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: u8,
    json: serde_json::Value,
    text: String,
    /// It is no report, and left as it is.
    plain: bool,
}

impl Done {
    /// A result. A report that can't become JSON would be a defect; it is shown as `null`.
    pub(crate) fn new(report: &impl Serialize, text: String) -> Self {
        Self { code: 0, json: serde_json::to_value(report).unwrap_or_default(), text, plain: false }
    }

    /// A text that is the same in every mode: completions, manual pages.
    pub(crate) fn plain(text: String) -> Self {
        Self { code: 0, json: serde_json::Value::Null, text, plain: true }
    }

    pub(crate) fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Writes it to standard output.
    pub(crate) fn show(&self, json: bool) {
        if json && !self.json.is_null() {
            line(&mut io::stdout(), &self.json.to_string());
        } else if !self.text.is_empty() {
            let text = self.text.trim_end_matches('\n');
            let text =
                if self.plain { text.to_owned() } else { time::for_people(text, &crate::zone::shown()) };
            line(&mut io::stdout(), &text);
        }
    }
}

/// Writes a line. A reader that went away (`| head`) is no error.
pub(crate) fn line(to: &mut dyn io::Write, text: &str) {
    let _ = writeln!(to, "{text}");
    let _ = to.flush();
}

/// Writes a line for people to standard error: times in it are shown as everywhere.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{}", time::for_people(text, &crate::zone::shown()));
}
