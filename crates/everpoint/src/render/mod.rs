//! How results, errors and progress are shown: text for people, one JSON object for programs.

pub(crate) mod error;
pub(crate) mod number;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod time;

use std::io::{self, Write as _};

use everpoint_app::AppError;
use serde::Serialize;

/// What a command leaves: both ways to show it, and its exit code.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: u8,
    json: serde_json::Value,
    text: String,
    /// It is no report, and left as it is.
    plain: bool,
    /// An error that is told behind it, in words.
    refusal: Option<String>,
}

impl Done {
    /// A result. A report that can't become JSON would be a defect; it is shown as `null`.
    pub(crate) fn new(report: &impl Serialize, text: String) -> Self {
        Self {
            code: 0,
            json: serde_json::to_value(report).unwrap_or_default(),
            text,
            plain: false,
            refusal: None,
        }
    }

    /// A text that is the same in every mode: completions, manual pages.
    pub(crate) fn plain(text: String) -> Self {
        Self { code: 0, json: serde_json::Value::Null, text, plain: true, refusal: None }
    }

    pub(crate) fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// With what refuses that which was planned: in JSON a field of the plan.
    pub(crate) fn refused(mut self, error: Option<&AppError>) -> Self {
        if let Some(error) = error {
            self.code = error.class.exit_code();
            self.refusal = Some(error::text(error));
            if let (Some(plan), serde_json::Value::Object(error)) =
                (self.json.as_object_mut(), error::json(error))
            {
                plan.extend(error);
            }
        }
        self
    }

    /// Writes it to standard output, what refuses it to standard error.
    pub(crate) fn show(&self, json: bool) {
        if json && !self.json.is_null() {
            line(&mut io::stdout(), &self.json.to_string());
        } else if !self.text.is_empty() {
            let text = self.text.trim_end_matches('\n');
            let text =
                if self.plain { text.to_owned() } else { time::for_people(text, &crate::zone::shown()) };
            line(&mut io::stdout(), &text);
        }
        if let Some(refusal) = self.refusal.as_ref().filter(|_| !json) {
            note(refusal);
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
